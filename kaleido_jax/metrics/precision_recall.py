"""Precision, recall, density and coverage, by nearest neighbours.

  precision  how many fakes lie within the reach of some real picture
  recall     how many real ones lie within the reach of some fake
  density    within how many reaches a fake lies, over k
  coverage   how many real ones have a fake within their reach

The reach of a picture is the distance to its k-th neighbour of its own kind
(arXiv:1904.06991, arXiv:2002.09797); who lies at its very edge is outside, as
in prdc. Distances are computed block by block in float64, on the devices there
are: 50,000 by 50,000 never stand in memory.

  real, fake = reached(real, k), reached(fake, k)
  figures(near(real, fake), k)

Several processes each give `reached` and `near` a share of the rows, and what
they find is `joined`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Num

from kaleido_jax.metrics import blocks

Features = Float[np.ndarray, '_ _']


class Reached(NamedTuple):
  """Pictures, and how far each of them reaches."""

  features: Float[np.ndarray, 'n d']
  squares: Float[np.ndarray, ' n']  # of the distances

  def share(self, part: tuple[int, int]) -> 'Reached':
    """The rows of one process: (which, of how many)."""
    rows = slice(*_share(len(self.features), part))
    return Reached(self.features[rows], self.squares[rows])


class Near(NamedTuple):
  """Who lies within whose reach, as much of it as the figures need.

  Fakes come in groups, those of a caption: which of the real ones a group
  recalls or covers is all that is kept, so that figures of any choice of groups
  follow from it (see `bootstrap`) without a fake-by-real table.
  """

  within: Int[np.ndarray, ' fakes']  # how many reaches a fake lies in
  recalled: Bool[np.ndarray, 'groups reals']  # a real one, by some of a group
  covered: Bool[np.ndarray, 'groups reals']

  def of(self, which: Int[np.ndarray, ' some']) -> 'Near':
    """Of some of the groups; the same one may be there twice."""
    within = self.within.reshape(len(self.recalled), -1)[which].ravel()
    return Near(within, self.recalled[which], self.covered[which])


def score(real: Features, fake: Features, k: int = 3) -> dict[str, float]:
  """All four, of two feature matrices."""
  return figures(near(reached(real, k), reached(fake, k)), k)


def figures(
  near: Near, k: int, weights: Num[np.ndarray, ' reals'] | None = None
) -> dict[str, float]:
  """weights: how often each real picture counts; else once."""
  return {
    'precision': float((near.within > 0).mean()),
    'recall': float(np.average(near.recalled.any(0), weights=weights)),
    'density': float(near.within.mean() / k),
    'coverage': float(np.average(near.covered.any(0), weights=weights)),
  }


def reached(x: Features, k: int) -> Reached:
  x = np.asarray(x)
  return Reached(x, reaches(x, k))


def reaches(
  x: Features, k: int, part: tuple[int, int] = (0, 1)
) -> Float[np.ndarray, ' n']:
  """The distance of each to its k-th neighbour, squared; of a share of them."""
  check(x, k)
  found = [np.zeros(0)]
  middle = _mean(x)  # no distance changes, and fewer digits cancel
  with jax.enable_x64(True):
    for rows in blocks.ranges(*_share(len(x), part)):
      some = x[rows] - middle
      best = jnp.full((len(some), k + 1), jnp.inf)  # itself is the nearest
      for others in blocks.ranges(len(x)):
        best = _merged(best, some, x[others] - middle)
      found.append(np.asarray(best[:, k]))
  return np.concatenate(found)


def near(real: Reached, fake: Reached, groups: int = 1) -> Near:
  """Fakes lie group by group, all groups alike large."""
  blocks.agree(real.features, fake.features)
  each, rest = divmod(len(fake.features), groups)
  if rest:
    raise ValueError(
      f'{len(fake.features)} pictures do not fall into {groups} groups.'
    )
  middle = _mean(real.features)
  within = np.zeros(len(fake.features), np.int64)
  recalled, covered = np.zeros((2, groups, len(real.features)), bool)
  with jax.enable_x64(True):
    for rows in blocks.ranges(len(within)):
      a, reach = fake.features[rows] - middle, fake.squares[rows]
      of, starts = np.unique(np.arange(len(within))[rows] // each, True)
      for columns in blocks.ranges(len(real.features)):
        b = real.features[columns] - middle
        in_real, in_fake = jax.device_get(
          _reached(a, b, reach, real.squares[columns])
        )
        within[rows] += in_real.sum(1)
        for table, new in ((covered, in_real), (recalled, in_fake)):
          table[of, columns] |= np.logical_or.reduceat(new, starts)
  return Near(within, recalled, covered)


def joined(parts: Iterable[Near]) -> Near:
  """Of shares of the fakes that several processes have looked at."""
  return Near(*map(np.concatenate, zip(*parts, strict=True)))


def check(features: Features, k: int) -> None:
  if k < 1:
    raise ValueError(f'k={k}: there is no such neighbour; give 1 or more.')
  blocks.check(features, k + 1, f'more than k={k} rows')


@jax.jit
def _merged(best, rows, others):
  together = jnp.concatenate([best, _squares(rows, others)], axis=1)
  return -jax.lax.top_k(-together, best.shape[1])[0]


@jax.jit
def _reached(fake, real, fakes_reach, reals_reach):
  squares = _squares(fake, real)
  return squares < reals_reach, squares < fakes_reach[:, None]


def _squares(a, b):
  products = jnp.matmul(a, b.T, precision='highest')
  found = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * products
  return jnp.maximum(found, 0)


def _mean(x: Features) -> Float[np.ndarray, ' d']:
  return x.mean(0, dtype=np.float64)


def _share(n: int, part: tuple[int, int]) -> tuple[int, int]:
  index, number = part
  return n * index // number, n * (index + 1) // number
