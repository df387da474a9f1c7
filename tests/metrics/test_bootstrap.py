"""Intervals that contain what they should; modes counted by hand."""

import numpy as np
import pytest

from kaleido_jax.metrics import bootstrap, modes


def test_intervals_of_a_mean_are_as_wide_as_theory_says():
  x = np.random.default_rng(0).normal(size=400)
  found = bootstrap.interval(400, lambda which: x[which].mean(), times=2000)
  assert found.value == pytest.approx(x.mean())
  half = 1.96 * x.std() / 400**0.5
  assert found.low == pytest.approx(x.mean() - half, abs=0.1 * half)
  assert found.high == pytest.approx(x.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize('times', [200, 20])
def test_they_hold_the_truth_nineteen_times_of_twenty(times):
  random, held = np.random.default_rng(1), 0
  for trial in range(400):
    x = random.normal(size=60)
    found = bootstrap.interval(
      60, lambda i, x=x: x[i].mean(), seed=trial, times=times
    )
    held += found.low <= 0 <= found.high
  assert 0.92 <= held / 400 <= 0.97


def test_they_end_where_figures_do():
  x = np.repeat([0.0, 1.0], [1, 9])
  low, high = bootstrap.interval(10, lambda which: x[which].mean())[1:]
  assert low < 0.75 and high > 0.95
  found = bootstrap.interval(
    10, lambda which: x[which].mean(), within=(0.75, 0.95)
  )
  assert found == (0.9, 0.75, 0.95)


def test_captions_go_with_all_their_pictures():
  """Ten captions of one value each, many pictures: as sure as ten values."""
  x = np.repeat(np.arange(10.0), 100).reshape(10, 100)
  found = bootstrap.interval(10, lambda which: x[which].mean())
  assert found.high - found.low > 2.5


def test_one_caption_says_nothing():
  with pytest.raises(ValueError, match='1 captions say nothing'):
    bootstrap.interval(1, lambda which: 0.0)


def test_modes_are_counted():
  truth = {'red': 0.5, 'blue': 0.3, 'green': 0.2}
  drawn = ['red'] * 6 + ['blue'] * 2 + [None] * 2
  found = modes.coverage(drawn, truth)
  assert found.shares == {'red': 0.75, 'blue': 0.25, 'green': 0}
  assert found.distance == pytest.approx((0.25 + 0.05 + 0.2) / 2)
  assert found.none == pytest.approx(0.2)
  exact = modes.coverage(['red'] * 5 + ['blue'] * 3 + ['green'] * 2, truth)
  assert exact.distance == pytest.approx(0)
  with pytest.raises(ValueError, match='none of 2 pictures shows'):
    modes.coverage([None, 'pink'], truth)


def test_distinct_modes_are_expected():
  """Two fair coins: HH, HT, TH, TT show 1, 2, 2 and 1 sides."""
  assert modes.distinct([0.5, 0.5], 2) == pytest.approx(1.5)
  assert modes.distinct([1.0, 0.0], 5) == 1
  random = np.random.default_rng(0)
  shares, count = [0.6, 0.3, 0.1], 4
  drawn = random.choice(3, (4000, count), p=shares)
  mean = np.mean([len(set(row)) for row in drawn])
  assert modes.distinct(shares, count) == pytest.approx(mean, abs=0.05)
