"""T5 (Raffel et al., 2020, arXiv:1910.10683): v1.0, v1.1 and Flan, any size.

Parameters carry T5X's names; the layers of a stack are one scanned subtree,
`layers`, whose leaves have the layer as their first axis. The decoder returns
its final states beside the logits: they are what Kaleido's denoiser reads.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from kaleido_jax.arrays import Array, Mask
from kaleido_jax.models import layers
from kaleido_jax.models.t5_layers import (
  DecoderLayer,
  EncoderLayer,
  Kernel,
  Part,
  RelativeBias,
  RMSNorm,
  T5Config,
  by_example,
)

PAD, EOS = 0, 1  # PAD is also what every decoder input begins with

# The public checkpoints; Flan-T5 has the sizes of v1.1.
SIZES = {
  'small': dict(width=512, num_heads=6, mlp_dim=1024, layers=8),
  'base': dict(width=768, num_heads=12, mlp_dim=2048, layers=12),
  'large': dict(width=1024, num_heads=16, mlp_dim=2816, layers=24),
  'xl': dict(width=2048, num_heads=32, mlp_dim=5120, layers=24),
  'xxl': dict(width=4096, num_heads=64, mlp_dim=10240, layers=24),
}


def size(name: str, **overrides) -> T5Config:
  """The configuration of a public v1.1 size, such as 'xl'."""
  if name not in SIZES:
    raise ValueError(f'unknown T5 size {name!r}; choose from {list(SIZES)}.')
  fields = dict(SIZES[name])
  num_layers = fields.pop('layers')
  return T5Config(
    num_encoder_layers=num_layers,
    num_decoder_layers=num_layers,
    **fields | overrides,
  )


@flax.struct.dataclass
class Cache:
  """What the decoder remembers of a batch of sequences between steps.

  Every row writes its next token into the same slot, `cursor`, so that the
  write is one slice in place; rows whose prompt was shorter have unused slots
  before it. Which slot holds which position stands in `positions`.
  """

  keys: Float[Array, 'layers b slots h']
  values: Float[Array, 'layers b slots h']
  memory_keys: Float[Array, 'layers b l h']
  memory_values: Float[Array, 'layers b l h']
  memory_mask: Bool[Array, 'b l']
  positions: Int[Array, 'b slots']  # -1: nothing there
  next_position: Int[Array, ' b']
  cursor: Int[Array, '']


def _stacked(layer, config: T5Config, num_layers: int, in_axes, methods=()):
  """Scans one layer over a stack of parameters."""
  shared = dict(
    variable_axes={'params': 0},
    split_rngs={'params': True, 'dropout': True},
    length=num_layers,
  )
  axes = {'__call__': in_axes, **dict(methods)}
  return nn.scan(
    layers.checkpointed(layer, config.remat, prevent_cse=False),
    methods={
      name: dict(in_axes=value, **shared) for name, value in axes.items()
    },
  )


class Encoder(Part):
  """Reads all tokens at once."""

  def setup(self):
    c = self.config
    self.relpos_bias = RelativeBias(c, bidirectional=True)
    every = (nn.broadcast, nn.broadcast)
    self.layers = _stacked(EncoderLayer, c, c.num_encoder_layers, every)(c)
    self.encoder_norm = RMSNorm(c.dtype)

  def __call__(
    self, x: Float[Array, 'b l d'], mask: Bool[Array, 'b l']
  ) -> Float[Array, 'b l d']:
    positions = jnp.arange(x.shape[1])[None]
    bias = self.relpos_bias(positions, positions)
    x, _ = self.layers(self.drop(x), bias, mask[:, None])
    return self.drop(self.encoder_norm(x))


class Decoder(Part):
  """Reads tokens from left to right, and the memory."""

  def setup(self):
    c = self.config
    self.relpos_bias = RelativeBias(c, bidirectional=False)

    def stack(num_layers, lora_rank):
      full = (nn.broadcast,) * 4
      step = (0, *(nn.broadcast,) * 3)
      methods = {'prefill': full, 'step': step}
      scanned = _stacked(DecoderLayer, c, num_layers, full, methods)
      return scanned(c, lora_rank)

    trained = c.num_decoder_layers - c.frozen_layers
    if c.frozen_layers:
      self.frozen_layers = stack(c.frozen_layers, 0)
    if trained:
      self.layers = stack(trained, c.lora_rank)
    self.decoder_norm = RMSNorm(c.dtype)
    if not c.tied_head:
      self.logits_dense = Kernel(
        c.vocab_size, c.width**-0.5, dtype=c.dtype, out_dtype='float32'
      )

  def _stacks(self):
    """The stacks from bottom to top, each with its number of layers."""
    c = self.config
    trained = c.num_decoder_layers - c.frozen_layers
    below = [(self.frozen_layers, c.frozen_layers)] if c.frozen_layers else []
    above = [(self.layers, trained)] if trained else []
    return below + above

  def __call__(
    self,
    x: Float[Array, 'b m d'],
    memory: Float[Array, 'b l d'],
    memory_mask: Bool[Array, 'b l'],
  ) -> Float[Array, 'b m d']:
    bias, mask = self._causal(x.shape[1])
    x = self.drop(x)
    for stack, _ in self._stacks():
      x, _ = stack(x, memory, memory_mask, bias, mask)
    return self.drop(self.decoder_norm(x))

  def prefill(
    self,
    x: Float[Array, 'b m d'],
    lengths: Int[Array, ' b'],
    memory: Float[Array, 'b l d'],
    memory_mask: Bool[Array, 'b l'],
    slots: int,
  ) -> tuple[Float[Array, 'b m d'], Cache]:
    """Reads prompts, padded on the right, into a cache with room to go on."""
    num = x.shape[1]
    bias, mask = self._causal(num)
    kept = []
    for stack, _ in self._stacks():
      x, keys_values = stack.prefill(x, memory, memory_mask, bias, mask)
      kept.append(keys_values)
    own, others = jax.tree.map(lambda *parts: jnp.concatenate(parts), *kept)
    room = ((0, 0), (0, 0), (0, slots - num), (0, 0))
    positions = jnp.arange(slots)[None]
    positions = jnp.where(positions < lengths[:, None], positions, -1)
    cache = Cache(
      keys=jnp.pad(own[0], room),
      values=jnp.pad(own[1], room),
      memory_keys=others[0],
      memory_values=others[1],
      memory_mask=memory_mask,
      positions=positions,
      next_position=lengths,
      cursor=jnp.int32(num),
    )
    return self.decoder_norm(x), cache

  def step(
    self, x: Float[Array, 'b 1 d'], cache: Cache
  ) -> tuple[Float[Array, 'b 1 d'], Cache]:
    """Reads one more token of every row."""
    here = cache.next_position[:, None]
    positions = jax.lax.dynamic_update_slice(
      cache.positions, here, (0, cache.cursor)
    )
    bias = self.relpos_bias(here, positions)
    mask = positions[:, None] >= 0
    carry, first = (x, cache.keys, cache.values), 0
    for stack, count in self._stacks():
      indices = jnp.arange(first, first + count)
      carry, _ = stack.step(carry, indices, cache, bias, mask)
      first += count
    x, keys, values = carry
    cache = cache.replace(
      keys=keys,
      values=values,
      positions=positions,
      next_position=cache.next_position + 1,
      cursor=cache.cursor + 1,
    )
    return self.decoder_norm(x), cache

  def _causal(self, num: int):
    positions = jnp.arange(num)[None]
    bias = self.relpos_bias(positions, positions)
    return bias, positions[:, None, :] <= positions[:, :, None]


class T5(nn.Module):
  """Encoder and decoder around one embedding.

  A module of which only one half is called (at `init`) has only its half of
  the parameters: that is how Kaleido holds a frozen encoder and a trainable
  decoder, each with an embedding of its own.
  """

  config: T5Config

  def setup(self):
    c = self.config
    self.token_embedder = nn.Embed(
      c.vocab_size, c.width, embedding_init=nn.initializers.normal(1.0)
    )
    self.encoder = Encoder(c)
    self.decoder = Decoder(c)

  def __call__(
    self,
    ids: Int[Array, 'b l'],
    mask: Mask,
    decoder_ids: Int[Array, 'b m'],
  ) -> tuple[Float[Array, 'b m d'], Float[Array, 'b m v']]:
    return self.decode(self.encode(ids, mask), mask, decoder_ids)

  def encode(
    self,
    ids: Int[Array, 'b l'],
    mask: Mask,
  ) -> Float[Array, 'b l d']:
    """Encodes tokens; the states of padding are zeros."""
    mask = mask.astype(bool)
    states = self.encoder(self._embed(ids), mask)
    return jnp.where(mask[..., None], states, 0)

  def decode(
    self,
    states: Float[Array, 'b l d'],
    mask: Mask,
    decoder_ids: Int[Array, 'b m'],
  ) -> tuple[Float[Array, 'b m d'], Float[Array, 'b m v']]:
    """Reads inputs that begin with PAD; returns final states and logits."""
    x = self._embed(decoder_ids)
    states = self.decoder(x, states, mask.astype(bool))
    return states, self.logits(states)

  def prefill(
    self,
    states: Float[Array, 'b l d'],
    mask: Mask,
    decoder_ids: Int[Array, 'b m'],
    lengths: Int[Array, ' b'],
    slots: int,
  ) -> tuple[Float[Array, 'b m d'], Cache]:
    """Begins a cached decoding: reads `lengths` tokens of every row.

    slots: room for the prompt, m, and for the tokens that follow it.
    """
    x = self._embed(decoder_ids)
    return self.decoder.prefill(x, lengths, states, mask.astype(bool), slots)

  def step(
    self, token: Int[Array, ' b'], cache: Cache
  ) -> tuple[Float[Array, 'b d'], Cache]:
    """Reads one token of every row; returns its final state."""
    x = self._embed(token[:, None])
    states, cache = self.decoder.step(x, cache)
    return states[:, 0], cache

  def _embed(self, ids: Int[Array, 'b l']) -> Float[Array, 'b l d']:
    # On a mesh the table travels, as other weights do.
    table = nn.with_logical_constraint(
      self.token_embedder.embedding, ('tokens', None)
    )
    # float32 even if the parameters were cast: it begins the residual stream.
    return by_example(jnp.take(table, ids, axis=0)).astype(jnp.float32)

  def logits(self, states: Float[Array, '*b d']) -> Float[Array, '*b v']:
    """Scores the next token, in float32."""
    if self.config.tied_head:
      table = self.token_embedder.embedding.astype(states.dtype)
      logits = jnp.matmul(states, table.T, preferred_element_type=jnp.float32)
      return logits * self.config.width**-0.5
    return self.decoder.logits_dense(states)


def init_params(
  module: T5, key: Array, halves: tuple[str, ...] = ('encoder', 'decoder')
) -> dict:
  """Initial parameters of both halves or one; the embedding is in either."""
  ids, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
  if halves == ('encoder',):
    variables = module.init(key, ids, mask, method='encode')
  elif halves == ('decoder',):
    memory = jnp.zeros((1, 1, module.config.width))
    variables = module.init(key, memory, mask, ids, method='decode')
  else:
    variables = module.init(key, ids, mask, ids)
  return variables['params']


def abstract_params(
  module: T5, halves: tuple[str, ...] = ('encoder', 'decoder')
) -> dict:
  """Shapes of the parameters; nothing is allocated, however large."""
  return jax.eval_shape(
    lambda key: init_params(module, key, halves), jax.random.key(0)
  )
