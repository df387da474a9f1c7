import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models

from kaleido_jax.models import decoding, t5
from kaleido_jax.models.decoding import SamplingRule

GREEDY = SamplingRule(temperature=0.0)
KEYS = jax.random.split(jax.random.key(0), 4)
PREFIX = np.random.default_rng(0).integers(2, 96, (4, 6)).astype(np.int32)
LENGTHS = np.array([0, 6, 3, 1], np.int32)


@functools.partial(
  t5_models.jit, static_argnums=0, static_argnames='num_tokens'
)
def generate(module, *args, num_tokens=24, **kwargs) -> decoding.Decoded:
  return decoding.generate(module, *args, num_tokens=num_tokens, **kwargs)


@functools.cache
def memory_of(version: str):
  """Encoder states of rows of 11, 6, 3 and 1 tokens, and their mask."""
  memory, *_ = t5_models.run_golden(version, 'ragged')
  return memory, t5_models.golden(version)['ragged/attention_mask']


def decode(
  version='v1_1',
  *,
  prefix=PREFIX,
  lengths=LENGTHS,
  rule=SamplingRule(),  # noqa: B008
  keys=KEYS,
  memory=None,
  **kwargs,
) -> decoding.Decoded:
  module, params = t5_models.load(version)
  return generate(
    module,
    params,
    *(memory or memory_of(version)),
    keys,
    prefix=prefix,
    prefix_lengths=lengths,
    rule=rule,
    **kwargs,
  )


@pytest.fixture(scope='module')
def sampled():
  """Ragged prefixes, one empty, of which some rows end and some do not."""
  return jax.device_get(decode())


def end_of(row) -> int:
  """Where a row's tokens end: behind the first EOS, or nowhere."""
  found = np.flatnonzero(row == t5.EOS)
  return found[0] + 1 if found.size else len(row)


@pytest.mark.parametrize('version', t5_models.VERSIONS)
def test_greedy_tokens_are_those_of_transformers(version):
  expected = t5_models.golden(version)['ragged/generated'][:, 1:]
  nothing = np.zeros(4, np.int32)
  found = decode(version, lengths=nothing, rule=GREEDY)
  np.testing.assert_array_equal(found.ids[:, :24], expected)
  np.testing.assert_array_equal(found.ids[:, 24:], t5.PAD)
  ends = [end_of(row) for row in expected]
  np.testing.assert_array_equal(found.lengths, ends)
  assert min(ends) < 24 == max(ends)


def test_a_prefix_of_greedy_tokens_is_continued_as_if_it_were_not_given():
  expected = t5_models.golden('v1_1')['ragged/generated'][:, 1:]
  found = decode(prefix=expected[:, :6], rule=GREEDY)
  for row, other in zip(found.ids, expected, strict=True):
    np.testing.assert_array_equal(row[:24], other)


def test_a_row_goes_on_from_its_own_beginning_as_it_did(sampled):
  """What is drawn depends on the place of a token, not on who wrote before."""
  lengths = np.minimum(np.asarray(LENGTHS) + 3, sampled.lengths - 1)
  again = decode(prefix=sampled.ids[:, : lengths.max()], lengths=lengths)
  for row, other, end in zip(
    sampled.ids, again.ids, sampled.lengths, strict=True
  ):
    np.testing.assert_array_equal(row[:end], other[:end])


def test_sampled_states_equal_those_of_the_tokens_read_again(sampled):
  """Cached decoding = the whole decoder, from ragged prefixes and memories."""
  shifted = np.pad(sampled.ids, ((0, 0), (1, 0)))[:, :-1]
  module, params = t5_models.load('v1_1')

  @t5_models.jit
  def read(params, memory, mask, ids):
    variables = {'params': params}
    return module.apply(variables, memory, mask, ids, method='decode')

  states, _ = read(params, *memory_of('v1_1'), shifted)
  written = np.arange(shifted.shape[1]) < sampled.lengths[:, None]
  expected = np.where(written[..., None], states, 0)
  assert len(set(sampled.lengths)) > 2
  np.testing.assert_allclose(sampled.states, expected, rtol=0, atol=1e-4)


def test_sequences_hold_their_prefix_and_end_at_eos(sampled):
  for row, length, prefix, given in zip(
    sampled.ids, sampled.lengths, PREFIX, LENGTHS, strict=True
  ):
    np.testing.assert_array_equal(row[:given], prefix[:given])
    assert length == min(end_of(row), given + 24)
    np.testing.assert_array_equal(row[length:], t5.PAD)


