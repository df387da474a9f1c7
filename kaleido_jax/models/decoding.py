"""Sampling from the T5 decoder, one token at a time, with cached keys.

One executable serves every prompt of a bucket: lengths, temperature, top-k and
top-p are traced, only the padded sizes are static. Row i draws from its own
key, so that its tokens depend neither on the batch size nor on its neighbours.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from kaleido_jax.arrays import Array, Mask
from kaleido_jax.models import t5


@flax.struct.dataclass
class SamplingRule:
  """How to choose a token from its scores: scalars, which may be traced."""

  temperature: Any = 1.0  # 0: always the likeliest
  top_k: Any = 0  # keep so many of the likeliest; 0: all
  top_p: Any = 1.0  # keep the likeliest up to this mass

  def __post_init__(self):
    # Python numbers, and arrays made of them, are weakly typed: left as they
    # are, a rule of another kind would compile everything once more.
    for field, dtype in (
      ('temperature', np.float32),
      ('top_k', np.int32),
      ('top_p', np.float32),
    ):
      value = getattr(self, field)
      if isinstance(value, int | float):
        object.__setattr__(self, field, dtype(value))
      elif isinstance(value, jax.Array):
        object.__setattr__(self, field, jnp.asarray(value, dtype))


class Grammar(NamedTuple):
  """What may follow what, in sequences of parts.

  A part ends with a separator, the last one with EOS. `allowed[k, 0]` are the
  tokens of part k; `allowed[k, 1]` those that may come when it is full.
  """

  allowed: Any  # [k, 2, v] bool
  full: Any  # [k] int: lengths
  separator: int

  def mask(self, where: tuple[Int[Array, ' b'], Int[Array, ' b']]):
    part, count = where
    part = jnp.minimum(part, len(self.full) - 1)
    is_full = (count >= jnp.asarray(self.full)[part]).astype(jnp.int32)
    return jnp.asarray(self.allowed)[part, is_full]

  def start(
    self, prefix: Int[Array, 'b p'], lengths: Int[Array, ' b']
  ) -> tuple[Int[Array, ' b'], Int[Array, ' b']]:
    """(part, tokens in it) behind each prefix."""
    at = jnp.arange(prefix.shape[1])
    ends = (prefix == self.separator) & (at < lengths[:, None])
    last = jnp.where(ends, at + 1, 0).max(1, initial=0)
    return ends.sum(1), lengths - last

  def after(self, where, token: Int[Array, ' b']):
    part, count = where
    ends = token == self.separator
    return part + ends, jnp.where(ends, 0, count + 1)


class Decoded(NamedTuple):
  """Sequences with their prompts, packed to the left."""

  ids: Int[Array, 'b m']  # PAD after the end
  lengths: Int[Array, ' b']  # up to and with EOS, without the leading PAD
  states: Float[Array, 'b m d']  # that led to each id; zeros after the end


def bucket(length: int, multiple: int = 32) -> int:
  """The padded size for a length: few sizes, so few compilations."""
  return max(1, -(-length // multiple)) * multiple


def choose(
  keys: Key[Array, ' b'], logits: Float[Array, 'b v'], rule: SamplingRule
) -> Int[Array, ' b']:
  """Draws one token for every row."""
  return jax.lax.cond(
    rule.temperature > 0,
    lambda: _draw(keys, logits, rule),
    lambda: logits.argmax(-1),
  )


def _draw(
  keys: Key[Array, ' b'], logits: Float[Array, 'b v'], rule: SamplingRule
) -> Int[Array, ' b']:
  # PAD is no token: what follows one would be hidden from the denoiser.
  scores = logits.at[:, t5.PAD].set(-jnp.inf) / rule.temperature
  # Sorting a whole vocabulary is slow; the default rule does not need it.
  filtered = (rule.top_k > 0) | (rule.top_p < 1)
  scores = jax.lax.cond(filtered, _keep_likeliest, lambda s, _: s, scores, rule)
  # One random number per row, not one per token as Gumbel noise would take:
  # the first token at which the cumulative mass exceeds it.
  mass = jnp.cumsum(jax.nn.softmax(scores), axis=-1)
  uniform = jax.vmap(jax.random.uniform)(keys)
  threshold = uniform[:, None] * mass[:, -1:]
  # Sums of zeros may differ in the last bit: a token without mass never counts.
  reached = (mass > threshold) & (scores > -jnp.inf)
  return jnp.where(reached.any(-1), reached.argmax(-1), scores.argmax(-1))


def _keep_likeliest(
  scores: Float[Array, 'b v'], rule: SamplingRule
) -> Float[Array, 'b v']:
  ranked = jnp.sort(scores, axis=-1, descending=True)
  rank = jnp.arange(scores.shape[-1])
  top_k = jnp.where(rule.top_k > 0, rule.top_k, rank.size)
  probabilities = jax.nn.softmax(jnp.where(rank < top_k, ranked, -jnp.inf))
  # Keep a token if those before it do not reach top_p yet: always the first.
  before = jnp.cumsum(probabilities, -1) - probabilities
  kept = ((before < rule.top_p) & (rank < top_k)) | (rank == 0)
  lowest = jnp.where(kept, ranked, jnp.inf).min(-1, keepdims=True)
  return jnp.where(scores >= lowest, scores, -jnp.inf)


def generate(
  module: t5.T5,
  params: dict,
  memory: Float[Array, 'b l d'],
  memory_mask: Mask,
  keys: Key[Array, ' b'],
  *,
  prefix: Int[Array, 'b p'],
  prefix_lengths: Int[Array, ' b'],
  num_tokens: int,
  rule: SamplingRule,
  grammar: Grammar | None = None,
) -> Decoded:
  """Continues each prefix until EOS, or for `num_tokens` tokens.

  Args:
    module, params: a T5, of which the decoder half is used.
    memory, memory_mask: what the encoder made of the caption.
    keys: one typed key per row.
    prefix, prefix_lengths: tokens to begin with (without a leading PAD), padded
      on the right; a length may be 0.
    num_tokens: most tokens to add; static, as are all shapes.
    rule: how to choose tokens.
    grammar: among which; None is all.
  """

  def apply(method, *args):
    return module.apply({'params': params}, *args, method=method)

  if num_tokens < 1:
    raise ValueError(f'num_tokens={num_tokens} adds nothing; give 1 or more.')
  batch, size = prefix.shape
  inputs = jnp.pad(prefix, ((0, 0), (1, 0)), constant_values=t5.PAD)
  # The last token is written down, but not read again: no slot for it.
  states, cache = apply(
    'prefill',
    memory,
    memory_mask,
    inputs,
    prefix_lengths + 1,
    size + num_tokens,
  )
  rows = jnp.arange(batch)

  def extend(done: Decoded, state, running, count, where):
    """Chooses a token for every running row and writes it down."""
    # By the place of the token: what follows a prefix is drawn as if the row
    # itself had written it.
    step_keys = jax.vmap(jax.random.fold_in)(keys, prefix_lengths + count)
    logits = apply('logits', state)
    if grammar is not None:
      logits = jnp.where(grammar.mask(where), logits, -jnp.inf)
    token = choose(step_keys, logits, rule)
    if grammar is not None:
      where = grammar.after(where, token)
    # A finished row writes nothing: its index is outside, and is dropped.
    at = jnp.where(running, done.lengths, size + num_tokens)
    done = Decoded(
      ids=done.ids.at[rows, at].set(token, mode='drop'),
      lengths=done.lengths + running,
      states=done.states.at[rows, at].set(state, mode='drop'),
    )
    return done, token, running & (token != t5.EOS), where

  def unfinished(carry):
    _, _, running, _, _, count = carry
    return (count < num_tokens) & running.any()

  def body(carry):
    done, token, running, where, cache, count = carry
    state, cache = apply('step', token, cache)
    done, token, running, where = extend(done, state, running, count, where)
    return done, token, running, where, cache, count + 1

  # Generated tokens follow each row's own prefix, over its padding.
  kept = jnp.arange(size) < prefix_lengths[:, None]
  room = ((0, 0), (0, num_tokens))
  done = Decoded(
    ids=jnp.pad(jnp.where(kept, prefix, t5.PAD), room),
    lengths=prefix_lengths,
    states=jnp.pad(
      jnp.where(kept[..., None], states[:, :-1], 0), (*room, (0, 0))
    ),
  )
  running = ~(kept & (prefix == t5.EOS)).any(1)
  first = jnp.int32(0)
  where = grammar.start(prefix, prefix_lengths) if grammar is not None else ()
  done, token, running, where = extend(
    done, states[rows, prefix_lengths], running, first, where
  )
  carry = (done, token, running, where, cache, first + 1)
  done, *_ = jax.lax.while_loop(unfinished, body, carry)
  return done
