"""Guidance: denoisers made of better and worse informed ones.

A ladder holds estimates of the same images, from least to best informed:

  x^0 = D(x_t),   x^1 = D(x_t; c),   x^2 = D(x_t; c, z)

To guide is to climb on beyond its top, by as much as each weight exceeds 1:

  D = x^n + sum_i (w_i - 1) d_i,    d_i = x^i - x^(i-1)

With one step and one weight this is classifier-free guidance (the paper's
eq. 4), or autoguidance if a weaker network stands below; with two, weights for
c and z apart. All other methods change one part of it, and so compose:

  w    is a number, or a function of the point: `interval`, `dynamic`
  c    is a value, or a function of the point: `cads.anneal`
  d    may be projected: `Projection` (APG)
  D    may be rescaled; `clip` and `particles` take any denoiser

All weights may be traced: changing one compiles nothing.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from kaleido_jax.arrays import Array, Images
from kaleido_jax.diffusion.cads import ramp
from kaleido_jax.diffusion.denoiser import Denoiser, Model, then, valued
from kaleido_jax.diffusion.schedule import Point, Scalar, expand

X = Float[Array, 'b ...']
Weight = Scalar | Float[Array, ' b'] | Callable[[Point], Any]
TINY = 1e-12  # a length below which a direction counts as none


class Ladder(NamedTuple):
  """Estimates from the least to the best informed, and the best alone."""

  height: int  # number of estimates
  climb: Callable[[Images, Point, Any], tuple[tuple[Images, ...], Any]]
  top: Callable[[Images, Point, Any], tuple[Images, Any]]
  init: Callable[[Images], Any] = lambda xs: ()


def by_condition(model: Model, *conditions: Any) -> Ladder:
  """One network under several conditions, the null condition first.

  They go through the network in a single call. Conditions are pytrees of one
  structure whose leaves have the batch first (or 1, to be repeated); any may
  be a function of the point.
  """

  def climb(xs, point, state):
    batch_size, count = xs[-1].shape[0], len(conditions)
    given = [_filled(valued(c, point), batch_size) for c in conditions]
    x0s = model(
      tuple(_interleave(*(x,) * count) for x in xs),
      point,
      jax.tree.map(_interleave, *given),
    )
    return tuple(
      tuple(x0.reshape(-1, count, *x0.shape[1:])[:, i] for x0 in x0s)
      for i in range(count)
    ), state

  def top(xs, point, state):
    condition = valued(conditions[-1], point)
    return model(xs, point, _filled(condition, xs[-1].shape[0])), state

  return Ladder(len(conditions), climb, top)


def by_network(*denoisers: Denoiser) -> Ladder:
  """Several denoisers, the weakest first, each a call of its own."""

  def climb(xs, point, states):
    pairs = [
      denoiser.apply(xs, point, state)
      for denoiser, state in zip(denoisers, states, strict=True)
    ]
    return tuple(zip(*pairs, strict=True))

  def top(xs, point, states):
    x0s, state = denoisers[-1].apply(xs, point, states[-1])
    return x0s, (*states[:-1], state)

  def init(xs):
    return tuple(denoiser.init(xs) for denoiser in denoisers)

  return Ladder(len(denoisers), climb, top, init)


def _filled(condition: Any, batch_size: int) -> Any:
  def fill(leaf):
    if leaf.shape[0] not in (1, batch_size):
      raise ValueError(
        f'a condition has {leaf.shape[0]} rows for {batch_size} images; give '
        'one row per image, or a single one for all.'
      )
    return jnp.broadcast_to(leaf, (batch_size, *leaf.shape[1:]))

  return jax.tree.map(fill, condition)


def _interleave(*arrays: Array) -> Array:
  """Rows u0 c0 u1 c1: what belongs to one image stays on its device.

  (Rows u0 u1 c0 c1 would give the same numbers, and move half of them between
  devices in every step.)
  """
  if len({array.shape for array in arrays}) > 1:
    raise ValueError(
      f'conditions of shapes {[array.shape for array in arrays]} cannot share '
      'one call of the network; pad them to the same length.'
    )
  joined = jnp.stack(arrays, axis=1)
  return joined.reshape(-1, *joined.shape[2:])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Projection:
  """Adaptive projected guidance (arXiv:2410.02416).

  What a direction has in common with the estimate mostly saturates colours;
  what is orthogonal to it adds detail.
  """

  parallel: Any = 0.0  # how much of the common part stays
  radius: Any = jnp.inf  # longest direction
  momentum: Any = 0.0  # of past directions in the next; below 0 pushes away

  def __call__(self, d: X, x0: X) -> X:
    d = d * jnp.minimum(1.0, self.radius / jnp.maximum(_norm(d), TINY))
    unit = x0 / jnp.maximum(_norm(x0), TINY)
    common = _sum(d * unit) * unit
    return d - common + self.parallel * common


def guide(
  ladder: Ladder,
  *weights: Weight,
  projection: Projection | None = None,
  rescale: Scalar | None = None,
) -> Denoiser:
  """Climbs beyond the top of a ladder; weight 1 is the top itself.

  If a weight is a function of the point, then where all are 1 only the top is
  computed: outside a guidance interval a step costs half. (This compiles the
  network twice; constant weights compile it once.)

  Args:
    ladder: n + 1 estimates.
    weights: n of them; each a number, one per image, or a function of the
      point.
    projection: applied to every direction.
    rescale: in 0..1, how far to restore the deviation of the top's estimate
      (arXiv:2305.08891).
  """
  if len(weights) != ladder.height - 1:
    raise ValueError(
      f'{len(weights)} weights for a ladder of {ladder.height} estimates; give '
      f'{ladder.height - 1}, one for each difference between neighbours.'
    )
  changing = any(map(callable, weights))

  def apply(xs, point, state):
    values = [jnp.asarray(valued(w, point), jnp.float32) for w in weights]

    def beyond(state):
      below, past = state
      estimates, below = ladder.climb(xs, point, below)
      ds = directions(estimates, past, projection)
      x0s = climbed(estimates[-1], ds, values, projection)
      if rescale is not None:
        x0s = _map(partial(rescaled, amount=rescale), x0s, estimates[-1])
      return x0s, (below, ds if projection else ())

    def at_top(state):
      below, past = state
      x0s, below = ladder.top(xs, point, below)
      return x0s, (below, past)

    if not changing:
      return beyond(state)
    idle = jnp.stack([jnp.all(w == 1) for w in values]).all()
    return jax.lax.cond(idle, at_top, beyond, state)

  def init(xs):
    zeros = jax.tree.map(jnp.zeros_like, xs)
    return ladder.init(xs), (zeros,) * len(weights) if projection else ()

  return Denoiser(apply, init)


def directions(
  estimates: tuple[Images, ...],
  past: tuple[Images, ...],
  projection: Projection | None,
) -> tuple[Images, ...]:
  """d_i: what each estimate adds to the one below it, and past ones to that."""
  ds = tuple(
    _map(jnp.subtract, better, worse)
    for worse, better in itertools.pairwise(estimates)
  )
  if projection is None:
    return ds
  return jax.tree.map(lambda d, old: d + projection.momentum * old, ds, past)


def climbed(
  top: Images,
  ds: tuple[Images, ...],
  weights: Sequence[Float[Array, '*b']],
  projection: Projection | None,
) -> Images:
  """x^n + sum_i (w_i - 1) d_i."""
  x0s = top
  for weight, d in zip(weights, ds, strict=True):
    if projection is not None:
      d = _map(projection, d, top)
    x0s = _map(lambda x0, d, w=weight: x0 + expand(w - 1, x0) * d, x0s, d)
  return x0s


def rescaled(x0: X, top: X, amount: Scalar) -> X:
  """Brings each image's deviation back to that of the top's, or part-way."""
  ratio = _deviation(top) / jnp.maximum(_deviation(x0), TINY)
  return amount * ratio * x0 + (1 - amount) * x0


def interval(
  weight: Weight, low: Scalar, high: Scalar
) -> Callable[[Point], Array]:
  """The weight while low < sigma / alpha <= high; 1 elsewhere.

  (arXiv:2404.07724.) The noise level is the lowest resolution's, which no
  shift has moved.
  """

  def at(point):
    level = point.sigmas[-1] / point.alphas[-1]
    return jnp.where(
      (low < level) & (level <= high), valued(weight, point), 1.0
    )

  return at


def dynamic(
  weight: Weight, tau1: Scalar, tau2: Scalar
) -> Callable[[Point], Array]:
  """Fades guidance in as CADS does the condition (arXiv:2310.17347)."""
  return lambda point: (
    1 + (valued(weight, point) - 1) * ramp(point.fraction, tau1, tau2)
  )


def particles(
  denoiser: Denoiser, weight: Weight, counted: Bool[Array, ' b'] | None = None
) -> Denoiser:
  """Pushes the images of one prompt apart (arXiv:2310.13102).

  Adds weight * grad log Phi(x_1 .. x_b) to the score of each. The only method
  here by which an image depends on its neighbours; those that are not counted
  push nobody.
  """

  def edit(x0s, xs, point):
    if xs[-1].shape[0] < 2:
      return x0s
    scale = jnp.asarray(valued(weight, point))
    pushes = jax.grad(log_potential)(xs, counted)
    # x_0 = (x_t + sigma^2 score) / alpha
    return tuple(
      x0 + expand(scale * sigma**2 / alpha, x0) * push
      for x0, push, alpha, sigma in zip(
        x0s, pushes, point.alphas, point.sigmas, strict=True
      )
    )

  return then(denoiser, edit)


def log_potential(
  xs: Images, counted: Bool[Array, ' b'] | None = None
) -> Float[Array, '']:
  """log Phi = -sum_(i<j) exp(-|x_i - x_j|^2 / h): high where all are far apart.

  h is the median squared distance over log b, a kernel of 1 / b at the median.
  """
  flat = jnp.concatenate([x.reshape(x.shape[0], -1) for x in xs], axis=1)
  flat -= flat.mean(0)  # no distance changes, and fewer digits cancel
  squares = jnp.square(flat).sum(1)
  products = jnp.matmul(flat, flat.T, precision='highest')
  distances = squares[:, None] + squares - 2 * products
  one, other = np.triu_indices(len(flat), 1)
  pairs = jnp.maximum(distances[one, other], 0)
  if counted is None:
    counted = jnp.ones(len(flat), bool)
  both = counted[one] & counted[other]
  number = jnp.maximum(counted.sum(), 2)
  middle = jnp.nanmedian(jnp.where(both, pairs, jnp.nan))
  h = jnp.nan_to_num(jax.lax.stop_gradient(middle)) / jnp.log(number)
  # Copies have distances of rounding alone.
  h = jnp.maximum(h, 1e-6 * squares.mean() + TINY)
  return -jnp.where(both, jnp.exp(-pairs / h), 0).sum()


def _map(function: Callable[..., X], *pyramids: Images) -> Images:
  return tuple(map(function, *pyramids))


def _sum(x: X) -> X:
  """Of each image, ready to be multiplied with it."""
  return x.sum(tuple(range(1, x.ndim)), keepdims=True)


def _norm(x: X) -> X:
  return jnp.sqrt(_sum(jnp.square(x)))


def _deviation(x: X) -> X:
  return x.std(tuple(range(1, x.ndim)), keepdims=True)
