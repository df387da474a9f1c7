import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import packing
import pytest
from filling import filled

from kaleido_jax.convert import mdm
from kaleido_jax.models.unet import UNet
from kaleido_jax.models.unet_blocks import (
  Attention,
  Block,
  Condition,
  ConditionBlock,
  ResNet,
)

ATOL = 2e-5  # the reference itself differs from float64 by 1.6e-6


def nhwc(x):
  return np.moveaxis(x, 1, -1)


@pytest.fixture(scope='module')
def blocks(data):
  return packing.read(data / 'mdm/blocks.npz.xz')


@pytest.fixture(scope='module')
def forward(data):
  return packing.read(data / 'mdm/unet_tiny_forward.npz.xz')


def run(blocks, name, module, *args):
  """Applies a block with the weights of its fixture."""
  variables = jax.eval_shape(module.init, jax.random.key(0), *args)
  weights = {
    key.removeprefix(f'{name}/w/').replace('attn.', ''): value
    for key, value in blocks.items()
    if key.startswith(f'{name}/w/')
  }
  params = mdm.from_torch(variables['params'], weights)
  return module.apply({'params': params}, *args)


@pytest.mark.parametrize('small', [False, True])
def test_resnet_matches_the_reference(blocks, small):
  scale = blocks['small_scale'] if small else 1
  x, temb = nhwc(blocks['resnet/x']) * scale, blocks['resnet/temb']
  y = run(blocks, 'resnet', ResNet(96), x, temb)
  expected = blocks['resnet/y_small' if small else 'resnet/y']
  np.testing.assert_allclose(y, nhwc(expected), atol=ATOL)


@pytest.mark.parametrize('kind', ['y_mask', 'y_nomask', 'y_small'])
def test_attention_matches_the_reference(blocks, kind):
  scale = blocks['small_scale'] if kind == 'y_small' else 1
  mask = None if kind == 'y_nomask' else jnp.asarray(blocks['selfattn/mask'])
  condition = Condition(
    pooled=jnp.zeros((2, 1)),
    tokens=jnp.asarray(blocks['selfattn/cond'] * scale),
    mask=mask,
  )
  x = nhwc(blocks['selfattn/x']) * scale
  y = run(blocks, 'selfattn', Attention(ffn=True), x, condition)
  np.testing.assert_allclose(y, nhwc(blocks[f'selfattn/{kind}']), atol=ATOL)


@pytest.mark.parametrize('kind', ['y_mask', 'y_nomask', 'y_small'])
def test_condition_block_matches_the_reference(blocks, kind):
  scale = blocks['small_scale'] if kind == 'y_small' else 1
  mask = None if kind == 'y_nomask' else jnp.asarray(blocks['lmhead/mask'])
  x = blocks['lmhead/x'] * scale
  y = run(blocks, 'lmhead', ConditionBlock(), x, mask)
  np.testing.assert_allclose(y, blocks[f'lmhead/{kind}'], atol=ATOL)


def test_block_down_matches_the_reference(blocks):
  module = Block(32, num_resnets=1, resample='down')
  args = nhwc(blocks['down/x']), blocks['down/temb'], None
  y, record = run(blocks, 'down', module, *args)
  np.testing.assert_allclose(y, nhwc(blocks['down/y']), atol=ATOL)
  np.testing.assert_allclose(record[0], nhwc(blocks['down/act0']), atol=ATOL)
  assert record[1] is y


def test_block_up_matches_the_reference(blocks):
  module = Block(32, num_resnets=2, resample='up')
  skips = tuple(
    jnp.asarray(nhwc(blocks[f'up/skip_{name}'])) for name in ('first', 'second')
  )
  args = nhwc(blocks['up/x']), blocks['up/temb'], None, skips
  y, _ = run(blocks, 'up', module, *args)
  np.testing.assert_allclose(y, nhwc(blocks['up/y']), atol=ATOL)


def variant(data, forward, name):
  """The network and the arguments of one fixture."""
  config = json.loads((data / 'mdm/unet_tiny_config.json').read_text())
  weights = packing.read(data / 'mdm/unet_tiny_weights.npz.xz')
  if 'masked0' in name:
    config['masked_cross_attention'] = 0
  if 'lm0' in name:
    config['num_lm_head_layers'] = 0
    weights = {k: v for k, v in weights.items() if not k.startswith('lm_head')}
  x = forward['rect/in_x' if name == 'rect' else 'in/x']
  mask = None if name == 'nomask' else forward['in/lm_mask']
  micros = {'scale': forward['in/micro_scale']} if 'micro' in name else None
  args = (nhwc(x),), forward['in/times'], forward['in/lm_features'], mask
  return mdm.load(config, weights), (*args, micros)


@pytest.mark.parametrize(
  'name',
  [
    'masked1',
    'masked1_micro',
    'nomask',
    'masked0',
    'rect',
    'released_masked0_lm0',
  ],
)
def test_unet_matches_the_reference(data, forward, name):
  (module, params), args = variant(data, forward, name)
  (y,) = jax.jit(module.apply)({'params': params}, *args)
  np.testing.assert_allclose(y, nhwc(forward[f'{name}/out']), atol=ATOL)
  if f'{name}/cond_emb' in forward:
    pooled, tokens, _ = module.apply(
      {'params': params},
      *args[2:4],
      method=lambda unet, y, mask: unet.condition(unet.project(y), mask),
    )
    np.testing.assert_allclose(pooled, forward[f'{name}/cond_emb'], atol=ATOL)
    expected = forward[f'{name}/conditioning']
    np.testing.assert_allclose(tokens, expected, atol=ATOL)


