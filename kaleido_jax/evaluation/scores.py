"""From features to figures, with how sure they are.

Quality and diversity stand side by side: a method that wins one by losing the
other shows. A distance of features that are not Inception's is not called FID.
"""

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from kaleido_jax.metrics import (
  bootstrap,
  frechet,
  precision_recall,
  similarity,
)
from kaleido_jax.metrics.bootstrap import Interval

NAMES = (
  *('frechet', 'precision', 'recall', 'density', 'coverage'),
  *('mss', 'mss_with_diagonal', 'vendi'),
)


def of(
  real: Float[np.ndarray, 'n d'],
  fake: Float[np.ndarray, 'captions each d'],
  wanted: ConfigDict,
) -> dict[str, Interval]:
  """All figures of one setting."""
  captions, each, _ = fake.shape
  truth, k = frechet.moments(real), wanted.neighbours

  def together(which: np.ndarray) -> np.ndarray:
    return fake[which].reshape(-1, fake.shape[-1])

  def sure(statistic, times: int = wanted.resamples) -> Interval:
    return bootstrap.interval(
      captions, statistic, times=times, seed=wanted.seed
    )

  found = {
    'frechet': sure(
      lambda which: frechet.between(truth, frechet.moments(together(which))),
      # Each takes the eigenvalues of a large matrix.
      times=min(wanted.resamples, 20),
    )
  }
  for name, parts in _neighbours(real, fake, k).items():
    found[name] = sure(parts)
  if each > 1:
    alike = [similarity.mss(some) for some in fake]
    scores = {
      'mss': [a.pairs for a in alike],
      'mss_with_diagonal': [a.all for a in alike],
      'vendi': [similarity.vendi(some) for some in fake],
    }
    for name, values in scores.items():
      found[name] = sure(_mean_of(np.array(values)))
  return found


def _mean_of(values: np.ndarray):
  return lambda which: values[which].mean()


def _neighbours(real, fake, k: int):
  """Statistics of chosen captions, from what is near to what, found once.

  The reach of a fake is that in the whole set: of a part of it reaches would be
  longer, and figures of another size.
  """
  captions, each, _ = fake.shape
  near = precision_recall.near(real, fake.reshape(captions * each, -1), k)

  def rows(which: np.ndarray) -> np.ndarray:
    return (which[:, None] * each + np.arange(each)).ravel()

  return {
    'precision': lambda which: near.in_real[rows(which)].any(1).mean(),
    'recall': lambda which: near.in_fake[:, rows(which)].any(1).mean(),
    'density': lambda which: near.in_real[rows(which)].sum(1).mean() / k,
    'coverage': lambda which: near.in_real[rows(which)].any(0).mean(),
  }
