"""Layers shared by the denoisers, as the Matryoshka reference defines them.

Arrays are NHWC. Parameters are float32; `dtype` is the compute type of the
convolutions and matrix products, while norms and softmax are always float32.
Initialisation follows the reference: weight and bias uniform in
+-1/sqrt(fan_in), and exact zeros where `zero` is set, so that every residual
branch starts as the identity.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import repeat
from jaxtyping import Bool, Float, Num

from kaleido_jax.arrays import Array, Mask

EPSILON = 1e-5  # of every norm in the denoiser


def attention(
  q: Float[Array, 'b q n k'],
  k: Float[Array, 'b s n k'],
  v: Float[Array, 'b s n k'],
  *,
  scale: float,
  bias: Float[Array, '#b n #q s'] | None = None,
  mask: Bool[Array, '#b #q s'] | None = None,
  drop: Callable[[Array], Array] = lambda weights: weights,
) -> Float[Array, 'b q n k']:
  """Attends from q to k and v; a query that may see no key receives zeros."""
  scores = jnp.einsum(
    'bqnk,bsnk->bnqs', q, k, preferred_element_type=jnp.float32
  )
  scores *= scale
  if bias is not None:
    scores += bias
  if mask is not None:
    # A finite floor rather than -inf: a row without any visible key would
    # otherwise be 0/0. Such a row is cleared after the softmax instead.
    mask = mask[:, None]
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
  weights = jax.nn.softmax(scores, axis=-1)
  if mask is not None:
    weights = jnp.where(mask.any(-1, keepdims=True), weights, 0)
  weights = drop(weights.astype(v.dtype))
  return jnp.einsum('bnqs,bsnk->bqnk', weights, v)


def masked_mean(x: Float[Array, 'b l d'], mask: Mask) -> Float[Array, 'b d']:
  """Averages the tokens that the mask keeps; zeros where it keeps none."""
  mask = mask.astype(jnp.float32)[..., None]
  total = (x * mask).sum(1)
  return (total / jnp.maximum(mask.sum(1), 1)).astype(x.dtype)


def sinusoid(times: Num[Array, ' b'], width: int) -> Float[Array, 'b {width}']:
  """Embeds a scalar as [sines, cosines] of geometrically spaced frequencies."""
  half = width // 2
  # In numpy, once, and rounded only where the reference rounds: exp() differs
  # by an ulp between backends, and an ulp times t = 999 is visible.
  exponents = np.arange(half, dtype=np.float32) * np.float32(
    -math.log(10000) / half
  )
  frequencies = np.exp(exponents.astype(np.float64)).astype(np.float32)
  angles = times.astype(jnp.float32)[:, None] * frequencies
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def upsample(x: Float[Array, 'b h w c']) -> Float[Array, 'b h2 w2 c']:
  """Doubles height and width by nearest neighbour."""
  return repeat(x, 'b h w c -> b (h i) (w j) c', i=2, j=2)


def _uniform(fan_in: int) -> nn.initializers.Initializer:
  bound = 1 / math.sqrt(fan_in)

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Dense(nn.Module):
  """A linear map of the last axis."""

  features: int
  zero: bool = False
  use_bias: bool = True
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Float[Array, '*b i']) -> Float[Array, '*b o']:
    init = nn.initializers.zeros if self.zero else _uniform(x.shape[-1])
    kernel = self.param('kernel', init, (x.shape[-1], self.features))
    y = x.astype(self.dtype) @ kernel.astype(self.dtype)
    if self.use_bias:
      bias = self.param('bias', init, (self.features,))
      y += bias.astype(self.dtype)
    return y


class Conv(nn.Module):
  """A 3x3 convolution, padded by one pixel on every side.

  With stride 2 the padding stays symmetric, unlike 'SAME' (which pads 0, 1).
  """

  features: int
  stride: int = 1
  zero: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w i']) -> Float[Array, 'b h2 w2 o']:
    shape = (3, 3, x.shape[-1], self.features)
    init = nn.initializers.zeros if self.zero else _uniform(9 * x.shape[-1])
    kernel = self.param('kernel', init, shape)
    bias = self.param('bias', init, (self.features,))
    y = jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      (self.stride, self.stride),
      ((1, 1), (1, 1)),
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y + bias.astype(self.dtype)


class GroupNorm(nn.Module):
  """Normalises over space within groups of neighbouring channels."""

  groups: int = 32

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    b, _, _, c = x.shape
    if c % self.groups:
      raise ValueError(
        f'{c} channels do not divide into {self.groups} groups; choose '
        'channels that are a multiple of groups.'
      )
    scale = self.param('scale', nn.initializers.ones, (c,))
    bias = self.param('bias', nn.initializers.zeros, (c,))
    x = x.astype(jnp.float32)

    # Sum over space first, channel by channel, and join the groups in the
    # small result: reducing the (h, w, c/g) axes at once is strided, and three
    # times slower on a CPU.
    def group_mean(y):
      y = y.mean((1, 2)).reshape(b, self.groups, -1).mean(-1, keepdims=True)
      y = jnp.broadcast_to(y, (b, self.groups, c // self.groups))
      return y.reshape(b, 1, 1, c)

    mean = group_mean(x)
    variance = group_mean(jnp.square(x - mean))
    return (x - mean) * (jax.lax.rsqrt(variance + EPSILON) * scale) + bias


class LayerNorm(nn.Module):
  """Normalises the last axis."""

  @nn.compact
  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
    x = x.astype(jnp.float32)
    x -= x.mean(-1, keepdims=True)
    variance = jnp.square(x).mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + EPSILON) * scale + bias


def checkpointed(module: type[nn.Module], remat: str, **kwargs):
  """Wraps a module class so that its activations are recomputed, or not.

  remat: 'none' keeps every activation, 'full' keeps only the inputs, 'dots'
  keeps the results of matrix products (not of convolutions, which it redoes).
  """
  policies = {
    'full': jax.checkpoint_policies.nothing_saveable,
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  }
  if remat == 'none':
    return module
  if remat not in policies:
    raise ValueError(
      f"remat={remat!r} is not one of 'none', {', '.join(map(repr, policies))}."
    )
  return nn.remat(module, policy=policies[remat], **kwargs)
