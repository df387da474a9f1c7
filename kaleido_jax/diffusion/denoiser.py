"""From a network to a denoiser, the one thing that a sampler needs.

  network   (xs, times, condition) -> predictions     what was trained
  model     (xs, point, condition) -> x0s             in terms of the image
  denoiser  (xs, point, state) -> (x0s, state)        its condition closed over

A denoiser estimates the clean images, D(x_t) = E[x_0 | x_t]. Thresholds and
guidance are functions from denoisers to denoisers, so they compose, and the
sampler knows none of them. All of it is linear in x_0 where it is linear in
eps or v, so nothing is lost by speaking of images only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Int

from kaleido_jax.arrays import Array, Images
from kaleido_jax.diffusion.prediction import TO_X0, check
from kaleido_jax.diffusion.schedule import Point, Scalar, expand

Network = Callable[[Images, Int[Array, ' b'], Any], Images]
Model = Callable[[Images, Point, Any], Images]


class Denoiser(NamedTuple):
  """Estimates clean images; `state` is what it remembers between steps.

  Most denoisers remember nothing: their state is (). (APG's momentum is the
  exception, and the reason for having one.)
  """

  apply: Callable[[Images, Point, Any], tuple[Images, Any]]
  init: Callable[[Images], Any] = lambda xs: ()


def model(network: Network, *, prediction: str) -> Model:
  """Turns a network's predictions into estimates of the image, in float32."""
  to_x0 = TO_X0[check(prediction)]

  def estimate(xs, point, condition):
    times = jnp.full(xs[-1].shape[0], point.t - 1)
    return tuple(
      to_x0(output.astype(jnp.float32), x, expand(alpha, x), expand(sigma, x))
      for output, x, alpha, sigma in zip(
        network(xs, times, condition),
        xs,
        point.alphas,
        point.sigmas,
        strict=True,
      )
    )

  return estimate


def bounded(
  network: Callable[..., Images], scale: Scalar
) -> Callable[..., Images]:
  """Squashes predictions into (-scale, scale), as some weights expect."""
  return lambda *inputs: tuple(
    scale * jnp.tanh(output / scale) for output in network(*inputs)
  )


def conditional(model: Model, condition: Any) -> Denoiser:
  """The model under one condition: a value, or a function of the point."""
  return Denoiser(
    lambda xs, point, state: (
      model(xs, point, valued(condition, point)),
      state,
    )
  )


def valued(value: Any, point: Point) -> Any:
  """Weights and conditions may be functions of the point."""
  return value(point) if callable(value) else value


def then(
  denoiser: Denoiser, edit: Callable[[Images, Images, Point], Images]
) -> Denoiser:
  """Edits what a denoiser estimates: (x0s, xs, point) -> x0s."""

  def apply(xs, point, state):
    x0s, state = denoiser.apply(xs, point, state)
    return edit(x0s, xs, point), state

  return Denoiser(apply, denoiser.init)


def clip(
  denoiser: Denoiser, limit: Scalar | tuple[Scalar, ...] = 1.0
) -> Denoiser:
  """Keeps estimates within [-limit, limit].

  limit: one for all resolutions, or one for each. (An unshifted model works on
  images divided by their scale, and within 1 / scale.)
  """

  def edit(x0s, xs, point):
    limits = limit if isinstance(limit, tuple) else (limit,) * len(x0s)
    return tuple(
      jnp.clip(x0, -bound, bound) for x0, bound in zip(x0s, limits, strict=True)
    )

  return then(denoiser, edit)


def dynamic_clip(
  denoiser: Denoiser, *, quantile: Scalar, ceiling: Scalar
) -> Denoiser:
  """Clips at a quantile of each image, and divides by it (arXiv:2205.11487).

  The bound stays between 1 and the ceiling. The reference's DYNAMIC is .995 and
  100, its DYNAMIC_IF .95 and 1.5.
  """
  if isinstance(quantile, float | int) and not 0 <= quantile <= 1:
    raise ValueError(
      f'quantile={quantile} is not between 0 and 1; for 99.5 % give 0.995.'
    )

  def edit(x0s, xs, point):
    return tuple(map(threshold, x0s))

  def threshold(x0):
    values = rearrange(jnp.abs(x0), 'b ... -> b (...)')
    bound = jnp.quantile(values, quantile, axis=1)
    bound = expand(jnp.clip(bound, 1.0, ceiling), x0)
    return jnp.clip(x0, -bound, bound) / bound

  return then(denoiser, edit)


THRESHOLDS = {
  'none': lambda denoiser, *, quantile, ceiling: denoiser,
  'clip': lambda denoiser, *, quantile, ceiling: clip(denoiser),
  'dynamic': dynamic_clip,
}