def test_steps_equal_transformers_beyond_the_last_bucket():
  golden = t5_models.golden('v1_1')
  module, params = t5_models.load('v1_1')
  ids = golden['long/decoder_input_ids']  # 1 row of 140
  memory, *_ = t5_models.run_golden('v1_1', 'long')
  mask = golden['long/attention_mask']

  @t5_models.jit
  def read(params):
    variables = {'params': params}
    states, cache = module.apply(
      variables, memory, mask, ids[:, :8], jnp.array([5]), 143, method='prefill'
    )

    def step(cache, token):
      state, cache = module.apply(variables, token, cache, method='step')
      return cache, state

    # From position 5 on, though the prefill had 8: three slots stay unused.
    cache, later = jax.lax.scan(step, cache, ids[:, 5:].T)
    return cache, jnp.concatenate([states[0, :5], later[:, 0]])

  cache, states = read(params)
  np.testing.assert_allclose(states, golden['long/decoded'][0], atol=1e-4)
  assert cache.positions[0].tolist() == [*range(5), -1, -1, -1, *range(5, 140)]


def test_a_row_that_has_ended_is_left_as_it_is():
  prefix = PREFIX.copy()
  prefix[1, 4:] = t5.EOS, 50  # what follows EOS in a prefix is kept as well
  prefix[2, 2] = t5.EOS
  found = decode(prefix=prefix, rule=GREEDY)
  for i in (1, 2):
    assert found.lengths[i] == LENGTHS[i]
    np.testing.assert_array_equal(
      found.ids[i, : LENGTHS[i]], prefix[i, : LENGTHS[i]]
    )
    np.testing.assert_array_equal(found.ids[i, LENGTHS[i] :], t5.PAD)
    np.testing.assert_array_equal(found.states[i, LENGTHS[i] :], 0)
    assert jnp.abs(found.states[i, : LENGTHS[i]]).sum(-1).min() > 0
  plain = decode(rule=GREEDY)
  for i in (0, 3):
    np.testing.assert_array_equal(found.ids[i], plain.ids[i])


def test_no_step_is_taken_once_every_row_has_ended(monkeypatch):
  """Two rows of transformers' golden tokens end, after 5 and 8 tokens."""
  steps = []

  def choose(keys, logits, rule):
    jax.debug.callback(lambda: steps.append(1))
    return original(keys, logits, rule)

  original = decoding.choose
  monkeypatch.setattr(decoding, 'choose', choose)
  module, params = t5_models.load('v1_1')

  @t5_models.jit
  def generate(params, memory, mask):
    return decoding.generate(
      module,
      params,
      memory,
      mask,
      KEYS[:2],
      prefix=PREFIX[:2],
      prefix_lengths=np.zeros(2, np.int32),
      num_tokens=24,
      rule=GREEDY,
    )

  found = generate(params, *(x[1:3] for x in memory_of('v1_1')))
  jax.effects_barrier()
  assert found.lengths.tolist() == [5, 8]
  assert len(steps) == 8


def test_a_row_depends_neither_on_the_batch_size_nor_on_its_neighbours(sampled):
  memory, mask = memory_of('v1_1')
  for rows in ([2], [2, 0, 1, 2, 3], [3, 2, 1, 0]):
    found = decode(
      prefix=PREFIX[rows],
      lengths=LENGTHS[rows],
      keys=KEYS[np.array(rows)],
      memory=(memory[rows], mask[rows]),
    )
    for i, row in enumerate(rows):
      np.testing.assert_array_equal(found.ids[i], sampled.ids[row])
      np.testing.assert_allclose(
        found.states[i], sampled.states[row], rtol=0, atol=5e-5
      )


def test_other_keys_draw_other_tokens(sampled):
  other = decode(keys=jax.random.split(jax.random.key(1), 4))
  assert all(
    (a != b).any() for a, b in zip(other.ids, sampled.ids, strict=True)
  )


@pytest.mark.parametrize(
  'rule',
  [SamplingRule(top_k=1), SamplingRule(top_p=1e-6), SamplingRule(top_p=0.0)],
  ids=['top_k', 'top_p', 'no_p'],
)
def test_a_rule_that_leaves_one_token_is_greedy(rule):
  np.testing.assert_array_equal(decode(rule=rule).ids, decode(rule=GREEDY).ids)


