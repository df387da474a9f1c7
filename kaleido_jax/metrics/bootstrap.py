"""How sure a figure is: what other samples of the same kind would have given.

Pictures of one caption are alike, so captions are drawn anew, each with all of
its pictures (Davison and Hinkley, 1997, section 2.4). Some come twice then, and
others not at all, by which any set loses diversity: how far figures spread is
told, not where they lie.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy import stats

MANY = 100  # figures, of which quantiles can be taken


class Interval(NamedTuple):
  """A figure, and where 95 of 100 others lie."""

  value: float
  low: float
  high: float

  def __str__(self) -> str:
    return f'{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]'


def interval(
  count: int,
  statistic: Callable[[Int[np.ndarray, ' n']], float],
  *,
  times: int = 200,
  level: float = 0.95,
  seed: int = 0,
  within: tuple[float, float] = (-np.inf, np.inf),
) -> Interval:
  """Of `statistic(which)`, given numbers of captions, some of them twice.

  times: where a hundred or more cost too much, the ends are those of a normal
  law of their spread: the outermost of twenty hold less than they should.
  within: where the figure can lie at all: its interval ends there, too.
  """
  if count < 2:
    raise ValueError(f'{count} captions say nothing of others; take 2 or more.')
  random = np.random.default_rng(seed)
  value = statistic(np.arange(count))
  others = [
    statistic(np.sort(random.integers(count, size=count))) for _ in range(times)
  ]
  tail = (1 - level) / 2
  if times < MANY:
    low, high = stats.t.ppf([tail, 1 - tail], times - 1) * np.std(
      others, ddof=1
    )
  else:
    low, high = np.quantile(others, [tail, 1 - tail]) - np.mean(others)
  low, high = np.clip([value + low, value + high], *within)
  return Interval(float(value), float(low), float(high))
