"""Kaleido (Gu et al., 2024, arXiv:2405.21048): three models that train as one.

  c  caption  -- encoder --> memory
  z  latents  -- decoder, reads memory --> states, next-token logits
  x  images   -- denoiser, reads [memory; states] --> prediction

Without a decoder (no latents) this is Matryoshka Diffusion, the baseline: the
same parameters, and the same output as the denoiser on the memory alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Bool, Float, Int, Num
from ml_collections import ConfigDict

from kaleido_jax.arrays import Array, Images, Mask, Micros
from kaleido_jax.models import adaptation, t5
from kaleido_jax.models.mlp import MLP
from kaleido_jax.models.nested_unet import NestedUNet
from kaleido_jax.models.t5_layers import T5Config
from kaleido_jax.models.unet import UNet


class Tokens(NamedTuple):
  """What the denoiser reads: the caption's tokens, then the latents'."""

  features: Float[Array, 'b n d']
  mask: Bool[Array, 'b n']


class Kaleido(nn.Module):
  """Encoder, decoder and denoiser, each with parameters of its own."""

  encoder: t5.T5  # only its encoder half is used
  decoder: t5.T5 | None  # only its decoder half is used; None: no latents
  denoiser: nn.Module
  # Weights that were trained elsewhere stay as they are; an encoder that starts
  # from nothing has to learn, or unseen captions mean nothing.
  freeze_encoder: bool = True
  train_embedder: bool = True  # matters only if layers of the decoder do not
  empty_caption: tuple[int, ...] = (t5.EOS,)  # the condition that means none

  def __call__(
    self,
    ids: Int[Array, 'b l'],
    mask: Mask,
    xs: Images,
    times: Num[Array, ' b'],
    z: Int[Array, 'b m'] | None = None,
    micros: Micros | None = None,
    *,
    memory: Float[Array, 'b l d'] | None = None,
    drop_caption: Bool[Array, ' b'] | None = None,
    drop_latents: Bool[Array, ' b'] | None = None,
  ) -> tuple[Images, Float[Array, 'b m v'] | None]:
    """Everything that training needs: predictions and next-token logits.

    Dropping the condition of an example touches only what the denoiser sees of
    it; the prior always reads the caption. With cached states of the captions,
    `memory`, the encoder runs for the empty caption alone.
    """
    if memory is None:
      memory = self.encode(ids, mask)
    else:
      memory = memory.astype(self.encoder.config.dtype)
    states, logits = None, None
    if self.decoder is not None:
      states, logits = self.prior(z, memory, mask)
    tokens = self.condition(
      memory,
      mask,
      states,
      None if states is None else z != t5.PAD,
      drop_caption=drop_caption,
      drop_latents=drop_latents,
    )
    return self.denoise(xs, times, tokens, micros), logits

  def encode(
    self,
    ids: Int[Array, 'b l'],
    mask: Mask,
  ) -> Float[Array, 'b l d']:
    """Reads captions; no gradient comes back if the encoder is frozen."""
    memory = self.encoder.encode(ids, mask)
    return jax.lax.stop_gradient(memory) if self.freeze_encoder else memory

  def prior(
    self,
    z: Int[Array, 'b m'],
    memory: Float[Array, 'b l d'],
    mask: Mask,
  ) -> tuple[Float[Array, 'b m d'], Float[Array, 'b m v']]:
    """Reads latents from left to right; logits[:, i] scores z[:, i].

    z ends in EOS and is padded on the right. Its last state, the one that
    predicts EOS, has seen every token of the latents.
    """
    inputs = jnp.pad(z[:, :-1], ((0, 0), (1, 0)), constant_values=t5.PAD)
    return self.decoder.decode(memory, mask, inputs)

  def condition(
    self,
    memory: Float[Array, 'b l d'],
    mask: Mask,
    states: Float[Array, 'b m d'] | None = None,
    states_mask: Num[Array, 'b m'] | Bool[Array, 'b m'] | None = None,
    *,
    drop_caption: Bool[Array, ' b'] | None = None,
    drop_latents: Bool[Array, ' b'] | None = None,
  ) -> Tokens:
    """Joins [memory; states]; a dropped caption is replaced by the empty one.

    Dropped latents are masked out. Dropping both gives the null condition.
    """
    mask = mask.astype(bool)
    if drop_caption is not None:
      null, null_mask = self._empty(mask.shape)
      memory = jnp.where(drop_caption[:, None, None], null, memory)
      mask = jnp.where(drop_caption[:, None], null_mask, mask)
    if states is None:
      return Tokens(memory, mask)
    states_mask = states_mask.astype(bool)
    if drop_latents is not None:
      states_mask &= ~drop_latents[:, None]
    states = jnp.where(states_mask[..., None], states, 0)
    return Tokens(
      jnp.concatenate([memory, states.astype(memory.dtype)], axis=1),
      jnp.concatenate([mask, states_mask], axis=1),
    )

  def denoise(
    self,
    xs: Images,
    times: Num[Array, ' b'],
    tokens: Tokens,
    micros: Micros | None = None,
    *,
    projected: bool = False,
  ) -> Images:
    """Predicts the schedule's target at every resolution."""
    return self.denoiser(
      *(xs, times, tokens.features, tokens.mask, micros), projected=projected
    )

  def project(self, tokens: Tokens) -> Tokens:
    """What `denoise` makes of tokens first, whatever the time: do it once."""
    return tokens._replace(features=self.denoiser.project(tokens.features))

  def _empty(self, shape: tuple[int, int]):
    """The memory of the empty caption, padded to a batch's length."""
    length, used = shape[1], len(self.empty_caption)
    if used > length:
      raise ValueError(
        f'the empty caption has {used} tokens, but captions are padded to '
        f'{length}; pad them to at least {used}.'
      )
    ids = jnp.asarray([self.empty_caption], jnp.int32)
    memory = self.encode(ids, jnp.ones(ids.shape, bool))
    memory = jnp.pad(memory, ((0, 0), (0, length - used), (0, 0)))
    return memory, jnp.arange(length)[None] < used


