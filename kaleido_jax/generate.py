"""From captions to pictures, in two steps that anyone may come between.

  z = imagine(...)     latents, token by token; may be read and edited
  xs = render(...)     reads z once more, then denoises under guidance

Here is the first; the second is `render.Render`. Both are compiled once for
every batch shape: seeds, temperature, guidance, solver and the number of steps
are data. What belongs to row i is drawn from (seed, indices[i]): neither the
batch nor the devices matter.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, Int32, Key

from kaleido_jax import sharding
from kaleido_jax.arrays import Array, Images
from kaleido_jax.data import images
from kaleido_jax.diffusion import sampler
from kaleido_jax.latents.tokens import Vocabulary
from kaleido_jax.models import decoding, t5
from kaleido_jax.models.kaleido import Kaleido

# Streams of randomness of one image: its latents and its noise are drawn apart,
# so that edited latents meet the same noise.
LATENTS, NOISE = 0, 1
FILLING = 2**30  # numbers of images that only fill a batch up, from here on


def build_imagine(
  model: Kaleido,
  mesh: Mesh,
  num_tokens: int,
  grammar: decoding.Grammar | None = None,
) -> Callable[..., Int32[Array, 'b m']]:
  """imagine(params, ids, seed, indices, rule, prefix) -> z, ended and padded.

  prefix: tokens that are given, padded on the right; [b, 0] is nothing.
  grammar: of `grammar`; without one, tokens come in any order.
  """

  def imagine(params, ids, seed, indices, rule, prefix):
    mask = ids != t5.PAD
    memory = model.apply({'params': params}, ids, mask, method='encode')
    decoded = decoding.generate(
      model.decoder,
      params['decoder'],
      memory,
      mask,
      keys(seed, indices, LATENTS),
      prefix=prefix,
      prefix_lengths=(prefix != t5.PAD).sum(1),
      num_tokens=num_tokens,
      rule=rule,
      grammar=grammar,
    )
    return ended(decoded.ids[:, :num_tokens])

  return sharding.jit(imagine, mesh, out_shardings=sharding.replicated(mesh))


def grammar(words: Vocabulary, config: Any) -> decoding.Grammar:
  """What latents look like: kinds in order, each as long as it may be.

  A model may have more rows than there are tokens: none of them is ever drawn.
  """
  allowed, full = words.grammar(dict(config.data.lengths))
  more = config.model.decoder.vocab_size - words.size
  allowed = np.pad(allowed, ((0, 0), (0, 0), (0, more)))
  return decoding.Grammar(allowed, full, words.separator)


def nothing(rows: int) -> Int32[np.ndarray, 'b 0']:
  """The prefix of who imagines everything."""
  return np.zeros((rows, 0), np.int32)


def ended(z: Int[Array, 'b m']) -> Int[Array, 'b m']:
  """What ran out of room ends there, as it does in training."""
  full = (z != t5.PAD).all(1) & (z != t5.EOS).all(1)
  return z.at[:, -1].set(jnp.where(full, t5.EOS, z[:, -1]))


def rule(sample: Any) -> decoding.SamplingRule:
  """How `config.sample` chooses tokens."""
  return decoding.SamplingRule(
    temperature=sample.temperature, top_k=sample.top_k, top_p=sample.top_p
  )


def captions(
  config: Any, words: Vocabulary, texts: Sequence[str]
) -> Int32[np.ndarray, 'b l']:
  """Token ids of captions."""
  length = config.data.caption_length
  return np.stack([words.encode_caption(text, length)[0] for text in texts])


def pictures(config: Any, xs: Images, *, strict: bool = False) -> np.ndarray:
  """What a person sees: uint8, at the highest resolution; points stay.

  strict: refuses what is not finite, which is grey otherwise.
  """
  x = np.asarray(jax.device_get(xs[0]))
  if strict and not np.isfinite(x).all():
    raise ValueError(
      'what was drawn is not finite: the parameters are not, or the sampler '
      'leaves all bounds; with a lower guidance, more steps, or '
      "threshold='clip' it may not."
    )
  if x.ndim < 4:
    return x
  return images.to_uint8(x, config.data.preprocess)


def keys(seed, indices, stream: int) -> Key[Array, ' b']:
  """One per row, for its latents or for its noise; rows may differ in seed."""

  def key(seed, index):
    return jax.random.fold_in(sampler.keys(seed, index[None])[0], stream)

  return jax.vmap(key)(jnp.broadcast_to(seed, indices.shape), indices)
