"""The kernel distance against torch-fidelity, a closed form, and by hand."""

import itertools
import json

import numpy as np
import pytest
from feature_sets import pair

from kaleido_jax.metrics import blocks, kernel


def test_torch_fidelity_says_the_same(data):
  """Which wants as many fakes as real ones."""
  real, fake = pair()
  said = json.loads((data / 'metrics.json').read_text())['kernel']
  found = kernel.distance(real, fake[: len(real)])
  assert found == pytest.approx(said, rel=1e-5)


def test_few_pictures_are_right_on_average():
  """Of one number the kernel compares three moments, known of normal laws."""
  random, shift = np.random.default_rng(0), 0.5
  found = [
    kernel.distance(random.normal(size=(9, 1)), fake)
    for fake in random.normal(loc=shift, size=(1000, 6, 1))
  ]
  expected = 3 * shift**2 + 3 * shift**4 + (3 * shift + shift**3) ** 2
  sure = np.std(found) / np.sqrt(len(found))
  assert abs(np.mean(found) - expected) < 3 * sure < expected


def grouped(sizes=(100, 30, 50), each=4):
  real, fake = pair()
  fakes = kernel.kind(fake, np.full(len(fake) // each, each))
  return real, fake, kernel.both(kernel.kind(real, np.array(sizes)), fakes)


def test_groups_that_are_left_out_are_not_there(monkeypatch):
  monkeypatch.setattr(blocks, 'SIZE', 70)  # cuts groups in two
  real, fake, both = grouped()
  assert both.distance() == pytest.approx(kernel.distance(real, fake))
  of_fakes = np.repeat([1, 0, 1], [20, 25, 5])
  found = both.distance(np.array([1, 0, 1]), of_fakes)
  expected = kernel.distance(
    np.delete(real, slice(100, 130), axis=0),
    np.delete(fake, slice(80, 180), axis=0),
  )
  assert found == pytest.approx(expected)
  assert found != pytest.approx(both.distance(), rel=1e-3)


def test_a_picture_that_is_there_twice_is_no_pair():
  real, fake, both = grouped()
  times = np.arange(len(fake) // 4) % 3
  rows = np.repeat(np.arange(len(fake)), np.repeat(times, 4))

  def mean(pairs):
    return np.mean([(a.astype(float) @ b / 24 + 1) ** 3 for a, b in pairs])

  expected = mean(itertools.combinations(real, 2))
  expected += mean(
    (fake[i], fake[j]) for i, j in itertools.combinations(rows, 2) if i != j
  )
  expected -= 2 * mean(itertools.product(real, fake[rows]))
  assert both.distance(fake=times) == pytest.approx(expected)


def test_what_has_no_distance_is_a_sentence():
  real, fake = pair()
  with pytest.raises(ValueError, match='2 rows or more'):
    kernel.distance(real, fake[:1])
  with pytest.raises(ValueError, match='different extractors'):
    kernel.distance(real, fake[:, 1:])
  with pytest.raises(ValueError, match='not finite'):
    kernel.distance(real, np.where(fake > 4, np.nan, fake))
