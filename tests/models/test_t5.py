import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models
from flax import traverse_util

from kaleido_jax.models import t5
from kaleido_jax.models.t5_layers import T5Config

INPUTS = ('input_ids', 'attention_mask', 'decoder_input_ids')


@pytest.fixture(scope='module')
def ragged():
  """Module, parameters, and inputs with rows of 11, 6, 3 and 1 tokens."""
  golden = t5_models.golden('v1_1')
  return *t5_models.load('v1_1'), *(golden[f'ragged/{n}'] for n in INPUTS)


@pytest.fixture(scope='module', params=t5_models.VERSIONS)
def t5x(data, request):
  """Configuration, T5X's parameters under its own names, all golden arrays."""
  file = {'v1_0': 'golden_minimal_v1_0.npz', 'v1_1': 'golden.npz'}
  arrays = dict(np.load(data / 't5x/golden.npz'))
  own = dict(np.load(data / 't5x' / file[request.param]))
  v1_0 = request.param == 'v1_0'
  config = T5Config(
    vocab_size=64,
    width=16,
    num_heads=2,
    head_dim=8,
    mlp_dim=32,
    num_encoder_layers=2 if v1_0 else 3,
    num_decoder_layers=2 if v1_0 else 3,
    mlp='relu' if v1_0 else 'gated-gelu',
    tied_head=v1_0,
  )
  return config, {k: v for k, v in own.items() if '/' in k}, arrays | own


@pytest.mark.parametrize('batch', ['ragged', 'medium', 'long'])
@pytest.mark.parametrize('version', t5_models.VERSIONS)
def test_states_and_logits_are_those_of_transformers(version, batch):
  golden = t5_models.golden(version)
  encoded, decoded, logits = t5_models.run_golden(version, batch)
  mask = golden[f'{batch}/attention_mask'][..., None]
  # Ours are zeros at padding, where transformers leaves what it computed.
  for found, expected in (
    (encoded, golden[f'{batch}/encoded'] * mask),
    (decoded, golden[f'{batch}/decoded']),
    (logits, golden[f'{batch}/logits']),
  ):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_parameters_have_the_names_and_shapes_of_t5x(t5x):
  config, theirs, _ = t5x
  ours = {}
  shapes = t5.abstract_params(t5.T5(config))
  for name, leaf in traverse_util.flatten_dict(shapes, sep='/').items():
    if '/layers/' not in name:
      ours[name] = leaf.shape
      continue
    for i in range(leaf.shape[0]):
      ours[name.replace('/layers/', f'/layers_{i}/')] = leaf.shape[1:]
  assert ours == {name: value.shape for name, value in theirs.items()}


def test_logits_are_those_of_t5x(t5x):
  config, theirs, golden = t5x
  layers = {}
  for name in sorted(theirs):  # fewer than ten layers: in their order
    ours = re.sub(r'/layers_\d/', '/layers/', name)
    layers.setdefault(ours, []).append(theirs[name])
  params = {
    name: np.stack(parts) if '/layers/' in name else parts[0]
    for name, parts in layers.items()
  }
  params = traverse_util.unflatten_dict(params, sep='/')
  ids = golden['encoder_input_tokens']
  encoded, _, logits = t5_models.run(
    t5.T5(config), params, ids, ids > 0, golden['decoder_input_tokens']
  )
  expected = golden['encoded'] * (ids > 0)[..., None]
  np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-5)
  np.testing.assert_allclose(logits, golden['logits'], rtol=0, atol=1e-5)


def test_nothing_later_influences_an_earlier_state_or_logit(ragged):
  module, params, *_ = ragged
  keys = jax.random.split(jax.random.key(0), 4)
  x = jax.random.normal(keys[0], (1, 6, 32))
  memory = jax.random.normal(keys[1], (1, 3, 32))
  # One number for all features of a state, and for all logits.
  features = jax.random.normal(keys[2], (32,))
  tokens = jax.random.normal(keys[3], (96,))

  @t5_models.jit
  @jax.jacrev
  def influence(x):
    def decode(module):
      states = module.decoder(x, memory, jnp.ones((1, 3), bool))
      return states[0] @ features, module.logits(states)[0] @ tokens

    return module.apply({'params': params}, method=decode)

  for jacobian in influence(x):
    reach = jnp.abs(jacobian[:, 0]).sum(-1)  # output position, input position
    np.testing.assert_array_equal(jnp.triu(reach, 1), 0)
    assert reach[jnp.tril_indices(6)].min() > 1e-3


def test_what_stands_at_padding_changes_nothing(ragged):
  module, params, ids, mask, targets = ragged
  garbage = np.where(mask > 0, ids, 1 + ids[:, ::-1] % 7)
  assert (garbage != ids).any()
  plain = t5_models.run(module, params, ids, mask, targets)
  other = t5_models.run(module, params, garbage, mask, targets)
  for a, b in zip(plain, other, strict=True):
    np.testing.assert_array_equal(a, b)
  np.testing.assert_array_equal(plain[0][mask == 0], 0)


