"""Precision and recall against prdc, by hand, and in parts."""

import json

import numpy as np
import pytest
from feature_sets import pair

from kaleido_jax.metrics import precision_recall


@pytest.mark.parametrize('k', [3, 5])
def test_prdc_says_the_same(data, k):
  said = json.loads((data / 'metrics.json').read_text())
  found = precision_recall.score(*pair(), k)
  for name, value in found.items():
    assert value == pytest.approx(said[f'{name}/{k}'], rel=1e-9)


def test_by_hand():
  """On a line, k = 1: reaches are 1, 1, 3 of real and .5, 8, .5 of fake."""
  real = np.array([[0.0], [1.0], [4.0]])
  fake = np.array([[0.5], [9.0], [1.0]])
  # .5 lies within reach of 0 and of 1; 9 of none; 1 of 1 alone, since it is at
  # the very edge of what 0 and 4 reach.
  found = precision_recall.score(real, fake, 1)
  assert found['precision'] == pytest.approx(2 / 3)
  assert found['density'] == pytest.approx((2 + 1) / 3)
  # Fakes reach .5 around .5 and 1, 8 around 9: 1 and 4 are within.
  assert found['recall'] == pytest.approx(2 / 3)
  assert found['coverage'] == pytest.approx(2 / 3)


def test_blocks_and_parts_change_nothing(monkeypatch):
  real, fake = pair()
  whole = precision_recall.score(real, fake)
  monkeypatch.setattr(precision_recall, 'BLOCK', 64)
  parts = [precision_recall.count(real, fake, part=(i, 4)) for i in range(4)]
  assert precision_recall.scores(parts, 3) == whole
  assert sum(part.fakes for part in parts) == len(fake)


def test_extremes():
  real, fake = pair()
  same = precision_recall.score(real, real)
  assert same['precision'] == same['recall'] == same['coverage'] == 1
  far = precision_recall.score(real, fake + 1000)
  assert set(far.values()) == {0}
  # One real picture, many times with a little noise: precise, and blind.
  copies = real[:1] + 1e-3 * np.random.default_rng(0).normal(size=(100, 24))
  found = precision_recall.score(real, copies)
  assert found['precision'] == 1 and found['recall'] < 0.02


def test_what_has_no_neighbours_is_a_sentence():
  real, fake = pair()
  with pytest.raises(ValueError, match='more than k=3 rows'):
    precision_recall.score(real, fake[:3])
  with pytest.raises(ValueError, match='different extractors'):
    precision_recall.score(real, fake[:, 1:])
  with pytest.raises(ValueError, match='not finite'):
    precision_recall.score(real, np.where(fake > 4, np.inf, fake))
  with pytest.raises(ValueError, match='no such neighbour'):
    precision_recall.score(real, fake, 0)


def test_who_is_near_whom_gives_the_same_figures():
  real, fake = pair()
  near = precision_recall.near(real, fake, 5)
  assert precision_recall.score(real, fake, 5) == pytest.approx(
    {
      'precision': near.in_real.any(1).mean(),
      'recall': near.in_fake.any(1).mean(),
      'density': near.in_real.sum() / 5 / len(fake),
      'coverage': near.in_real.any(0).mean(),
    }
  )
