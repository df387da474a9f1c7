"""The layers of T5: attention with relative positions, gated MLPs, RMS norms.

Parameters carry T5X's names. Kernels stay 2-D, (width, heads * head_dim): with
the 3-D form decoding on a CPU is half as fast.

The residual stream and the norms are float32 whatever the compute type is, so
that bfloat16 neither overflows nor swallows small updates. Dropout is active
where an rng named 'dropout' is given, and nowhere else.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool, Float, Int

from kaleido_jax.arrays import Array
from kaleido_jax.models import layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
  """The architecture; the defaults that matter are those of v1.1."""

  vocab_size: int = 32128
  width: int
  num_heads: int
  head_dim: int = 64
  mlp_dim: int
  num_encoder_layers: int
  num_decoder_layers: int
  mlp: str = 'gated-gelu'  # v1.1 and Flan; 'relu' in v1.0
  tied_head: bool = False  # v1.0: the head is the embedding, scaled
  dropout: float = 0.0
  num_buckets: int = 32  # of relative positions
  max_distance: int = 128  # beyond it all positions share a bucket
  frozen_layers: int = 0  # the first decoder layers, kept out of training
  lora_rank: int = 0  # of low-rank updates beside the decoder's kernels
  remat: str = 'none'  # per layer; see layers.checkpointed
  dtype: str = 'float32'  # compute type

  def __post_init__(self):
    if self.mlp not in ('relu', 'gated-gelu'):
      raise ValueError(f"mlp={self.mlp!r} is neither 'relu' nor 'gated-gelu'.")
    if self.lora_rank < 0:
      raise ValueError(f'lora_rank={self.lora_rank} is negative; 0 means none.')
    if not 0 <= self.frozen_layers <= self.num_decoder_layers:
      raise ValueError(
        f'frozen_layers={self.frozen_layers} is not between 0 and '
        f'num_decoder_layers={self.num_decoder_layers}.'
      )


def relative_buckets(
  distance: Int[Array, '*b'],
  *,
  bidirectional: bool,
  num_buckets: int,
  max_distance: int,
) -> Int[Array, '*b']:
  """Buckets key position - query position; exact when near, logarithmic far."""
  bucket = jnp.zeros_like(distance)
  if bidirectional:
    num_buckets //= 2
    bucket += jnp.where(distance > 0, num_buckets, 0)
    distance = jnp.abs(distance)
  else:
    distance = jnp.maximum(-distance, 0)
  exact = num_buckets // 2
  # A table made once, in float64: on the boundaries the logarithm is a whole
  # number, and float32 would round some of them into the bucket below.
  far = np.arange(exact, max_distance + 1)
  far = np.log(far / exact) / np.log(max_distance / exact)
  far = exact + (far * (num_buckets - exact) + 1e-9).astype(int)
  table = np.concatenate([np.arange(exact), np.minimum(far, num_buckets - 1)])
  return bucket + jnp.asarray(table)[jnp.minimum(distance, max_distance)]


class RMSNorm(nn.Module):
  """Scales to unit root mean square: no mean, no bias; float32 inside."""

  dtype: str = 'float32'

  @nn.compact
  def __call__(self, x: Float[Array, '*b d']) -> Float[Array, '*b d']:
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    x = x.astype(jnp.float32)
    x *= jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    return (x * scale).astype(self.dtype)


class Part(nn.Module):
  """What every part of a T5 has: the configuration, and its dropout."""

  config: T5Config

  def drop(self, x: Float[Array, '*b l d']) -> Float[Array, '*b l d']:
    """Drops features, the same ones at every position of a sequence."""
    rate = self.config.dropout
    if not rate or not self.has_rng('dropout'):
      return x
    shape = (*x.shape[:-2], 1, x.shape[-1])
    keep = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, shape)
    return jnp.where(keep, x / (1 - rate), 0)


def by_example(x: Float[Array, 'b ...']) -> Float[Array, 'b ...']:
  """Says that the first axis of what was computed is the examples.

  On a mesh, `sharding.jit` gives 'examples' their place, and the weights of one
  layer at a time travel to them. Otherwise the compiler would split sums over
  the weights' axis and send activations, which are far larger.
  """
  if x.shape[0] == 1:  # the empty caption, which everyone reads
    return x
  rest = (P.UNCONSTRAINED,) * (x.ndim - 1)
  return nn.with_logical_constraint(x, ('examples', *rest))


class Kernel(nn.Module):
  """A linear map without bias, and beside it, maybe, a low-rank update."""

  features: int
  stddev: float
  lora_rank: int = 0
  dtype: str = 'float32'
  out_dtype: str | None = None  # None: as computed

  @nn.compact
  def __call__(self, x: Float[Array, '*b i']) -> Float[Array, '*b o']:
    init = nn.initializers.normal(self.stddev)
    kernel = self.param('kernel', init, (x.shape[-1], self.features))
    x = x.astype(self.dtype)
    y = jnp.matmul(
      x, kernel.astype(self.dtype), preferred_element_type=self.out_dtype
    )
    if self.lora_rank:
      # Down at random, up from zero: training starts at the given weights.
      down = self.param(
        'lora_down',
        nn.initializers.normal(x.shape[-1] ** -0.5),
        (x.shape[-1], self.lora_rank),
      )
      up = self.param(
        'lora_up', nn.initializers.zeros, (self.lora_rank, self.features)
      )
      y += (x @ down.astype(self.dtype)) @ up.astype(self.dtype)
    return by_example(y)


class Attention(Part):
  """Multi-head attention without the usual scale, which T5 folds into q."""

  lora_rank: int = 0

  def setup(self):
    c = self.config
    inner = c.num_heads * c.head_dim

    def kernel(features, stddev):
      return Kernel(features, stddev, self.lora_rank, c.dtype)

    self.query = kernel(inner, (c.width * c.head_dim) ** -0.5)
    self.key = kernel(inner, c.width**-0.5)
    self.value = kernel(inner, c.width**-0.5)
    self.out = kernel(c.width, inner**-0.5)

  def project(
    self, x: Float[Array, 'b l d']
  ) -> tuple[Float[Array, 'b l h'], Float[Array, 'b l h']]:
    """Keys and values, heads side by side."""
    return self.key(x), self.value(x)

  def __call__(
    self,
    x: Float[Array, 'b q d'],
    keys: Float[Array, 'b s h'],
    values: Float[Array, 'b s h'],
    bias: Float[Array, '#b n q s'] | None,
    mask: Bool[Array, '#b #q s'],
  ) -> Float[Array, 'b q d']:
    q, k, v = (
      rearrange(y, 'b l (n k) -> b l n k', n=self.config.num_heads)
      for y in (self.query(x), keys, values)
    )
    y = layers.attention(
      q, k, v, scale=1.0, bias=bias, mask=mask, drop=self.drop
    )
    return self.out(rearrange(y, 'b q n k -> b q (n k)'))


class MLP(Part):
  """The feed-forward part of a layer."""

  lora_rank: int = 0

  @nn.compact
  def __call__(self, x: Float[Array, 'b l d']) -> Float[Array, 'b l d']:
    c = self.config

    def kernel(features, stddev, name):
      return Kernel(features, stddev, self.lora_rank, c.dtype, name=name)

    if c.mlp == 'relu':
      h = nn.relu(kernel(c.mlp_dim, c.width**-0.5, 'wi')(x))
    else:
      gate = kernel(c.mlp_dim, c.width**-0.5, 'wi_0')(x)
      h = nn.gelu(gate) * kernel(c.mlp_dim, c.width**-0.5, 'wi_1')(x)
    h = self.drop(h)
    return kernel(c.width, c.mlp_dim**-0.5, 'wo')(h)


class EncoderLayer(Part):
  """Self-attention and an MLP."""

  @nn.compact
  def __call__(self, x, bias, mask):
    dtype = self.config.dtype
    y = RMSNorm(dtype, name='pre_attention_layer_norm')(x)
    attention = Attention(self.config, name='attention')
    x += self.drop(attention(y, *attention.project(y), bias, mask))
    y = RMSNorm(dtype, name='pre_mlp_layer_norm')(x)
    return x + self.drop(MLP(self.config, name='mlp')(y)), None


class DecoderLayer(Part):
  """Causal self-attention, attention to the memory, and an MLP."""

  lora_rank: int = 0

  def setup(self):
    c, rank = self.config, self.lora_rank
    self.pre_self_attention_layer_norm = RMSNorm(c.dtype)
    self.self_attention = Attention(c, rank)
    self.pre_cross_attention_layer_norm = RMSNorm(c.dtype)
    self.encoder_decoder_attention = Attention(c, rank)
    self.pre_mlp_layer_norm = RMSNorm(c.dtype)
    self.mlp = MLP(c, rank)

  def __call__(self, x, memory, memory_mask, bias, mask):
    """All positions at once; nothing is remembered."""
    x, _ = self.prefill(x, memory, memory_mask, bias, mask)
    return x, None

  def prefill(self, x, memory, memory_mask, bias, mask):
    """All positions at once; also returns the keys and values of both kinds."""
    y = self.pre_self_attention_layer_norm(x)
    own = self.self_attention.project(y)
    x += self.drop(self.self_attention(y, *own, bias, mask))
    others = self.encoder_decoder_attention.project(memory)
    return self._finish(x, others, memory_mask), (own, others)

  def step(self, carry, index, cache, bias, mask):
    """One position; layer `index` writes its slot into the carried keys."""
    x, keys, values = carry
    y = self.pre_self_attention_layer_norm(x)
    key, value = self.self_attention.project(y)
    at = (index, 0, cache.cursor, 0)
    keys = jax.lax.dynamic_update_slice(keys, key[None].astype(keys.dtype), at)
    values = jax.lax.dynamic_update_slice(
      values, value[None].astype(values.dtype), at
    )
    own = keys[index], values[index]
    x += self.drop(self.self_attention(y, *own, bias, mask))
    others = cache.memory_keys[index], cache.memory_values[index]
    return (self._finish(x, others, cache.memory_mask), keys, values), None

  def _finish(self, x, others, memory_mask):
    y = self.pre_cross_attention_layer_norm(x)
    attention = self.encoder_decoder_attention
    x += self.drop(attention(y, *others, None, memory_mask[:, None]))
    return x + self.drop(self.mlp(self.pre_mlp_layer_norm(x)))


class RelativeBias(Part):
  """One learned number per head and bucket of relative position.

  An encoder's heads begin by reading what is near, each twice as far as the one
  before: so which colour stands beside which noun is told from the start, and
  one that learns through a denoiser alone need not find it out. A decoder has a
  loss of its own that asks for order.
  """

  bidirectional: bool

  @nn.compact
  def __call__(
    self, queries: Int[Array, 'b q'], keys: Int[Array, 'b s']
  ) -> Float[Array, 'b n q s']:
    c = self.config
    shape = (c.num_heads, c.num_buckets)
    table = self.param('rel_embedding', self._init, shape)
    buckets = self._buckets(keys[:, None, :] - queries[:, :, None])
    return rearrange(table[:, buckets], 'n b q s -> b n q s')

  def _init(self, key: Array, shape: tuple[int, int]):
    init = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
    table = init(key, shape)
    if self.bidirectional:
      farthest = self.config.max_distance
      steps = jnp.arange(-farthest, farthest + 1)
      nearest = jnp.full(shape[1], farthest)  # step of each bucket
      nearest = nearest.at[self._buckets(steps)].min(jnp.abs(steps))
      table -= nearest / 2.0 ** jnp.arange(shape[0])[:, None]
    return table

  def _buckets(self, distance: Int[Array, '*b']) -> Int[Array, '*b']:
    c = self.config
    return relative_buckets(
      distance,
      bidirectional=self.bidirectional,
      num_buckets=c.num_buckets,
      max_distance=c.max_distance,
    )