def is_trained(model: Kaleido, path: str) -> bool:
  """Whether a parameter, given by its '/'-joined path, changes in training."""
  part, _, inside = path.partition('/')
  if part == 'encoder':
    return not model.freeze_encoder
  if part == 'denoiser':
    return True
  config = model.decoder.config
  if not (config.frozen_layers or config.lora_rank):
    return True
  if inside.startswith('decoder/layers/') and config.lora_rank:
    return inside.endswith(adaptation.UPDATES)
  if inside.startswith('token_embedder/'):
    # Its gradient has to travel through the frozen layers, which costs their
    # activations; but new rows of a vocabulary learn in no other way.
    return model.train_embedder
  frozen = ('decoder/frozen_layers/', 'decoder/relpos_bias/')
  return not inside.startswith(frozen)


def split(model: Kaleido, params: Mapping[str, Any]) -> tuple[dict, dict]:
  """Separates (trained, frozen) parameters.

  Differentiate with respect to the first alone: for what is in the second there
  is no gradient, no optimizer state and no average.
  """
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  trained = {k: v for k, v in flat.items() if is_trained(model, k)}
  frozen = {k: v for k, v in flat.items() if k not in trained}
  return (
    traverse_util.unflatten_dict(trained, sep='/'),
    traverse_util.unflatten_dict(frozen, sep='/'),
  )


def join(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict:
  """Undoes `split`."""
  return traverse_util.unflatten_dict(
    traverse_util.flatten_dict(dict(trained))
    | traverse_util.flatten_dict(dict(frozen))
  )


def init_params(model: Kaleido, key: Array, xs_shapes) -> dict:
  """Initial parameters, for images of the given (h, w, c), high to low."""
  ids = jnp.ones((1, len(model.empty_caption)), jnp.int32)
  # Not zeros: a network may divide an image by its deviation.
  xs = tuple(jax.random.normal(key, (1, *shape)) for shape in xs_shapes)
  z = None if model.decoder is None else ids
  return model.init(key, ids, ids, xs, jnp.zeros(1), z)['params']


def from_config(config: ConfigDict) -> Kaleido:
  """Builds the model that a run's configuration describes."""
  model = config.model
  encoder, decoder = T5Config(**model.encoder), T5Config(**model.decoder)
  if config.latents and encoder.width != decoder.width:
    raise ValueError(
      f'the denoiser reads encoder and decoder states side by side, but '
      f'config.model.encoder.width={encoder.width} and '
      f'config.model.decoder.width={decoder.width}; make them equal.'
    )
  return Kaleido(
    encoder=t5.T5(encoder),
    decoder=t5.T5(decoder) if config.latents else None,
    denoiser=_denoiser(model.denoiser),
    freeze_encoder=model.freeze_encoder,
    train_embedder=model.train_embedder,
    empty_caption=model.empty_caption,
  )


DENOISERS = {'unet': UNet, 'nested_unet': NestedUNet, 'mlp': MLP}


def _denoiser(section: ConfigDict) -> nn.Module:
  fields = dict(section)
  kind = fields.pop('kind')
  if kind not in DENOISERS:
    raise ValueError(
      f'config.model.denoiser.kind={kind!r} is not one of {list(DENOISERS)}.'
    )
  if kind == 'nested_unet':
    fields['inner_unet'] = _denoiser(fields['inner_unet'])
  return DENOISERS[kind](**fields)
