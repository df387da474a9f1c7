"""Intervals that contain what they should; modes counted by hand."""

import numpy as np
import pytest

from kaleido_jax.evaluation import compared
from kaleido_jax.metrics import bootstrap, modes


def interval(count, statistic, **options):
  return bootstrap.resampled(count, statistic, **options).interval()


def test_intervals_of_a_mean_are_as_wide_as_theory_says():
  x = np.random.default_rng(0).normal(size=400)
  found = interval(400, lambda which: x[which].mean(), times=2000)
  assert found.value == pytest.approx(x.mean())
  half = 1.96 * x.std() / 400**0.5
  assert found.low == pytest.approx(x.mean() - half, abs=0.1 * half)
  assert found.high == pytest.approx(x.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize('times', [200, 20])
def test_they_hold_the_truth_nineteen_times_of_twenty(times):
  random, held = np.random.default_rng(1), 0
  for trial in range(400):
    x = random.normal(size=60)
    found = interval(60, lambda i, x=x: x[i].mean(), seed=trial, times=times)
    held += found.low <= 0 <= found.high
  assert 0.92 <= held / 400 <= 0.97


def test_they_end_where_figures_do():
  x = np.repeat([0.0, 1.0], [1, 9])
  low, high = interval(10, lambda which: x[which].mean())[1:]
  assert low < 0.75 and high > 0.95
  found = interval(10, lambda which: x[which].mean(), within=(0.75, 0.95))
  assert found == (0.9, 0.75, 0.95)


def test_captions_go_with_all_their_pictures():
  """Ten captions of one value each, many pictures: as sure as ten values."""
  x = np.repeat(np.arange(10.0), 100).reshape(10, 100)
  found = interval(10, lambda which: x[which].mean())
  assert found.high - found.low > 2.5


def test_one_caption_says_nothing():
  with pytest.raises(ValueError, match='1 captions say nothing'):
    interval(1, lambda which: 0.0)


def test_a_common_cause_does_not_blur_a_difference():
  """Captions are ten times as different as the models are."""
  random = np.random.default_rng(0)
  hard = random.normal(5, 1, size=200)
  a, b = hard + 0.1 + random.normal(size=(2, 200)) * [[0.01], [0.01]]
  b = b - 0.1
  one, other = (
    bootstrap.resampled(200, lambda i, x=x: x[i].mean(), seed=3) for x in (a, b)
  )
  assert one.interval().low < other.interval().high  # they overlap
  found = one.minus(other)
  half = 1.96 * (a - b).std() / 200**0.5
  assert found.value == pytest.approx((a - b).mean())
  assert found.high - found.low == pytest.approx(2 * half, rel=0.3)
  assert found.low > 0.09
  found = one.over(other, above=4.0)
  assert found.value == pytest.approx((a.mean() - 4) / (b.mean() - 4))
  assert 1 < found.low < found.value < found.high < 1.2


def test_nothing_over_nothing_is_not_told():
  none = bootstrap.Resampled(0.0, np.zeros(200))
  some = bootstrap.Resampled(0.5, np.full(200, 0.5))
  assert some.over(none) == (np.inf, np.inf, np.inf)
  assert np.isnan(none.over(none)).all()


def test_models_are_compared_with_the_first_and_ways_with_none():
  figures = {
    'recall': bootstrap.Resampled(0.2, np.linspace(0.1, 0.3, 200)),
    'frechet': bootstrap.Resampled(7.0, np.linspace(6, 8, 20)),
    'vendi': bootstrap.Resampled(1.5, np.linspace(1.4, 1.6, 200)),
  }
  better = {
    name: f._replace(value=2 * f.value, others=2 * f.others)
    for name, f in figures.items()
  }
  scored = [
    compared.Scored('mdm', '', 4.0, figures),
    compared.Scored('mdm', 'cads', 4.0, better),
    compared.Scored('kaleido', '', 4.0, better),
    compared.Scored('kaleido', 'cads', 4.0, better),
  ]
  found = compared.of(scored, 'mdm')
  plain, cads, *ways = found
  assert (plain.model, plain.other, plain.way) == ('kaleido', 'mdm', '')
  assert plain.ratios['recall'] == pytest.approx((2, 2, 2))
  assert plain.ratios['vendi'].value == pytest.approx(4)  # of what is above 1
  assert plain.differences['frechet'].value == 7
  assert cads.ratios['recall'] == (1, 1, 1)
  assert [(c.model, c.other, c.way) for c in ways] == [
    *(('mdm', 'mdm', 'cads'), ('kaleido', 'kaleido', 'cads'))
  ]
  assert [c.ratios['recall'].value for c in ways] == [2, 1]
  # Where guidance alone was not asked for, there is nothing to compare with.
  assert not list(compared.of(scored[1:2], 'mdm'))


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


@pytest.mark.parametrize('times', [20, 200])
def test_a_choice_that_says_nothing_does_not_count(times):
  others = np.random.default_rng(0).normal(size=times)
  whole = bootstrap.Resampled(1.0, others).interval()
  holed = bootstrap.Resampled(1.0, np.append(others, np.nan)).interval()
  assert holed == whole and np.isfinite(whole).all()
