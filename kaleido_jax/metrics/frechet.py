"""The Frechet distance of two sets of features, as of two Gaussians.

  |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

Of pool3 of the Inception of 2015 it is called FID, of its spatial features
sFID; of any other features it is neither. Moments are gathered in float64, part
by part, so that any number of processes, and of pictures, may share the work.
"""

import functools
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Features = Float[np.ndarray, '_ _']


class Gaussian:
  """What a set is taken for. The root of its covariance is taken once."""

  def __init__(self, mean: Float[np.ndarray, ' d'], covariance):
    self.mean, self.covariance = mean, covariance

  @functools.cached_property
  def root(self) -> Float[np.ndarray, 'd d']:
    values, vectors = np.linalg.eigh(self.covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T

  def to(self, other: 'Gaussian') -> float:
    """tr (A B)^(1/2) is the sum of roots of eigenvalues of A^(1/2) B A^(1/2).

    Which is symmetric, so nothing imaginary has to be thrown away, and singular
    covariances, of fewer pictures than features, are no special case.
    """
    _agree(self.mean, other.mean)
    inner = self.root @ other.covariance @ self.root
    shared = np.linalg.eigvalsh(inner).clip(0)
    apart = self.mean - other.mean
    found = apart @ apart + np.trace(self.covariance)
    found += np.trace(other.covariance) - 2 * np.sqrt(shared).sum()
    return float(max(found, 0.0))


class Moments(NamedTuple):
  """How many, their mean, and the sum of squares about it."""

  count: int
  mean: Float[np.ndarray, ' d']
  scatter: Float[np.ndarray, 'd d']

  @property
  def gaussian(self) -> Gaussian:
    """With the unbiased covariance, as in the reference."""
    if self.count < 2:
      raise ValueError(
        f'a covariance needs two sets of features or more, not {self.count}.'
      )
    return Gaussian(self.mean, self.scatter / (self.count - 1))


def moments(features: Features) -> Moments:
  """Of one part."""
  x = np.asarray(features, np.float64)
  if x.ndim != 2 or not len(x):
    raise ValueError(f'features should be [n, d], not {list(x.shape)}.')
  if not np.isfinite(x).all():
    rows = np.flatnonzero(~np.isfinite(x).all(1))
    raise ValueError(
      f'features of {len(rows)} pictures are not finite, first of number '
      f'{rows[0]}: nothing can be said of them.'
    )
  mean = x.mean(0)
  centred = x - mean
  return Moments(len(x), mean, centred.T @ centred)


def joined(parts: Iterable[Moments]) -> Moments:
  """Of all parts together (Chan, Golub and LeVeque, 1979)."""
  first, *rest = parts
  count, mean, scatter = first
  for part in rest:
    _agree(mean, part.mean)
    total = count + part.count
    apart = part.mean - mean
    scatter = (
      scatter
      + part.scatter
      + np.outer(apart, apart) * (count * part.count / total)
    )
    mean = mean + apart * (part.count / total)
    count = total
  return Moments(count, mean, scatter)


def distance(a: Features, b: Features) -> float:
  """Of two feature matrices."""
  return between(moments(a), moments(b))


def between(a: Moments, b: Moments) -> float:
  """Of two sets that may be gone."""
  return a.gaussian.to(b.gaussian)


def read(path: pathlib.Path, ending: str = '') -> Gaussian:
  """Of an .npz of ADM's: mu and sigma of pool3, mu_s and sigma_s of sFID's.

  ending: '' or '_s'.
  """
  names = f'mu{ending}', f'sigma{ending}'
  with np.load(path) as file:
    missing = [name for name in names if name not in file]
    if missing:
      raise ValueError(
        f'{path} has no {missing[0]}, only {", ".join(file.files)}: it holds '
        'no statistics of this kind.'
      )
    mean, covariance = (np.asarray(file[name], np.float64) for name in names)
  return Gaussian(mean, covariance)


def _agree(a: np.ndarray, b: np.ndarray) -> None:
  if a.shape != b.shape:
    raise ValueError(
      f'features of {len(a)} and of {len(b)} numbers cannot be compared: they '
      'are of different extractors.'
    )
