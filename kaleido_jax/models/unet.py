"""The U-Net of Matryoshka Diffusion (Gu et al., 2023, arXiv:2310.15111).

A path down, a middle, a path up. Every ResNet is modulated by an embedding of
the time, the pooled condition and the micro-conditions; attention layers let
each pixel read the other pixels and, through the same query, the tokens of the
condition. Images travel as a tuple, high to low resolution; this U-Net alone
takes a tuple of length one, `nested_unet.NestedUNet` puts one inside another.

Dropout is active where an rng named 'dropout' is given, and nowhere else.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Num

from kaleido_jax.models import layers
from kaleido_jax.models.layers import Conv, Dense, GroupNorm, LayerNorm

Images = tuple[Float[Array, '_ _ _ c'], ...]  # rows may differ: mixed batch


class Condition(NamedTuple):
  """What every resolution reads; computed once, by the innermost U-Net."""

  pooled: Float[Array, 'b e']
  tokens: Float[Array, 'b l d']
  mask: Num[Array, 'b l'] | None

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
      kv = dense(2 * c, 'kv_cond')(LayerNorm(name='norm_cond')(condition.tokens))
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
    self, x: Float[Array, 'b l d'], mask: Num[Array, 'b l'] | None
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


class UNet(nn.Module):
  """A denoiser for one resolution."""

  channels: tuple[int, ...]  # per resolution, high to low, each half the last
  num_resnets: tuple[int, ...]
  num_attention: tuple[int, ...]  # attention layers after each ResNet
  embedding_dim: int  # width of the time embedding
  conditional: bool = True  # reads a condition; otherwise features=None
  condition_dim: int = 0  # project the condition to this width; 0: as it comes
  num_condition_blocks: int = 0
  masked_condition: bool = True  # False: cross-attention reads padding too
  micro_conditions: tuple[tuple[str, float], ...] = ()  # (name, default)
  middle_blocks: bool = True
  attention_ffn: bool = False
  dropout: float = 0.0
  groups: int = 32
  heads: int = 8
  out_channels: int = 3
  remat: str = 'none'  # per block; see layers.checkpointed
  dtype: str = 'float32'

  def setup(self):
    if not (
      len(self.channels) == len(self.num_resnets) == len(self.num_attention)
    ):
      raise ValueError(
        'channels, num_resnets and num_attention need one entry per '
        f'resolution, got {self.channels}, {self.num_resnets} and '
        f'{self.num_attention}.'
      )
    self._set_up_embedding()
    self.conv_in = Conv(self.channels[0], dtype=self.dtype)
    last = len(self.channels) - 1
    self.down_blocks = [
      self._block(i, self.num_resnets[i], 'down' if i < last else '')
      for i in range(last + 1)
    ]
    self._set_up_middle()
    self.up_blocks = [
      self._block(i, self.num_resnets[i] + 1, 'up' if i > 0 else '')
      for i in reversed(range(last + 1))
    ]
    self.norm_out = GroupNorm(self.groups)
    self.conv_out = Conv(self.out_channels, zero=True)

  def _block(self, level: int, num_resnets: int, resample: str = '', **kwargs):
    defaults: dict[str, Any] = dict(
      channels=self.channels[level],
      num_resnets=num_resnets,
      num_attention=self.num_attention[level],
      resample=resample,
      heads=self.heads,
      groups=self.groups,
      dropout=self.dropout,
      attention_ffn=self.attention_ffn,
      dtype=self.dtype,
    )
    return layers.checkpointed(Block, self.remat)(**defaults | kwargs)

  def _set_up_embedding(self):
    e, dtype = self.embedding_dim, self.dtype
    self.temb_layer1 = Dense(e, dtype=dtype)
    self.temb_layer2 = Dense(e, dtype=dtype)
    self.micro_layers = {
      name: [Dense(e, dtype=dtype), Dense(e, zero=True, dtype=dtype)]
      for name, _ in self.micro_conditions
    }

  def _set_up_middle(self):
    if self.middle_blocks:
      last = len(self.channels) - 1
      self.mid_blocks = [
        self._block(last, 1, num_attention=1),
        self._block(last, 1, num_attention=0),
      ]
    if self.conditional:
      if self.condition_dim:
        self.lm_proj = Dense(self.condition_dim, dtype=self.dtype)
      self.lm_head = [
        ConditionBlock(self.heads, dtype=self.dtype)
        for _ in range(self.num_condition_blocks)
      ]
      self.cond_emb = Dense(
        self.embedding_dim, use_bias=False, dtype=self.dtype
      )

  def __call__(
    self,
    xs: Images,
    times: Num[Array, ' b'],
    features: Float[Array, 'b l d'] | None = None,
    mask: Num[Array, 'b l'] | None = None,
    micros: Mapping[str, Num[Array, ' b']] | None = None,
  ) -> Images:
    """Predicts, for every resolution, what the schedule's target is.

    Args:
      xs: noisy images, high to low resolution.
      times: 0 for the least noise, up to the number of schedule steps - 1.
      features, mask: tokens of the condition; the mask is 1 at tokens, 0 at
        padding, and None if there is no padding.
      micros: values of the micro-conditions that differ from their defaults.
    """
    known = {name for name, _ in self.micro_conditions}
    if unknown := set(micros or {}) - known:
      raise ValueError(
        f'unknown micro-conditions {sorted(unknown)}; this denoiser was built '
        f'with {sorted(known)}.'
      )
    condition = self.condition(features, mask)
    predictions, _ = self.denoise(xs, times, condition, micros or {})
    return predictions

  def condition(
    self,
    features: Float[Array, 'b l d'] | None,
    mask: Num[Array, 'b l'] | None = None,
  ) -> Condition | None:
    """Projects and pools the tokens that all resolutions will read."""
    if not self.conditional:
      return None
    if features is None:
      raise ValueError(
        'this denoiser is conditional: give it features (for an unconditional '
        'prediction, those of the empty caption) or build it with '
        'conditional=False.'
      )
    y = self.lm_proj(features) if self.condition_dim else features
    for block in self.lm_head:
      y = block(y, mask if self.masked_condition else None)
    # As in the reference, an unmasked network still pools over the tokens
    # alone, unless blocks have mixed padding into them already.
    if mask is None or (not self.masked_condition and self.lm_head):
      pooled = y.mean(1)
    else:
      pooled = layers.masked_mean(y, mask)
    return Condition(
      self.cond_emb(pooled), y, mask if self.masked_condition else None
    )

  def denoise(
    self,
    xs: Images,
    times: Num[Array, ' b'],
    condition: Condition | None,
    micros: Mapping[str, Num[Array, ' b']],
    injected: Float[Array, 'b h w c'] | None = None,
  ) -> tuple[Images, Float[Array, 'b h w c']]:
    """Returns the predictions and the last features before the output norm.

    injected: features that a U-Net around this one adds to the first layer.
    """
    x = self.conv_in(self.normalise(xs[0]))
    if injected is not None:
      x += injected
    embedding = self.embed(times, condition, micros)
    # A mixed batch holds fewer high-resolution images than low ones.
    rows = x.shape[0]
    embedding_here = embedding[:rows]
    condition_here = None if condition is None else condition.rows(rows)

    skips = [x]
    for block in self.down_blocks:
      x, record = block(x, embedding_here, condition_here)
      skips.extend(record)
    x, inner = self.middle(x, embedding_here, condition, xs, times, micros)
    for block in self.up_blocks:
      used = tuple(skips.pop() for _ in range(block.num_resnets))
      x, _ = block(x, embedding_here, condition_here, used)

    out = self.conv_out(nn.silu(self.norm_out(x)))
    return (out, *inner), x

  def middle(self, x, embedding, condition, xs, times, micros):
    """The lowest resolution; returns its output and no inner predictions."""
    del times, micros
    if len(xs) != 1:
      raise ValueError(
        f'a U-Net draws one resolution, but {len(xs)} images were given; nest '
        'it in a NestedUNet to draw more.'
      )
    if self.middle_blocks:
      for block in self.mid_blocks:
        x, _ = block(x, embedding, condition)
    return x, ()

  def normalise(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    return x

  def embed(
    self,
    times: Num[Array, ' b'],
    condition: Condition | None,
    micros: Mapping[str, Num[Array, ' b']],
  ) -> Float[Array, 'b e']:
    """Sums what modulates the ResNets: time, pooled condition, micros."""
    width = self.embedding_dim // 4
    embedding = self.temb_layer2(
      nn.silu(self.temb_layer1(layers.sinusoid(times, width)))
    )
    if condition is not None:
      embedding += condition.pooled
    for name, default in self.micro_conditions:
      first, second = self.micro_layers[name]
      value = micros.get(name, jnp.full(times.shape, default))
      value = jnp.asarray(value, jnp.float32)
      if name == 'scale':  # a size in pixels: beyond the default all is sharp
        value = jnp.minimum(value / default, 1) * default
      else:
        value *= 1000
      embedding += second(nn.silu(first(layers.sinusoid(value, width))))
    return embedding
