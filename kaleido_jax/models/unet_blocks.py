"""What the denoisers are built of: ResNets, attention, blocks of both.

Every ResNet is modulated by an embedding; attention layers let each pixel read
the other pixels and, through the same query, the tokens of the condition.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Float

from kaleido_jax.arrays import Array, Mask
from kaleido_jax.models import layers
from kaleido_jax.models.layers import Conv, Dense, GroupNorm, LayerNorm


class Condition(NamedTuple):
  """What every resolution reads; computed once, by the innermost U-Net."""

  pooled: Float[Array, 'b e']
  tokens: Float[Array, 'b l d']
  mask: Mask | None

  def rows(self, count: int) -> 'Condition':
    """The first `count` examples."""
    return jax.tree.map(lambda x: x[:count], self)


class ResNet(nn.Module):
  """Two convolutions; the embedding scales and shifts what lies between."""

  channels: int
  groups: int = 32
  dropout: float = 0.0
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w i'], embedding: Float[Array, 'b e']
  ) -> Float[Array, 'b h w o']:
    c, dtype = self.channels, self.dtype
    h = nn.silu(GroupNorm(self.groups, name='norm1')(x))
    h = Conv(c, dtype=dtype, name='conv1')(h)
    modulation = Dense(2 * c, dtype=dtype, name='time_layer')(
      nn.silu(embedding)
    )
    scale, shift = jnp.split(modulation[:, None, None], 2, axis=-1)
    h = GroupNorm(self.groups, name='norm2')(h)
    h = nn.silu(h * (1 + scale) + shift)
    h = nn.Dropout(self.dropout, deterministic=not self.has_rng('dropout'))(h)
    h = Conv(c, zero=True, dtype=dtype, name='conv2')(h)
    if x.shape[-1] != c:
      x = Dense(c, dtype=dtype, name='conv3')(x)
    return x + h


class Attention(nn.Module):
  """Pixels attend to pixels and to the condition, with one query for both.

  The two softmaxes are separate and their results are added.
  """

  heads: int = 8
  ffn: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b h w c'], condition: Condition | None
  ) -> Float[Array, 'b h w c']:
    _, height, width, c = x.shape
    scale = (c // self.heads) ** -0.5

    def dense(features, name, **kwargs):
      return Dense(features, dtype=self.dtype, name=name, **kwargs)

    qkv = dense(3 * c, 'qkv')(GroupNorm(name='norm')(x))
    q, k, v = rearrange(
      qkv, 'b h w (three n k) -> three b (h w) n k', three=3, n=self.heads
    )
    h = layers.attention(q, k, v, scale=scale)
    if condition is not None:
      kv = dense(2 * c, 'kv_cond')(
        LayerNorm(name='norm_cond')(condition.tokens)
      )
      k, v = rearrange(kv, 'b l (two n k) -> two b l n k', two=2, n=self.heads)
      mask = None if condition.mask is None else condition.mask[:, None] > 0
      h += layers.attention(q, k, v, scale=scale, mask=mask)
    h = rearrange(h, 'b (h w) n k -> b h w (n k)', h=height, w=width)
    x += dense(c, 'proj_out', zero=True)(h)
    if self.ffn:
      h = dense(4 * c, 'ffn_in')(GroupNorm(name='ffn_norm')(x))
      x += dense(c, 'ffn_out', zero=True)(nn.gelu(h, approximate=False))
    return x


class ConditionBlock(nn.Module):
  """Self-attention and an MLP over the tokens of the condition."""

  heads: int = 8
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b l d'], mask: Mask | None
  ) -> Float[Array, 'b l d']:
    d = x.shape[-1]

    def dense(features, name, **kwargs):
      return Dense(features, dtype=self.dtype, name=name, **kwargs)

    qkv = dense(3 * d, 'qkv')(LayerNorm(name='norm')(x))
    q, k, v = rearrange(
      qkv, 'b l (three n k) -> three b l n k', three=3, n=self.heads
    )
    mask = None if mask is None else mask[:, None] > 0
    h = layers.attention(q, k, v, scale=(d // self.heads) ** -0.5, mask=mask)
    h = rearrange(h, 'b l n k -> b l (n k)')
    x += dense(d, 'proj_out', zero=True)(h)
    h = dense(4 * d, 'mlp_in')(LayerNorm(name='mlp_norm')(x))
    return x + dense(d, 'mlp_out', zero=True)(nn.gelu(h, approximate=False))


class Block(nn.Module):
  """One resolution of one path: ResNets, attention after each, resampling."""

  channels: int
  num_resnets: int
  num_attention: int = 0  # attention layers after *each* ResNet
  resample: str = ''  # '', 'down' or 'up'
  heads: int = 8
  groups: int = 32
  dropout: float = 0.0
  attention_ffn: bool = False
  dtype: str = 'float32'

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'b h w i'],
    embedding: Float[Array, 'b e'],
    condition: Condition | None,
    skips: tuple[Array, ...] = (),
  ) -> tuple[Float[Array, 'b h2 w2 o'], tuple[Array, ...]]:
    """Returns the output and everything that the path up will read.

    skips: on the path up, what the path down recorded, in order of use.
    """
    record = []
    for i in range(self.num_resnets):
      if skips:
        x = jnp.concatenate([x, skips[i].astype(x.dtype)], axis=-1)
      x = ResNet(
        self.channels,
        groups=self.groups,
        dropout=self.dropout,
        dtype=self.dtype,
        name=f'resnets_{i}',
      )(x, embedding)
      for j in range(self.num_attention):
        x = Attention(
          self.heads,
          ffn=self.attention_ffn,
          dtype=self.dtype,
          name=f'attn_{i * self.num_attention + j}',
        )(x, condition)
      record.append(x)
    if self.resample == 'down':
      x = Conv(self.channels, stride=2, dtype=self.dtype, name='resample')(x)
      record.append(x)
    elif self.resample == 'up':
      x = layers.upsample(x)
      x = Conv(self.channels, dtype=self.dtype, name='resample')(x)
    return x, tuple(record)
