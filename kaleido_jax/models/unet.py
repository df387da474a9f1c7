"""The U-Net of Matryoshka Diffusion (Gu et al., 2023, arXiv:2310.15111).

A path down, a middle, a path up, modulated by an embedding of the time, the
pooled condition and the micro-conditions. Images travel as a tuple, high to low
resolution; this U-Net alone takes a tuple of length one,
`nested_unet.NestedUNet` puts one inside another.

Dropout is active where an rng named 'dropout' is given, and nowhere else.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Num

from kaleido_jax.arrays import Array, Images, Mask, Micros
from kaleido_jax.models import layers
from kaleido_jax.models.layers import Conv, Dense, GroupNorm
from kaleido_jax.models.unet_blocks import Block, Condition, ConditionBlock


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
    mask: Mask | None = None,
    micros: Micros | None = None,
    *,
    projected: bool = False,
  ) -> Images:
    """Predicts, for every resolution, what the schedule's target is.

    Args:
      xs: noisy images, high to low resolution.
      times: 0 for the least noise, up to the number of schedule steps - 1.
      features, mask: tokens of the condition; the mask is 1 at tokens, 0 at
        padding, and None if there is no padding.
      projected: whether the features come from `project`.
      micros: values of the micro-conditions that differ from their defaults.
    """
    known = self.known_micros()
    if unknown := set(micros or {}) - known:
      raise ValueError(
        f'unknown micro-conditions {sorted(unknown)}; this denoiser was built '
        f'with {sorted(known)}.'
      )
    if self.conditional and features is not None and not projected:
      features = self.project(features)
    condition = self.condition(features, mask)
    predictions, _ = self.denoise(xs, times, condition, micros or {})
    return predictions

  def known_micros(self) -> set[str]:
    """Names that `micros` may have."""
    return {name for name, _ in self.micro_conditions}

  def project(self, features: Float[Array, 'b l d']) -> Float[Array, 'b l e']:
    """To the width that this network reads; the same for every time."""
    return self.lm_proj(features) if self.condition_dim else features

  def condition(
    self,
    features: Float[Array, 'b l d'] | None,
    mask: Mask | None = None,
  ) -> Condition | None:
    """Pools the projected tokens that all resolutions will read."""
    if not self.conditional:
      return None
    if features is None:
      raise ValueError(
        'this denoiser is conditional: give it features (for an unconditional '
        'prediction, those of the empty caption) or build it with '
        'conditional=False.'
      )
    y = features
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
    micros: Micros,
    injected: Float[Array, '_ h w f'] | None = None,
  ) -> tuple[Images, Float[Array, '_ h w f']]:
    """Returns the predictions and the last features before the output norm.

    injected: features that a U-Net around this one adds to the first layer.
    """
    self.check(xs)
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
    del xs, times, micros
    if self.middle_blocks:
      for block in self.mid_blocks:
        x, _ = block(x, embedding, condition)
    return x, ()

  def check(self, xs: Images) -> None:
    """Refuses images that this network does not draw."""
    if len(xs) != 1:
      raise ValueError(
        f'a U-Net draws one resolution, but {len(xs)} images were given; nest '
        'it in a NestedUNet to draw more.'
      )
    self.check_divisible(xs[0])

  def check_divisible(self, x) -> None:
    """Refuses images that cannot be halved as often as the network does."""
    halvings = 2 ** (len(self.channels) - 1)
    if x.shape[1] % halvings or x.shape[2] % halvings:
      raise ValueError(
        f'images of {x.shape[1]}x{x.shape[2]} cannot be halved '
        f'{len(self.channels) - 1} times, once between the entries of '
        f'channels; use sizes that are multiples of {halvings}.'
      )

  def normalise(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    return x

  def embed(
    self,
    times: Num[Array, ' b'],
    condition: Condition | None,
    micros: Micros,
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
      value = micros.get(name, default)
      value = jnp.broadcast_to(jnp.asarray(value, jnp.float32), times.shape)
      if name == 'scale':  # a size in pixels: beyond the default all is sharp
        value = jnp.minimum(value / default, 1) * default
      else:
        value *= 1000
      embedding += second(nn.silu(first(layers.sinusoid(value, width))))
    return embedding
