"""Precision and recall against prdc, by hand, and in parts."""

import json

import numpy as np
import pytest
from feature_sets import pair

from kaleido_jax.evaluation import scores
from kaleido_jax.metrics import blocks, precision_recall


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


def test_blocks_and_shares_change_nothing(monkeypatch):
  """Four processes, of which the last has more; and one with nothing to do."""
  real, fake = pair()
  whole = precision_recall.score(real, fake)
  monkeypatch.setattr(blocks, 'SIZE', 64)
  reach = [
    np.concatenate(
      [precision_recall.reaches(x, 3, part=(i, 4)) for i in range(4)]
    )
    for x in (real, fake)
  ]
  a, b = map(precision_recall.Reached, (real, fake), reach)
  shares = [b.share((i, 4)) for i in range(4)]
  assert sum(len(share.squares) for share in shares) == len(fake)
  shares.append(precision_recall.Reached(fake[:0], reach[1][:0]))
  parts = [precision_recall.near(a, share) for share in shares]
  found = precision_recall.figures(precision_recall.joined(parts), 3)
  assert found == pytest.approx(whole, rel=1e-9)


def test_figures_of_some_captions(monkeypatch):
  """The same as if those alone had been drawn, with the reaches of all."""
  monkeypatch.setattr(blocks, 'SIZE', 70)  # cuts captions in two
  real, fake = (precision_recall.reached(x, 3) for x in pair())
  each = 4
  near = precision_recall.near(real, fake, groups=len(fake.features) // each)
  which = np.array([0, 0, 2, 17, 31])
  rows = (which[:, None] * each + np.arange(each)).ravel()
  some = precision_recall.Reached(fake.features[rows], fake.squares[rows])
  expected = precision_recall.figures(precision_recall.near(real, some), 3)
  found = precision_recall.figures(near.of(which), 3)
  assert found == pytest.approx(expected) and 0 < found['recall'] < 1
  everything = near.of(np.arange(len(near.recalled)))
  assert precision_recall.figures(everything, 3) == precision_recall.score(
    *pair(), 3
  )


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
  a, b = (precision_recall.reached(x, 3) for x in (real, fake))
  with pytest.raises(ValueError, match='do not fall into 7 groups'):
    precision_recall.near(a, b, groups=7)


def test_real_pictures_count_as_often_as_their_captions():
  """As if they were there so many times; what is not chosen is not there."""
  real, fake = (precision_recall.reached(x, 3) for x in pair())
  near = precision_recall.near(real, fake)
  captions = np.arange(len(real.features)) % 5 - 1  # -1: of no drawn caption
  truth = scores.Truth({}, real, len(captions), captions=captions)
  which = np.array([0, 0, 1, 3])
  weights = truth.weights(which)
  rows = np.concatenate(
    [np.flatnonzero(captions == n) for n in (-1, 0, 0, 1, 3)]
  )
  assert weights.sum() == len(rows) and not weights[captions == 2].any()
  found = precision_recall.figures(near, 3, weights)
  assert found['recall'] == pytest.approx(near.recalled[0, rows].mean())
  assert found['coverage'] == pytest.approx(near.covered[0, rows].mean())
  everything = precision_recall.figures(near, 3)
  assert found['recall'] != everything['recall']
  assert found['precision'] == everything['precision']
  unknown = scores.Truth({}, real, len(captions))
  assert (unknown.weights(which) == 1).all()
