"""The Frechet distance against closed forms, scipy and torch-fidelity."""

import json

import numpy as np
import pytest
from feature_sets import pair
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg

from kaleido_jax.metrics import frechet


def test_torch_fidelity_says_the_same(data):
  said = json.loads((data / 'metrics.json').read_text())['frechet']
  assert frechet.distance(*pair()) == pytest.approx(said, rel=1e-5)


def test_a_set_is_at_no_distance_from_itself():
  real, _ = pair()
  assert frechet.distance(real, real) == pytest.approx(0, abs=1e-6)
  assert frechet.distance(real, real[::-1]) == pytest.approx(0, abs=1e-6)


def test_a_shift_and_a_scale_have_closed_forms():
  """Shifted: |shift|^2. Scaled about the mean by s: (s - 1)^2 tr C."""
  real = pair()[0].astype(np.float64)
  shift = np.arange(real.shape[1]) / 10
  assert frechet.distance(real, real + shift) == pytest.approx(shift @ shift)
  mean, trace = real.mean(0), np.trace(np.cov(real, rowvar=False))
  wider = mean + 1.5 * (real - mean)
  assert frechet.distance(real, wider) == pytest.approx(0.25 * trace)


def test_fewer_pictures_than_features_are_fine():
  """Against scipy's square root of a product that is singular."""
  real, fake = (x[:10].astype(np.float64) for x in pair())
  a, b = (np.cov(x, rowvar=False) for x in (real, fake))
  tiny = 1e-10 * np.eye(len(a))
  root = linalg.sqrtm((a + tiny) @ (b + tiny)).real
  apart = real.mean(0) - fake.mean(0)
  expected = apart @ apart + np.trace(a + b - 2 * root)
  assert frechet.distance(real, fake) == pytest.approx(expected, rel=1e-3)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 9))
def test_parts_are_the_whole(sizes, seed):
  x = pair(n=sum(sizes), d=5, seed=seed)[0] + np.float32(100)
  parts = np.split(x, np.cumsum(sizes)[:-1])
  found = frechet.joined(map(frechet.moments, parts))
  assert found.count == len(x)
  np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(0))
  if len(x) > 1:
    expected = np.cov(x.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(found.gaussian.covariance, expected, atol=1e-9)


def test_statistics_of_adm_are_read(tmp_path):
  real, fake = (x.astype(np.float64) for x in pair())
  np.savez(
    tmp_path / 'adm.npz',
    arr_0=np.zeros(3),
    mu_s=real.mean(0),
    sigma_s=np.cov(real, rowvar=False),
  )
  other = frechet.Gaussian(fake.mean(0), np.cov(fake, rowvar=False))
  found = frechet.read(tmp_path / 'adm.npz', '_s').to(other)
  assert found == pytest.approx(frechet.distance(real, fake))
  with pytest.raises(ValueError, match='has no mu, only arr_0, mu_s'):
    frechet.read(tmp_path / 'adm.npz')


def test_what_has_no_distance_is_a_sentence():
  real, fake = pair()
  with pytest.raises(ValueError, match='of different extractors'):
    frechet.distance(real, fake[:, :5])
  with pytest.raises(ValueError, match='two sets of features or more, not 1'):
    frechet.distance(real, fake[:1])
  fake[7, 3] = np.nan
  with pytest.raises(ValueError, match='finite, first of number 7'):
    frechet.distance(real, fake)
