"""The Inception Score: pictures that are each of one class, and of many.

exp of the mean KL(p(y | x) || p(y)), over parts of the pictures
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special


class Score(NamedTuple):
  """Over the parts."""

  mean: float
  deviation: float


def of_logits(logits: Float[np.ndarray, 'n c'], splits: int = 10) -> Score:
  """Pictures in the order that they were drawn in: shuffle them before."""
  logits = np.asarray(logits, np.float64)
  if splits < 1 or len(logits) < splits:
    raise ValueError(
      f'{len(logits)} pictures cannot be cut into {splits} parts; draw more.'
    )
  if not np.isfinite(logits).all():
    raise ValueError('some logits are not finite; nothing can be said.')
  found = []
  bounds = np.arange(splits + 1) * len(logits) // splits
  for start, end in itertools.pairwise(bounds):
    p = special.softmax(logits[start:end], axis=1)
    # 0 where a class is never seen; log(0) there would make it no number.
    divergence = special.rel_entr(p, p.mean(0)).sum(1)
    found.append(np.exp(divergence.mean()))
  return Score(float(np.mean(found)), float(np.std(found)))
