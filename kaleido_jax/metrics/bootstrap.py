"""How sure a figure is: what other samples of the same kind would have given.

Pictures of one caption are alike, so captions are drawn anew, each with all of
its pictures (Davison and Hinkley, 1997, section 2.4). Some come twice then, and
others not at all, by which any set loses diversity: how far figures spread is
told, not where they lie.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

MANY = 100  # figures, of which quantiles can be taken


class Interval(NamedTuple):
  """A figure, and where 95 of 100 others lie."""

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    return f'{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]'


class Resampled(NamedTuple):
  """A figure, and what other choices of captions would have given.

  Those of another model, of as many captions and by the same seed, are of the
  same choices: the two can be compared one by one.
  """

  value: float
  others: Float[np.ndarray, ' times']
  within: tuple[float, float] = (-np.inf, np.inf)  # where it can lie at all

  def interval(self, level: float = 0.95) -> Interval:
    """It ends where the figure does.

    Where a hundred or more cost too much, its ends are those of a normal law
    of their spread: the outermost of twenty hold less than they should. A
    choice that leaves one picture alone says nothing: it has no pair.
    """
    tail, others = (1 - level) / 2, self.others[~np.isnan(self.others)]
    if len(others) < MANY:
      spread = np.std(others, ddof=1)
      ends = spread * stats.t.ppf([tail, 1 - tail], len(others) - 1)
    else:
      ends = np.quantile(others, [tail, 1 - tail]) - np.mean(others)
    low, high = np.clip(self.value + ends, *self.within)
    return Interval(self.value, float(low), float(high))

  def minus(self, other: 'Resampled') -> Interval:
    """How much more it is than the other."""
    return Resampled(
      self.value - other.value, self.others - other.others
    ).interval()

  def over(self, other: 'Resampled', above: float = 0.0) -> Interval:
    """How many times the other, of what both are above a number.

    inf if the other is nothing there. Its ends are plain quantiles. That a
    choice with captions twice has less diversity than all of them cancels here.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
      each = (self.others - above) / (other.others - above)
      value = np.divide(self.value - above, other.value - above)
    each = each[~np.isnan(each)]  # nothing over nothing says nothing
    if not len(each):
      return Interval(float(value), np.nan, np.nan)
    low, high = np.quantile(each, [0.025, 0.975], method='nearest')
    return Interval(float(value), float(low), float(high))


def resampled(
  count: int,
  statistic: Callable[[Int[np.ndarray, ' n']], float],
  *,
  times: int = 200,
  seed: int = 0,
  within: tuple[float, float] = (-np.inf, np.inf),
) -> Resampled:
  """Of `statistic(which)`, given numbers of captions, some of them twice."""
  if count < 2:
    raise ValueError(f'{count} captions say nothing of others; take 2 or more.')
  random = np.random.default_rng(seed)
  others = [
    statistic(np.sort(random.integers(count, size=count))) for _ in range(times)
  ]
  value = statistic(np.arange(count))
  return Resampled(float(value), np.array(others, float), within)