@pytest.fixture(scope='module')
def tiny(data, forward):
  (module, params), args = variant(data, forward, 'masked1')
  return module, params, args


@pytest.fixture(scope='module')
def tiny_output(tiny):
  module, params, args = tiny
  return jax.jit(module.apply)({'params': params}, *args)[0]


def unet(**kwargs):
  fields = dict(
    channels=(32,), num_resnets=(1,), num_attention=(0,), embedding_dim=32
  )
  return UNet(**fields | kwargs)


def test_an_all_padding_row_is_finite_and_so_are_its_gradients():
  module = unet(
    num_attention=(1,),
    condition_dim=16,
    num_condition_blocks=1,
    middle_blocks=False,
  )
  xs = (jax.random.normal(jax.random.key(1), (2, 4, 4, 3)),)
  features, times = jnp.ones((2, 3, 5)), jnp.zeros(2)
  mask = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
  params = filled(module.init, xs, times, features, mask)['params']

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def total(params, features):
    (y,) = module.apply({'params': params}, xs, times, features, mask)
    return jnp.square(y).sum(), y

  (_, y), gradients = total(params, features)
  assert jnp.isfinite(y).all()
  assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradients))
  np.testing.assert_array_equal(gradients[1][1], 0)
  assert jnp.abs(gradients[1][0, :2]).min() > 0
  # What stands in the padding of an empty row is of no consequence.
  (_, same), _ = total(params, features.at[1].set(9.0))
  np.testing.assert_array_equal(y, same)


@pytest.mark.parametrize('dtype', [bool, np.int64, np.float64])
def test_a_mask_may_have_any_type(dtype):
  module = unet(num_attention=(1,), middle_blocks=False)
  args = (jnp.zeros((2, 4, 4, 3)),), np.array([0, 9]), jnp.ones((2, 3, 8))
  mask = np.array([[1, 1, 0], [1, 0, 0]], dtype)
  jax.eval_shape(
    lambda *args: module.init(jax.random.key(0), *args), *args, mask, {}
  )


def test_padding_changes_nothing(tiny, tiny_output):
  module, params, (xs, times, features, mask, _) = tiny
  features = np.pad(features, ((0, 0), (0, 3), (0, 0)), constant_values=9.0)
  mask = np.pad(mask, ((0, 0), (0, 3)))
  (y,) = jax.jit(module.apply)({'params': params}, xs, times, features, mask)
  np.testing.assert_allclose(y, tiny_output, atol=5e-6)


def test_bfloat16_computes_nearly_the_same_and_returns_float32(
  tiny, tiny_output
):
  module, params, args = tiny
  (y,) = jax.jit(module.clone(dtype='bfloat16').apply)(
    {'params': params}, *args
  )
  assert y.dtype == jnp.float32
  error = jnp.abs(y - tiny_output).mean() / jnp.abs(tiny_output).mean()
  assert 1e-4 < error < 0.05  # rounded, but not more


@pytest.mark.parametrize('remat', ['full', 'dots'])
def test_remat_keeps_fewer_numbers_and_gives_the_same_gradients(remat):
  module = unet(num_resnets=(2,), conditional=False, middle_blocks=False)
  xs, times = (jax.random.normal(jax.random.key(1), (1, 8, 8, 3)),), jnp.ones(1)
  params = filled(module.init, xs, times)['params']

  def total(module, params):
    return module.apply({'params': params}, xs, times)[0].sum()

  def kept(module):
    residuals = jax.eval_shape(
      lambda params: jax.vjp(functools.partial(total, module), params)[1],
      params,
    )
    return sum(leaf.size for leaf in jax.tree.leaves(residuals))

  saving = module.clone(remat=remat)
  assert kept(saving) < 0.5 * kept(module)
  gradient = jax.jit(jax.grad(total, argnums=1), static_argnums=0)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
    gradient(module, params),
    gradient(saving, params),
  )


def test_dropout_acts_only_with_its_key():
  module = unet(conditional=False, dropout=0.5, middle_blocks=False)
  xs = (jax.random.normal(jax.random.key(1), (1, 8, 8, 3)),)
  params = filled(module.init, xs, jnp.zeros(1))['params']

  @jax.jit
  def run(**rngs):
    return module.apply({'params': params}, xs, jnp.zeros(1), rngs=rngs)[0]

  quiet = run()
  one, other = (run(dropout=jax.random.key(i)) for i in range(2))
  assert (quiet == run()).all()
  assert (one != other).any() and (one != quiet).any()


@pytest.mark.parametrize(
  'module, kwargs, message',
  [
    (unet(), {}, 'is conditional: give it features'),
    (
      unet(conditional=False),
      {'micros': {'scael': jnp.ones(1)}},
      r"unknown micro-conditions \['scael'\]",
    ),
    (
      unet(conditional=False),
      {'xs': (jnp.zeros((1, 8, 8, 3)),) * 2},
      '2 images were given; nest it in a NestedUNet',
    ),
    (unet(num_resnets=(1, 2)), {}, 'need one entry per resolution'),
    (
      unet(channels=(32,) * 3, num_resnets=(1,) * 3, num_attention=(0,) * 3),
      {'xs': (jnp.zeros((1, 6, 8, 3)),), 'features': jnp.zeros((1, 1, 4))},
      'images of 6x8 cannot be halved 2 times.*multiples of 4',
    ),
  ],
)
def test_misuse_is_explained(module, kwargs, message):
  kwargs = {'xs': (jnp.zeros((1, 8, 8, 3)),), 'times': jnp.zeros(1)} | kwargs
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      lambda kwargs: module.init(jax.random.key(0), **kwargs), kwargs
    )