def test_padding_of_a_prefix_changes_nothing(sampled):
  prefix = np.where(np.arange(6) < LENGTHS[:, None], PREFIX, 77)
  prefix = np.pad(prefix, ((0, 0), (0, 3)), constant_values=t5.EOS)
  found = decode(prefix=prefix)
  np.testing.assert_array_equal(found.ids[:, :30], sampled.ids)
  np.testing.assert_array_equal(found.lengths, sampled.lengths)


def test_a_row_without_memory_is_decoded_to_finite_states():
  memory, mask = memory_of('v1_1')
  found = decode(memory=(memory, np.where(np.arange(4) == 1, 0, mask.T).T))
  assert jnp.isfinite(found.states).all()


def allowed(logits, temperature, top_k, top_p):
  """The tokens that may be drawn, and how often, one by one."""
  # PAD, 0, is no token.
  weights = {i: np.exp(x / temperature) for i, x in enumerate(logits) if i > 0}
  order = sorted(weights, key=weights.get, reverse=True)[: top_k or None]
  total, mass, kept = sum(weights[i] for i in order), 0.0, []
  for i in order:
    kept.append(i)
    mass += weights[i] / total
    if mass >= top_p:
      break
  total = sum(weights[i] for i in kept)
  return {i: weights[i] / total for i in kept}


@pytest.mark.parametrize(
  'temperature, top_k, top_p',
  [
    (1.0, 0, 1.0),
    (0.5, 0, 1.0),
    (3.0, 0, 1.0),
    (1.0, 3, 1.0),
    (1.0, 99, 1.0),  # more than there are
    (1.0, 0, 0.7),
    (2.0, 0, 0.9),
    (1.0, 4, 0.8),
  ],
)
def test_tokens_are_drawn_as_often_as_the_rule_says(temperature, top_k, top_p):
  num = 20_000
  logits = np.random.default_rng(1).normal(0, 1.5, 12).astype(np.float32)
  rule = SamplingRule(temperature=temperature, top_k=top_k, top_p=top_p)
  tokens = choose_many(logits, rule)
  expected = allowed(logits.astype(float), temperature, top_k, top_p)
  assert set(np.unique(tokens)) <= set(expected)
  for token, p in expected.items():
    error = 5 * (p * (1 - p) / num) ** 0.5  # five standard errors
    assert abs((tokens == token).mean() - p) <= error


@t5_models.jit
def choose_many(logits, rule):
  keys = jax.random.split(jax.random.key(0), 20_000)
  return decoding.choose(keys, jnp.tile(logits, (20_000, 1)), rule)


def test_nothing_is_compiled_again_within_a_bucket():
  compiled = []

  def listen(event, duration, **kwargs):
    if event.endswith(('backend_compile_duration', 'jaxpr_trace_duration')):
      compiled.append((event, kwargs))

  def call(prompts, rule):
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    prefix = np.zeros((4, decoding.bucket(int(lengths.max()), 8)), np.int32)
    for row, prompt in zip(prefix, prompts, strict=True):
      row[: len(prompt)] = prompt
    return decode(prefix=prefix, lengths=lengths, rule=rule, num_tokens=4)

  call([[5], [6, 7], [], [8, 9, 10]], SamplingRule())
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for rule in (
      SamplingRule(temperature=0),
      SamplingRule(temperature=0.7, top_k=5),
      SamplingRule(temperature=np.float32(2), top_p=0.9),
      SamplingRule(
        temperature=jax.device_put(np.float32(0.1)),
        top_k=jax.device_put(np.int32(3)),
        top_p=jax.device_put(np.float32(0.5)),
      ),
    ):
      call([[5] * 8, [6], [7] * 3, []], rule)
      assert not compiled
    call([[5] * 9, [6], [7] * 3, []], SamplingRule())  # the next bucket
    assert compiled
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def test_buckets_are_whole_multiples_and_never_empty():
  sizes = [decoding.bucket(length) for length in (0, 1, 32, 33, 64)]
  assert sizes == [32, 32, 32, 64, 64]
  assert decoding.bucket(9, 8) == 16


def test_no_tokens_to_add_is_refused():
  ids = jnp.zeros((1, 1), jnp.int32)
  module = t5.T5(t5_models.tiny())
  with pytest.raises(ValueError, match='num_tokens=0 adds nothing'):
    decoding.generate(
      module,
      {},
      jnp.zeros((1, 1, 16)),
      ids,
      jax.random.split(jax.random.key(0), 1),
      prefix=ids,
      prefix_lengths=ids[0],
      num_tokens=0,
      rule=SamplingRule(),
    )
