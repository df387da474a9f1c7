"""A figure by several trainings of one model, and how sure is their mean.

Other captions would have given another figure, and so would another training,
of which a choice of captions knows nothing. Trainings are few: they are not
drawn anew as captions are. Their spread is added to that of captions, with the
degrees of freedom that so few leave (Welch, 1947). Where two of them differ in
one caption alone, both spreads have it: intervals are a little wide.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from kaleido_jax.metrics.bootstrap import Interval, Resampled


class Repeated(NamedTuple):
  """By each training; `others` by the same choices of captions in all."""

  runs: tuple[str, ...]
  values: Float[np.ndarray, ' runs']
  others: Float[np.ndarray, 'runs times']
  within: tuple[float, float] = (-np.inf, np.inf)  # where it can lie at all

  def interval(self) -> Interval:
    return _interval(self)

  def minus(self, other: 'Repeated') -> Interval:
    """How much more its mean is; training by training, where they are one's."""
    if self.runs != other.runs:
      return _interval(self, other)
    return _interval(
      Repeated(
        self.runs, self.values - other.values, self.others - other.others
      )
    )

  def over(self, other: 'Repeated', above: float = 0.0) -> Interval:
    """How many times the other, of what both are above a number.

    Of geometric means, as logarithms are what has a spread. Where a training
    is nothing above the number, the ratio is of means, and nothing is sure.
    """
    both = self, other
    if min(x.values.min() for x in both) <= above:
      a, b = (x.values.mean() - above for x in both)
      with np.errstate(divide='ignore', invalid='ignore'):
        return Interval(float(np.divide(a, b)), np.nan, np.nan)
    with np.errstate(divide='ignore', invalid='ignore'):
      a, b = (
        Repeated(x.runs, np.log(x.values - above), np.log(x.others - above))
        for x in both
      )
    return Interval(*map(float, np.exp(a.minus(b))))


def of(runs: Sequence[str], each: Sequence[Resampled]) -> Repeated:
  """From what single trainings gave, in the order of their names."""
  return Repeated(
    *(tuple(runs), np.array([one.value for one in each])),
    *(np.array([one.others for one in each]), each[0].within),
  )


def _interval(a: Repeated, b: Repeated | None = None) -> Interval:
  """Of the mean, or how far it is from another's.

  Captions are the same for both; trainings are each model's own.
  """
  value, others, within = a.values.mean(), a.others.mean(0), a.within
  if b is not None:
    value, others = value - b.values.mean(), others - b.others.mean(0)
    within = -np.inf, np.inf
  others = others[np.isfinite(others)]
  if len(others) < 2:
    return Interval(float(value), np.nan, np.nan)
  parts = [(np.var(others, ddof=1), len(others) - 1)]
  for x in (a,) if b is None else (a, b):
    count = len(x.values)
    parts.append((np.var(x.values, ddof=1) / count, count - 1))
  variance = sum(part for part, _ in parts)
  if not variance:
    return Interval(float(value), float(value), float(value))
  freedom = variance**2 / sum(part**2 / free for part, free in parts)
  ends = np.sqrt(variance) * stats.t.ppf([0.025, 0.975], freedom)
  low, high = np.clip(value + ends, *within)
  return Interval(float(value), float(low), float(high))
