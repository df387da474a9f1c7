"""CADS: anneal the condition, so that samples of one condition differ.

(arXiv:2310.17347.) While t is large the condition y is mostly noise n, and the
image is free to choose its layout; as t falls the condition comes back:

  y_hat = sqrt(g) y + s sqrt(1 - g) n,     g = ramp(t / T) from 0 to 1
  y'    = psi rescaled(y_hat) + (1 - psi) y_hat

`rescaled` gives y_hat the mean and deviation of y again. They are taken in
float32 for each image, over the tokens that are annealed and no others;
taking them over a padded batch, as public ports do, mixes images, and divides
0 by 0 where a row is empty. A row without tokens, or with equal ones, is here
finite: deviation 0 stays 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Key

from kaleido_jax.arrays import Array, Mask
from kaleido_jax.diffusion.schedule import Point, Scalar

TINY = 1e-12
# Keeps these draws apart from the sampler's, which has the same keys and times.
STREAM = 0xCAD5

APPLY_TO = {
  'c': lambda mask, is_latent: mask & ~is_latent,
  'z': lambda mask, is_latent: mask & is_latent,
  'both': lambda mask, is_latent: mask,
}


def ramp(fraction: Scalar, tau1: Scalar, tau2: Scalar) -> Float[Array, '*b']:
  """g: 1 up to tau1, 0 from tau2 on, a line between."""
  g = (tau2 - fraction) / jnp.maximum(tau2 - tau1, TINY)
  return jnp.where(fraction <= tau1, 1.0, jnp.clip(g, 0.0, 1.0))


def tokens(
  mask: Mask,
  is_latent: Mask,
  apply_to: str,
) -> Bool[Array, 'b l']:
  """The tokens to anneal: of the caption c, of the latents z, or of both."""
  if apply_to not in APPLY_TO:
    raise ValueError(
      f'apply_to={apply_to!r} is unknown; choose one of {", ".join(APPLY_TO)}.'
    )
  return APPLY_TO[apply_to](mask > 0, is_latent > 0)


def anneal(
  y: Float[Array, 'b l d'],
  chosen: Bool[Array, 'b l'],
  keys: Key[Array, ' b'],
  *,
  tau1: Scalar,
  tau2: Scalar,
  scale: Scalar,
  psi: Scalar,
) -> Callable[[Point], Float[Array, 'b l d']]:
  """A condition that is a function of the point, as `guidance` takes it.

  Args:
    y: tokens of the condition.
    chosen: the tokens to anneal, from `tokens`.
    keys: one per image; its noise depends on nothing else.
    tau1, tau2: fractions of T below which y is whole, above which it is noise.
    scale: s; at 0 the tokens shrink towards 0, and are rescaled.
    psi: how much to rescale.
  """
  mean, deviation = statistics(y, chosen)

  def annealed(point):
    g = ramp(point.fraction, tau1, tau2)
    noise = _noise(keys, point.t, y)
    hat = jnp.sqrt(g) * y + scale * jnp.sqrt(1 - g) * noise
    hat_mean, hat_deviation = statistics(hat, chosen)
    unit = (hat - hat_mean) / jnp.maximum(hat_deviation, TINY)
    result = psi * (unit * deviation + mean) + (1 - psi) * hat
    keep = (g >= 1) | ~chosen[..., None]
    return jnp.where(keep, y, result).astype(y.dtype)

  return annealed


def statistics(
  y: Float[Array, 'b l d'], chosen: Bool[Array, 'b l']
) -> tuple[Float[Array, 'b 1 1'], Float[Array, 'b 1 1']]:
  """Mean and deviation of all numbers in an image's chosen tokens."""
  y, chosen = y.astype(jnp.float32), chosen[..., None]
  count = jnp.maximum(chosen.sum((1, 2), keepdims=True) * y.shape[-1], 1)

  def mean(values):
    return jnp.where(chosen, values, 0).sum((1, 2), keepdims=True) / count

  centre = mean(y)
  return centre, jnp.sqrt(mean(jnp.square(y - centre)))


def _noise(keys, t, y):
  def draw(key):
    # Token by token: padding a batch longer must not change its noise.
    key = jax.random.fold_in(jax.random.fold_in(key, t), STREAM)
    each = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(y.shape[1]))
    return jax.vmap(lambda key: jax.random.normal(key, y.shape[2:]))(each)

  return jax.vmap(draw)(keys)
