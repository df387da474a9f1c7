"""Precision, recall, density and coverage, by nearest neighbours.

  precision  how many fakes lie within the reach of some real picture
  recall     how many real ones lie within the reach of some fake
  density    within how many reaches a fake lies, over k
  coverage   how many real ones have a fake within their reach

The reach of a picture is the distance to its k-th neighbour of its own kind
(arXiv:1904.06991, arXiv:2002.09797). Distances are computed block by block in
float64, on the devices there are: 50,000 by 50,000 never stand in memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

Features = Float[np.ndarray, '_ _']
BLOCK = 2048  # rows of either side


class Counts(NamedTuple):
  """What one share of the pictures contributes: sums, and how many."""

  precise: int
  within: int
  fakes: int
  recalled: int
  covered: int
  reals: int


def score(real: Features, fake: Features, k: int = 3) -> dict[str, float]:
  """All four, of two feature matrices."""
  return scores([count(real, fake, k)], k)


def scores(parts: list[Counts], k: int) -> dict[str, float]:
  """Of shares that several processes have counted."""
  total = Counts(*map(sum, zip(*parts, strict=True)))
  return {
    'precision': total.precise / total.fakes,
    'recall': total.recalled / total.reals,
    'density': total.within / (k * total.fakes),
    'coverage': total.covered / total.reals,
  }


def count(
  real: Features, fake: Features, k: int = 3, *, part: tuple[int, int] = (0, 1)
) -> Counts:
  """part: (which, of how many) shares of the rows, all beside all others."""
  real, fake = check(real, k), check(fake, k)
  if real.shape[1] != fake.shape[1]:
    raise ValueError(
      f'features of {real.shape[1]} and of {fake.shape[1]} numbers cannot be '
      'compared: they are of different extractors.'
    )
  middle = real.mean(0)  # no distance changes, and fewer digits cancel
  real, fake = real - middle, fake - middle
  with jax.enable_x64(True):
    reach = {'real': reaches(real, k), 'fake': reaches(fake, k)}
    fakes, reals = (_share(len(x), part) for x in (fake, real))
    # Of each fake: within how many reaches of real ones it lies.
    within = _within(fake[fakes], real, reach['real'])
    recalled = _within(real[reals], fake, reach['fake'])
    nearest = _nearest(real[reals], fake)
  return Counts(
    precise=int((within > 0).sum()),
    within=int(within.sum()),
    fakes=len(within),
    recalled=int((recalled > 0).sum()),
    covered=int((nearest < reach['real'][reals]).sum()),
    reals=len(recalled),
  )


class Near(NamedTuple):
  """Who lies within whose reach; for sets that are not too large."""

  in_real: Bool[np.ndarray, 'fakes reals']  # a fake, in a real one's reach
  in_fake: Bool[np.ndarray, 'reals fakes']  # a real one, in a fake's


def near(real: Features, fake: Features, k: int = 3) -> Near:
  """All four figures are means over these, of any choice of pictures."""
  real, fake = check(real, k), check(fake, k)
  with jax.enable_x64(True):
    squares = np.concatenate(
      [
        np.concatenate([_squares(a, b) for b in _blocks(real)], axis=1)
        for a in _blocks(fake)
      ]
    )
    return Near(squares < reaches(real, k), squares.T < reaches(fake, k))


def check(features: Features, k: int) -> Features:
  x = np.asarray(features, np.float64)
  if k < 1:
    raise ValueError(f'k={k}: there is no such neighbour; give 1 or more.')
  if x.ndim != 2 or len(x) <= k:
    raise ValueError(
      f'features should be [n, d] with more than k={k} rows, not '
      f'{list(x.shape)}: draw more pictures.'
    )
  if not np.isfinite(x).all():
    raise ValueError('some features are not finite; nothing can be said.')
  return x


def reaches(x: Features, k: int) -> Float[np.ndarray, ' n']:
  """The distance of each to its k-th neighbour, squared."""
  found = []
  for rows in _blocks(x):
    best = jnp.full((len(rows), k + 1), jnp.inf)  # itself is the nearest
    for others in _blocks(x):
      best = _merged(best, rows, others)
    found.append(np.asarray(best[:, k]))
  return np.concatenate(found)


def _within(x: Features, others: Features, reach) -> np.ndarray:
  """How many others each x is within reach of."""
  found = []
  for rows in _blocks(x):
    total = jnp.zeros(len(rows), jnp.int64)
    for block, r in zip(_blocks(others), _blocks(reach), strict=True):
      total += _reached(rows, block, r)
    found.append(np.asarray(total))
  return np.concatenate(found)


def _nearest(x: Features, others: Features) -> np.ndarray:
  found = []
  for rows in _blocks(x):
    best = jnp.full(len(rows), jnp.inf)
    for block in _blocks(others):
      best = jnp.minimum(best, _squares(rows, block).min(1))
    found.append(np.asarray(best))
  return np.concatenate(found)


@jax.jit
def _merged(best, rows, others):
  together = jnp.concatenate([best, _squares(rows, others)], axis=1)
  return -jax.lax.top_k(-together, best.shape[1])[0]


@jax.jit
def _reached(rows, others, reach):
  return (_squares(rows, others) < reach).sum(1)


@jax.jit
def _squares(a, b):
  products = jnp.matmul(a, b.T, precision='highest')
  found = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * products
  return jnp.maximum(found, 0)


def _blocks(x: np.ndarray) -> Iterator[np.ndarray]:
  for start in range(0, len(x), BLOCK):
    yield x[start : start + BLOCK]


def _share(n: int, part: tuple[int, int]) -> slice:
  index, number = part
  return slice(n * index // number, n * (index + 1) // number)
