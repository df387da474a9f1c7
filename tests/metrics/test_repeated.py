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


def test_times_are_of_geometric_means():
  a, b = (
    figure(A, others=np.full((3, 20), 3.0)),
    figure(B, 'efgh', np.full((4, 20), 3.0)),
  )
  found = a.over(b, above=1.0)
  logs = np.log(A - 1), np.log(B - 1)
  low, high = stats.ttest_ind(*logs, equal_var=False).confidence_interval()
  expected = stats.gmean(A - 1) / stats.gmean(B - 1), np.exp(low), np.exp(high)
  assert found == pytest.approx(expected)
  nothing = figure(np.array([0.0, 0.2]), 'xy')
  assert a.over(nothing)[0] == pytest.approx(A.mean() / 0.1)
  assert np.isnan(a.over(nothing)[1:]).all()
  assert np.isnan(nothing.over(figure(np.zeros(2), 'zw'))[1:]).all()


def test_an_interval_ends_where_its_figure_does():
  found = figure(np.array([0.01, 0.2, 0.02]), within=(0.0, 1.0)).interval()
  assert found.low == 0 and 0.2 < found.high < 1


def test_nineteen_of_twenty_intervals_hold_the_truth():
  """Those of single trainings do not: they take luck for a difference."""
  random, captions, truth = np.random.default_rng(0), 60, 0.2
  held, alone = [], []
  for _ in range(150):
    hard = random.normal(0, 1, captions)
    each = []
    for mean in (truth, 0.0):
      luck = random.normal(0, 0.2, size=(3, 1))
      noise = random.normal(0, 0.3, size=(3, captions))
      each.append(mean + hard + luck + noise)
    a, b = (
      [
        bootstrap.resampled(captions, lambda i, x=x: x[i].mean(), times=40)
        for x in runs
      ]
      for runs in each
    )
    found = repeated.of('abc', a).minus(repeated.of('def', b))
    held.append(found.low < truth < found.high)
    found = a[0].minus(b[0])
    alone.append(found.low < truth < found.high)
  assert 0.91 <= np.mean(held) <= 0.99
  assert np.mean(alone) < 0.6


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
