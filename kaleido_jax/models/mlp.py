"""A denoiser of points and other tiny things, called like the U-Nets.

Each entry of the pyramid is flattened and goes through ResNet-like layers that
the time and the condition modulate. It draws the toy of the paper.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Num

from kaleido_jax.arrays import Array, Images, Mask, Micros
from kaleido_jax.models import layers
from kaleido_jax.models.layers import Dense, LayerNorm


class MLP(nn.Module):
  """A denoiser without convolutions."""

  width: int = 128
  num_layers: int = 3
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self,
    xs: Images,
    times: Num[Array, ' b'],
    features: Float[Array, 'b l d'] | None = None,
    mask: Mask | None = None,
    micros: Micros | None = None,
    *,
    projected: bool = False,
  ) -> Images:
    """Predicts, for every array, what the schedule's target is."""
    del projected  # nothing is
    if micros:
      raise ValueError(
        f'the MLP denoiser has no micro-conditions, but got {sorted(micros)}.'
      )
    embedding = self._dense('time_in')(layers.sinusoid(times, self.width))
    if features is not None:
      # Tokens are transformed before they are averaged: a plain mean of
      # [memory; states] could not tell which token said what.
      tokens = nn.silu(self._dense('condition_in')(features))
      if mask is None:
        mask = jnp.ones(features.shape[:2])
      embedding += self._dense('condition_out')(
        layers.masked_mean(tokens, mask)
      )
    embedding = nn.silu(self._dense('embedding')(nn.silu(embedding)))
    return tuple(self._denoise(i, x, embedding) for i, x in enumerate(xs))

  def project(self, features: Float[Array, 'b l d']) -> Float[Array, 'b l d']:
    """It reads tokens as they come."""
    return features

  def _dense(self, name: str, features: int | None = None, **kwargs):
    return Dense(features or self.width, dtype=self.dtype, name=name, **kwargs)

  def _denoise(self, i: int, x, embedding):
    embedding = embedding[: x.shape[0]]
    h = self._dense(f'in_{i}')(x.reshape(x.shape[0], -1))
    for j in range(self.num_layers):
      scale, shift = jnp.split(
        self._dense(f'modulation_{i}_{j}', 2 * self.width)(embedding), 2, -1
      )
      y = LayerNorm(name=f'norm_{i}_{j}')(h) * (1 + scale) + shift
      y = nn.silu(self._dense(f'up_{i}_{j}', 2 * self.width)(y))
      h += self._dense(f'down_{i}_{j}', zero=True)(y)
    size = math.prod(x.shape[1:])
    out = Dense(size, zero=True, name=f'out_{i}')(nn.silu(h))
    return out.reshape(x.shape)