def test_more_padding_changes_nothing(ragged):
  module, params, ids, mask, targets = ragged
  more = np.pad(ids, ((0, 0), (0, 5)), constant_values=7)
  more_mask = np.pad(mask, ((0, 0), (0, 5)))
  plain = t5_models.run(module, params, ids, mask, targets)
  other = t5_models.run(module, params, more, more_mask, targets)
  np.testing.assert_allclose(other[0][:, :11], plain[0], atol=1e-5)
  for a, b in zip(plain[1:], other[1:], strict=True):
    np.testing.assert_allclose(a, b, atol=5e-5)


def test_a_row_of_nothing_but_padding_is_finite_with_its_gradient(ragged):
  module, params, ids, mask, targets = ragged
  mask = mask.copy()
  mask[1] = 0

  def loss(params):
    variables = {'params': params}
    memory = module.apply(variables, ids, mask, method='encode')
    outputs = module.apply(variables, memory, mask, targets, method='decode')
    return sum(jnp.square(y).mean() for y in outputs), (memory, *outputs)

  gradient, outputs = t5_models.jit(jax.grad(loss, has_aux=True))(params)
  assert all(jnp.isfinite(y).all() for y in jax.tree.leaves(outputs))
  assert all(jnp.isfinite(y).all() for y in jax.tree.leaves(gradient))
  alone = t5_models.run_golden('v1_1', 'ragged')
  np.testing.assert_allclose(outputs[2][0], alone[2][0], atol=5e-5)


# hf.co/google/t5-v1_1-*: what their files hold.
@pytest.mark.parametrize(
  'name, expected',
  [
    ('small', 76_961_152),
    ('base', 247_577_856),
    ('large', 783_150_080),
    ('xl', 2_849_757_184),
    ('xxl', 11_135_332_352),
  ],
)
def test_parameter_counts_of_v1_1_are_the_public_ones(name, expected):
  config = t5.size(name)
  held = sum(array.nbytes for array in jax.live_arrays())
  leaves = jax.tree.leaves(t5.abstract_params(t5.T5(config)))
  # Nothing is allocated but the shapes.
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
  assert sum(array.nbytes for array in jax.live_arrays()) < held + 2**20
  assert sum(leaf.size for leaf in leaves) == expected
  assert sum(leaf.size for leaf in leaves) == counted(config)


def counted(c: T5Config) -> int:
  """The number of parameters, from the paper's description."""
  attention = 4 * c.width * c.num_heads * c.head_dim
  mlp = (3 if c.mlp == 'gated-gelu' else 2) * c.width * c.mlp_dim
  return (
    (1 if c.tied_head else 2) * c.vocab_size * c.width
    + c.num_encoder_layers * (attention + mlp + 2 * c.width)
    + c.num_decoder_layers * (2 * attention + mlp + 3 * c.width)
    + 2 * (c.num_heads * c.num_buckets + c.width)
  )


# hf.co/google-t5/*: (width, heads, head size, MLP width, layers).
@pytest.mark.parametrize(
  'sizes, expected',
  [
    ((512, 8, 64, 2048, 6), 60_506_624),
    ((768, 12, 64, 3072, 12), 222_903_552),
    ((1024, 16, 64, 4096, 24), 737_668_096),
    ((1024, 32, 128, 16384, 24), 2_851_598_336),
    ((1024, 128, 128, 65536, 24), 11_307_321_344),
  ],
)
def test_parameter_counts_of_v1_0_are_the_public_ones(sizes, expected):
  width, num_heads, head_dim, mlp_dim, layers = sizes
  config = T5Config(
    width=width,
    num_heads=num_heads,
    head_dim=head_dim,
    mlp_dim=mlp_dim,
    num_encoder_layers=layers,
    num_decoder_layers=layers,
    mlp='relu',
    tied_head=True,
  )
  leaves = jax.tree.leaves(t5.abstract_params(t5.T5(config)))
  assert sum(leaf.size for leaf in leaves) == expected == counted(config)


def test_one_half_has_the_embedding_and_its_own_parameters_only():
  module = t5.T5(t5_models.tiny())
  whole = t5.abstract_params(module)
  for half in ('encoder', 'decoder'):
    params = t5.abstract_params(module, (half,))
    assert params == {k: whole[k] for k in ('token_embedder', half)}


