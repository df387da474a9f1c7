"""How alike the pictures of one condition are, and how like what it says.

  mss      mean similarity of pairs: small where pictures differ
  vendi    an effective number of pictures: 1 of copies, n of strangers
  match    with the words themselves, where a network reads them, too

All look at cosines of features, one condition at a time; what is reported is
the mean over conditions.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import special

Features = Float[np.ndarray, '_ _']


class Mss(NamedTuple):
  """Without the diagonal, where all are alike, and with it."""

  pairs: float
  all: float


def mss(features: Features) -> Mss:
  """Mean similarity score; the paper's numbers fit the one of pairs."""
  cosines = _cosines(features, least=2)
  n, total = len(cosines), cosines.sum()
  return Mss(
    pairs=float((total - np.trace(cosines)) / (n * (n - 1))),
    all=float(total / n**2),
  )


def vendi(features: Features, q: float | int = 1.0) -> float:
  """exp of the Renyi entropy of order q of K/n's eigenvalues.

  q = 1 is Shannon's, the usual score (arXiv:2210.02410); smaller orders count
  rare pictures more, q = inf the most frequent alone (arXiv:2310.12952).
  """
  if q < 0:
    raise ValueError(f'q={q} is no order of an entropy; give 0 or more.')
  cosines = _cosines(features, least=1)
  shares = np.linalg.eigvalsh(cosines / len(cosines))
  shares = shares[shares > 1e-12]
  shares /= shares.sum()
  if q == 1:
    return float(np.exp(-(shares * np.log(shares)).sum()))
  if np.isinf(q):
    return float(1 / shares.max())
  # In logarithms: shares**q of a large q are nothing at all.
  return float(np.exp(special.logsumexp(q * np.log(shares)) / (1 - q)))


def match(features: Features, words: Float[np.ndarray, ' d']) -> float:
  """A hundred times the mean cosine: torchmetrics' CLIP score, if it is CLIP.

  Hessel et al. (arXiv:2104.08718) take 2.5 times the cosine, and 0 for less.
  """
  pictures = _directions(features, least=1)
  (said,) = _directions(words[None], least=1)
  return float(100 * (pictures @ said).mean())


def mean_over(conditions: Iterable[Features], score) -> float:
  """A score of each condition, averaged."""
  return float(np.mean([score(features) for features in conditions]))


def _cosines(features: Features, *, least: int) -> Float[np.ndarray, 'n n']:
  x = _directions(features, least=least)
  return x @ x.T


def _directions(features: Features, *, least: int) -> Features:
  x = np.asarray(features, np.float64)
  if x.ndim != 2 or len(x) < least:
    raise ValueError(
      f'features should be [n, d] with n of {least} or more, not '
      f'{list(x.shape)}.'
    )
  lengths = np.linalg.norm(x, axis=1, keepdims=True)
  lost = ~(np.isfinite(lengths) & (lengths > 0))
  if lost.any():
    raise ValueError(
      f'features of picture {int(lost.argmax())} have no direction: they are '
      'zero, or not finite.'
    )
  return x / lengths
