"""The kernel distance of two sets of features; of Inception's pool3, KID.

  mean k of two fakes + of two real ones - 2 mean k of a fake and a real one,
  k(a, b) = (a.b / d + 1)^3                               (arXiv:1801.01401)

No picture is paired with itself. So it is not larger where pictures are few, as
Frechet's distance is, but less sure; of sets of one kind it may be below 0.
That holds of pictures by themselves: several of a caption are alike, and raise
it a little.

Kernels are added up by groups of pictures, those of a caption: distances of any
choice of groups follow, and no table of pairs is kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Num

from kaleido_jax.metrics import blocks

Features = Float[np.ndarray, '_ _']


class Grouped(NamedTuple):
  """Features that lie group by group."""

  features: Features
  sizes: Int[np.ndarray, ' groups']  # of none of them 0


class Kind(NamedTuple):
  """Pictures of one kind among themselves."""

  set: Grouped
  pairs: Float[np.ndarray, 'groups groups']  # kernels, added up
  selves: Float[np.ndarray, ' groups']  # of each with itself

  def mean(self, weights: Num[np.ndarray, ' groups']) -> float:
    """Of two different pictures, where a group is there so many times."""
    sizes = self.set.sizes
    total = weights @ self.pairs @ weights - weights**2 @ self.selves
    return total / ((weights @ sizes) ** 2 - weights**2 @ sizes)


class Both(NamedTuple):
  """Two kinds, and pairs of one and the other."""

  real: Kind
  fake: Kind
  across: Float[np.ndarray, 'fakes reals']

  def distance(
    self,
    real: Num[np.ndarray, ' reals'] | None = None,
    fake: Num[np.ndarray, ' fakes'] | None = None,
  ) -> float:
    """real, fake: how often each group is there; else once."""
    real = np.ones(len(self.real.set.sizes)) if real is None else real
    fake = np.ones(len(self.fake.set.sizes)) if fake is None else fake
    number = (fake @ self.fake.set.sizes) * (real @ self.real.set.sizes)
    between = fake @ self.across @ real / number
    return float(self.real.mean(real) + self.fake.mean(fake) - 2 * between)


def distance(real: Features, fake: Features) -> float:
  """Of two feature matrices."""
  return both(*(kind(x, np.array([len(x)])) for x in (real, fake))).distance()


def kind(features: Features, sizes: Int[np.ndarray, ' groups']) -> Kind:
  blocks.check(features, 2, '2 rows or more')
  own = Grouped(features, sizes)
  lengths = np.einsum('nd,nd->n', features, features, dtype=np.float64)
  selves = (lengths / features.shape[1] + 1) ** 3
  return Kind(own, _sums(own, own), np.add.reduceat(selves, _starts(sizes)))


def both(real: Kind, fake: Kind) -> Both:
  blocks.agree(real.set.features, fake.set.features)
  return Both(real, fake, _sums(fake.set, real.set))


def _sums(a: Grouped, b: Grouped) -> Float[np.ndarray, 'rows columns']:
  """Kernels of all pairs, added up by both groups."""
  found = np.zeros((len(a.sizes), len(b.sizes)))
  of_a, of_b = (np.repeat(np.arange(len(x.sizes)), x.sizes) for x in (a, b))
  with jax.enable_x64(True):
    for rows in blocks.ranges(len(of_a)):
      some = a.features[rows].astype(np.float64)
      lines, top = np.unique(of_a[rows], return_index=True)
      for columns in blocks.ranges(len(of_b)):
        others = b.features[columns].astype(np.float64)
        places, left = np.unique(of_b[columns], return_index=True)
        table = np.asarray(_kernels(some, others))
        table = np.add.reduceat(np.add.reduceat(table, top, 0), left, 1)
        found[np.ix_(lines, places)] += table
  return found


def _starts(sizes: Int[np.ndarray, ' groups']) -> Int[np.ndarray, ' groups']:
  return np.cumsum(sizes) - sizes


@jax.jit
def _kernels(a, b):
  return (jnp.matmul(a, b.T, precision='highest') / a.shape[1] + 1) ** 3