def test_initial_values_spread_as_in_t5x():
  """Mesh Tensorflow's: the usual scale of attention is folded into q."""
  config = t5_models.tiny(width=64, num_heads=16, head_dim=4, mlp_dim=256)
  init = t5_models.jit(lambda key: t5.init_params(t5.T5(config), key))
  params = init(jax.random.key(0))
  layers = params['decoder']['layers']
  for leaf, variance in (
    (params['token_embedder']['embedding'], 1),
    (params['decoder']['logits_dense']['kernel'], 1 / 64),
    (layers['self_attention']['query']['kernel'], 1 / (64 * 4)),
    (layers['encoder_decoder_attention']['key']['kernel'], 1 / 64),
    (layers['self_attention']['out']['kernel'], 1 / 64),
    (layers['mlp']['wi_0']['kernel'], 1 / 64),
    (layers['mlp']['wo']['kernel'], 1 / 256),
  ):
    np.testing.assert_allclose(leaf.std(), variance**0.5, rtol=0.05)
  # Layers of a stack are drawn apart.
  assert len(np.unique(layers['mlp']['wo']['kernel'][:, 0, 0])) == 4


def test_an_encoder_knows_which_words_stand_together_before_it_learns():
  """A linear map of a noun's state tells its adjective from another noun's."""
  config = t5_models.tiny(width=128, num_heads=4, num_encoder_layers=1)
  module = t5.T5(config)
  params = t5.init_params(module, jax.random.key(0), ('encoder',))
  rng = np.random.default_rng(0)
  a, conjunction, first = 2, 3, 4
  adjectives, nouns = rng.integers(8, size=(2, 3000, 2))
  ids = np.full((3000, 8), t5.EOS)
  ids[:, [0, 4]], ids[:, 3] = a, conjunction
  ids[:, [1, 5]], ids[:, [2, 6]] = first + adjectives, first + 8 + nouns

  def told(params) -> float:
    states = t5_models.jit(
      lambda params: module.apply(
        {'params': params}, ids, ids > 0, method='encode'
      )
    )(params)
    states = np.asarray(states[:, [2, 6]]).reshape(-1, 128)
    labels = adjectives.reshape(-1)
    probe, *_ = np.linalg.lstsq(states[:4000], np.eye(8)[labels[:4000]])
    return np.mean((states[4000:] @ probe).argmax(-1) == labels[4000:])

  assert told(params) > 0.95
  flat = traverse_util.flatten_dict(params)
  flat['encoder', 'relpos_bias', 'rel_embedding'] *= 0  # all as near
  assert told(traverse_util.unflatten_dict(flat)) < 0.65


def test_bfloat16_keeps_the_residual_stream_float32_and_finite(ragged):
  module, params, ids, mask, targets = ragged
  # A state that bfloat16 can only round to multiples of 2**13, and float16 not
  # hold at all; products that grow as fast.
  large = jax.tree.map(lambda x: 10 * x, params)
  large['token_embedder']['embedding'] *= 1e5
  half = t5.T5(dataclasses.replace(module.config, dtype='bfloat16'))
  types = {}

  def watch(call, args, kwargs, context):
    y = call(*args, **kwargs)
    name = type(context.module).__name__
    kept = types.setdefault((name, context.method_name), set())
    kept |= {x.dtype.name for x in jax.tree.leaves(y) if hasattr(x, 'shape')}
    return y

  with nn.intercept_methods(watch):
    outputs = t5_models.run(half, large, ids, mask, targets)
  assert all(jnp.isfinite(y).all() for y in outputs)
  assert types['EncoderLayer', '__call__'] == {'float32'}
  assert types['DecoderLayer', '__call__'] == {'float32'}
  assert types['MLP', '__call__'] == {'bfloat16'}
  assert [y.dtype for y in outputs] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize('version', t5_models.VERSIONS)
def test_bfloat16_is_close_to_float32_and_its_logits_are_float32(version):
  module, params = t5_models.load(version)
  half = t5.T5(dataclasses.replace(module.config, dtype='bfloat16'))
  golden = t5_models.golden(version)
  found = t5_models.run(half, params, *(golden[f'ragged/{n}'] for n in INPUTS))
  for a, b in zip(found, t5_models.run_golden(version, 'ragged'), strict=True):
    error = np.linalg.norm(a.astype(jnp.float32) - b) / np.linalg.norm(b)
    assert error < 0.05
  assert found[2].dtype == jnp.float32
  # Nor are they rounded to bfloat16 before.
  assert (found[2] != found[2].astype(jnp.bfloat16)).mean() > 0.9


def test_what_cannot_be_built_is_refused():
  with pytest.raises(ValueError, match="unknown T5 size 'xxxl'.*'xxl'"):
    t5.size('xxxl')
  with pytest.raises(ValueError, match="mlp='gelu' is neither 'relu' nor"):
    t5_models.tiny(mlp='gelu')
  with pytest.raises(ValueError, match='frozen_layers=5.*0.*decoder_layers=4'):
    t5_models.tiny(frozen_layers=5)
