"""Intervals of what was trained several times: by scipy, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from kaleido_jax.metrics import bootstrap, repeated

A = np.array([3.1, 2.4, 3.6])
B = np.array([1.9, 2.2, 1.2, 1.6])


def figure(values, runs='abcd', others=None, within=(-np.inf, np.inf)):
  """Without others: captions are all alike, trainings are what differs."""
  if others is None:
    others = np.zeros((len(values), 20))
  return repeated.Repeated(tuple(runs[: len(values)]), values, others, within)


def test_where_captions_are_alike_it_is_a_test_of_trainings():
  """By scipy's, of one sample, of two and of pairs."""
  found = figure(A).interval()
  low, high = stats.ttest_1samp(A, 0).confidence_interval()
  assert found == pytest.approx((A.mean(), low, high))
  found = figure(A).minus(figure(B, 'efgh'))
  low, high = stats.ttest_ind(A, B, equal_var=False).confidence_interval()
  assert found == pytest.approx((A.mean() - B.mean(), low, high))
  found = figure(A).minus(figure(B[:3]))  # of the same trainings
  low, high = stats.ttest_rel(A, B[:3]).confidence_interval()
  assert found == pytest.approx(((A - B[:3]).mean(), low, high))


def test_times_are_of_what_is_above_a_number():
  a, b = figure(A), figure(B, 'efgh')
  found = a.over(b, above=1.0)
  assert found.value == pytest.approx((A.mean() - 1) / (B.mean() - 1))
  # Ends: of relative changes, which scipy judges.
  each = (A - 1) / (A.mean() - 1), (B - 1) / (B.mean() - 1)
  low, high = stats.ttest_ind(*each, equal_var=False).confidence_interval()
  expected = found.value * np.exp([low, high])
  assert found[1:] == pytest.approx(tuple(expected))


def test_a_training_that_is_nothing_leaves_a_ratio():
  some, nothing = figure(np.array([0.0, 0.2, 0.3])), figure(np.zeros(2), 'xy')
  found = figure(A, 'xyz').over(some)
  assert 0 < found.low < found.value == pytest.approx(A.sum() / 0.5)
  assert found.high < np.inf
  assert some.over(nothing).value == np.inf
  assert np.isnan(some.over(nothing)[1:]).all()
  assert np.isnan(nothing.over(nothing)).all()


def test_an_interval_ends_where_its_figure_does():
  found = figure(np.array([0.01, 0.2, 0.02]), within=(0.0, 1.0)).interval()
  assert found.low == 0 and 0.2 < found.high < 1


def simulated(random, luck, noise, means=(0.2, 0.0), captions=60, runs=3):
  """Figures of two models: `hard` captions, lucky trainings, their noise."""
  hard = random.normal(0, 1, captions)
  for mean in means:
    own = random.normal(0, luck, size=(runs, 1))
    x = mean + hard + own + random.normal(0, noise, size=(runs, captions))
    yield [
      bootstrap.resampled(captions, lambda i, x=x: x[i].mean(), times=40)
      for x in x
    ]


def test_nineteen_of_twenty_intervals_hold_the_truth():
  """Those of single trainings do not: they take luck for a difference."""
  random = np.random.default_rng(0)
  held, alone = [], []
  for _ in range(150):
    a, b = simulated(random, luck=0.2, noise=0.3)
    found = repeated.of('abc', a).minus(repeated.of('def', b))
    held.append(found.low < 0.2 < found.high)
    found = a[0].minus(b[0])
    alone.append(found.low < 0.2 < found.high)
  assert 0.91 <= np.mean(held) <= 0.99
  assert np.mean(alone) < 0.6


@pytest.mark.parametrize(('runs', 'most'), ((2, 1.8), (5, 1.4)))
def test_noise_of_single_captions_does_not_count_twice(runs, most):
  """Where no training is lucky, they are not much wider than theory says."""
  random, wide, held = np.random.default_rng(0), [], []
  for _ in range(60):
    a, b = simulated(random, luck=0.0, noise=1.0, captions=50, runs=runs)
    a = repeated.of('abcde'[:runs], a)
    found = a.minus(repeated.of('fghij'[:runs], b))
    wide.append((found.high - found.low) / 2)
    held.append(found.low < 0.2 < found.high)
  theory = 1.96 * (2 / runs / 50) ** 0.5
  assert 1 < np.median(wide) / theory < most
  assert np.mean(held) > 0.9


def test_captions_that_all_trainings_have_blur_their_mean():
  random = np.random.default_rng(0)
  hard = random.normal(0, 1, 100)
  each = [
    bootstrap.resampled(100, lambda i, x=x: (hard + x)[i].mean(), times=200)
    for x in (0.0, 0.001, -0.001)
  ]
  found = repeated.of('abc', each).interval()
  half = stats.t.ppf(0.975, 199) * hard.std() / 10
  assert found.high - found.value == pytest.approx(half, rel=0.15)
