"""A figure by several trainings of one model, and how sure is their mean.

Other captions would have given another figure, and so would another training,
of which a choice of captions knows nothing. Trainings are few: they are not
drawn anew as captions are. Their spread is added to that of captions, with the
degrees of freedom that so few leave (Welch, 1947).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from kaleido_jax.metrics.bootstrap import Interval, Resampled

ALL = (-np.inf, np.inf)


class Repeated(NamedTuple):
  """A figure by each of two trainings or more.

  others: what other choices of captions would have given; the same choices in
  all trainings.
  """

  runs: tuple[str, ...]
  values: Float[np.ndarray, ' runs']
  others: Float[np.ndarray, 'runs times']
  within: tuple[float, float] = ALL  # where it can lie at all

  def interval(self) -> Interval:
    """Of the mean."""
    return _interval(
      self.values.mean(), self.others.mean(0), [self], self.within
    )

  def minus(self, other: 'Repeated') -> Interval:
    """How much more its mean is.

    Where both are of the same trainings, each is compared with itself.
    """
    values = self.values.mean() - other.values.mean()
    if self.runs != other.runs:
      others = self.others.mean(0) - other.others.mean(0)
      return _interval(values, others, [self, other])
    pairs = self.values - other.values, self.others - other.others
    return Repeated(self.runs, *pairs).interval()

  def over(self, other: 'Repeated', above: float = 0.0) -> Interval:
    """How many times the other, of what both means are above a number.

    Its ends are those of the logarithm, which a relative change is nearly.
    """
    a, b = (x.values.mean() - above for x in (self, other))
    with np.errstate(divide='ignore', invalid='ignore'):
      value = float(np.divide(a, b))
    if min(a, b) <= 0:
      return Interval(value, np.nan, np.nan)
    apart = self._relative(above).minus(other._relative(above))
    low, high = value * np.exp(apart[1:])
    return Interval(value, float(low), float(high))

  def _relative(self, above: float) -> 'Repeated':
    """To its mean, of what is above the number."""
    mean = self.values.mean() - above
    each = (self.values - above) / mean, (self.others - above) / mean
    return Repeated(self.runs, *each)


def of(runs: Sequence[str], each: Sequence[Resampled]) -> Repeated:
  """From what each training gave, two or more, in the order of their names."""
  return Repeated(
    *(tuple(runs), np.array([one.value for one in each])),
    *(np.array([one.others for one in each]), each[0].within),
  )


def _interval(
  value: float,
  others: Float[np.ndarray, ' times'],
  models: Sequence[Repeated],
  within: tuple[float, float] = ALL,
) -> Interval:
  """others: of the value. Trainings are each model's own, captions are common.

  What a training does to one caption is in its figure already: the spread of
  captions is told without that, or it would count twice. It is also what
  trainings must differ by, known better than by how far two or three of them
  happen to lie apart.
  """
  there = np.isfinite(others)
  times = there.sum()
  if times < 2:
    return Interval(float(value), np.nan, np.nan)
  captions, parts = np.var(others[there], ddof=1), []
  for model in models:
    count, each = len(model.values), model.others[:, there]
    own = np.var(each - each.mean(0), axis=1, ddof=1).sum() / (count - 1)
    captions -= own / count
    apart = np.var(model.values, ddof=1)
    parts.append(
      (apart / count, count - 1) if apart > own else (own / count, times - 1)
    )
  parts.append((max(captions, 0.0), times - 1))
  variance = sum(part for part, _ in parts)
  if not variance:
    return Interval(float(value), float(value), float(value))
  freedom = variance**2 / sum(part**2 / free for part, free in parts)
  ends = np.sqrt(variance) * stats.t.ppf([0.025, 0.975], freedom)
  low, high = np.clip(value + ends, *within)
  return Interval(float(value), float(low), float(high))
