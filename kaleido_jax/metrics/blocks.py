"""Tables of pairs, block by block: 50,000 by 50,000 never stand in memory."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

Features = Float[np.ndarray, '_ _']
SIZE = 2048  # rows of either side


def ranges(first: int, end: int | None = None) -> Iterator[slice]:
  """Blocks of 0..first, or of first..end."""
  first, end = (0, first) if end is None else (first, end)
  for start in range(first, end, SIZE):
    yield slice(start, min(start + SIZE, end))


def agree(real: Features, fake: Features) -> None:
  if real.shape[1] != fake.shape[1]:
    raise ValueError(
      f'features of {real.shape[1]} and of {fake.shape[1]} numbers cannot be '
      'compared: they are of different extractors.'
    )


def check(features: Features, least: int, why: str) -> None:
  """why: how many rows there should be, in words."""
  if features.ndim != 2 or len(features) < least:
    raise ValueError(
      f'features should be [n, d] with {why}, not {list(features.shape)}: draw '
      'more pictures.'
    )
  if not np.isfinite(features).all():
    raise ValueError('some features are not finite; nothing can be said.')
