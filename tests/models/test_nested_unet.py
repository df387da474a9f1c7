import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import packing
import pytest
from filling import filled
from flax import traverse_util

from kaleido_jax.convert import mdm
from kaleido_jax.models import nested_unet
from kaleido_jax.models.nested_unet import NestedUNet
from kaleido_jax.models.unet import UNet

ATOL = 2e-5  # the reference itself differs from float64 by 1.6e-6


def nhwc(x):
  return np.moveaxis(x, 1, -1)


@pytest.fixture(scope='module')
def forward(data):
  return packing.read(data / 'mdm/nested_tiny_forward.npz.xz')


@pytest.fixture(scope='module')
def inputs(forward):
  xs = tuple(nhwc(forward[f'in/x_{name}']) for name in ('hi', 'lo'))
  mask = forward['in/lm_mask']
  return xs, forward['in/times'], forward['in/lm_features'], mask


@pytest.fixture(scope='module')
def apply():
  return jax.jit(lambda module, params, *args: module.apply(
    {'params': params}, *args
  ), static_argnums=0)  # fmt: skip


def check(forward, name, outputs):
  for output, size in zip(outputs, ('hi', 'lo'), strict=True):
    expected = nhwc(forward[f'{name}/out_{size}'])
    np.testing.assert_allclose(output, expected, atol=ATOL)


def test_nested_unet_matches_the_reference(nested_tiny, forward, inputs, apply):
  check(forward, 'masked1', apply(*nested_tiny, *inputs))


def test_micro_conditions_match_the_reference(
  nested_tiny, forward, inputs, apply
):
  micros = {'scale': forward['in/micro_scale']}
  check(forward, 'masked1_micro', apply(*nested_tiny, *inputs, micros))


def test_no_mask_matches_the_reference(nested_tiny, forward, inputs, apply):
  check(forward, 'nomask', apply(*nested_tiny, *inputs[:3], None))


def test_unmasked_cross_attention_matches_the_reference(
  nested_tiny, forward, inputs, apply
):
  module, params = nested_tiny
  inner = module.inner_unet.clone(masked_condition=False)
  module = module.clone(inner_unet=inner)
  check(forward, 'masked0', apply(module, params, *inputs))


def test_normalised_input_matches_the_reference(
  nested_tiny, forward, inputs, apply
):
  module, params = nested_tiny
  (_, lo), *rest = inputs
  xs = nhwc(forward['normalize/in_x_hi']), lo
  module = module.clone(normalise_input=True)
  check(forward, 'normalize', apply(module, params, xs, *rest))


def test_a_mixed_batch_matches_the_reference(
  nested_tiny, forward, inputs, apply
):
  (hi, lo), *rest = inputs
  outputs = apply(*nested_tiny, (hi[:2], lo), *rest)
  check(forward, 'masked1_mixed_bh2_bl3', outputs)


def test_every_module_matches_the_reference(nested_tiny, forward, inputs):
  module, params = nested_tiny
  _, state = jax.jit(
    lambda *args: module.apply(
      {'params': params}, *args, capture_intermediates=True, mutable=True
    )
  )(*inputs)
  captured = {
    '.'.join(path[:-1]): value[0]
    for path, value in traverse_util.flatten_dict(
      state['intermediates']
    ).items()
    if path[-1] == '__call__'
  }
  expected = {
    key.removeprefix('masked1/act/'): value
    for key, value in forward.items()
    if key.startswith('masked1/act/')
  }
  assert len(expected) == 21
  for name, value in expected.items():
    ours = re.sub(r'\.(\d)$', r'_\1', name)
    output = captured[ours.replace('cond_layers.scale', 'micro_layers_scale')]
    output = output[0] if isinstance(output, tuple) else output  # of a block
    value = nhwc(value) if value.ndim == 4 else value
    # The fixture keeps the second example: some, but not all, is padding.
    np.testing.assert_allclose(output[1:2], value, atol=ATOL, err_msg=name)


@pytest.fixture(scope='module')
def gradients(nested_tiny, forward, inputs):
  module, params = nested_tiny
  (hi, lo), times, features, mask = inputs
  cotangents = [
    nhwc(forward[f'grad/cotangent_{name}']) for name in ('hi', 'lo')
  ]

  def total(params, hi, features):
    outputs = module.apply({'params': params}, (hi, lo), times, features, mask)
    return sum((y * c).sum() for y, c in zip(outputs, cotangents, strict=True))

  return jax.jit(jax.grad(total, argnums=(0, 1, 2)))(params, hi, features)


def test_gradients_of_the_inputs_match_the_reference(gradients, forward):
  _, hi, features = gradients
  for ours, theirs in (
    (hi, nhwc(forward['grad/x_hi'])),
    (features, forward['grad/lm_features']),
  ):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def test_gradients_of_the_parameters_match_the_reference(gradients, forward):
  ours = mdm.to_torch(gradients[0])
  norms = {
    key.removeprefix('grad/param_l2/'): value
    for key, value in forward.items()
    if key.startswith('grad/param_l2/')
  }
  assert norms.keys() == ours.keys()
  for name, norm in norms.items():
    # Biases straight before a norm of single channels: mathematically zero.
    np.testing.assert_allclose(
      np.linalg.norm(ours[name]), norm, rtol=1e-4, atol=1e-4, err_msg=name
    )
  whole = [key for key in forward if key.startswith('grad/param/')]
  assert len(whole) == 6
  for key in whole:
    name = key.removeprefix('grad/param/')
    np.testing.assert_allclose(
      ours[name], forward[key], rtol=1e-4, atol=1e-4, err_msg=name
    )


def small(level: int) -> UNet:
  """A network of `level` nested resolutions."""
  fields = dict(embedding_dim=32, num_attention=(0, 0), groups=8)
  if level == 1:
    return UNet(
      channels=(16, 32), num_resnets=(1, 1), condition_dim=8, heads=2, **fields
    )
  return NestedUNet(
    channels=(8, 16), num_resnets=(1, 1), inner_unet=small(level - 1), **fields
  )


def test_three_resolutions_are_drawn_together():
  module = small(3)
  xs = tuple(
    jax.random.normal(jax.random.key(s), (2, s, s, 3)) for s in (16, 8, 4)
  )
  args = xs, jnp.ones(2), jnp.ones((2, 3, 5)), jnp.ones((2, 3))
  params = filled(module.init, *args)['params']
  assert set(params['inner_unet']) > {'in_adapter', 'inner_unet'}

  @jax.jit
  def run(xs):
    return module.apply({'params': params}, xs, *args[1:])

  outputs = run(xs)
  assert [y.shape for y in outputs] == [x.shape for x in xs]
  # Each resolution reads every other one, through the adapters.
  for i in range(3):
    moved = [x + (j == i) for j, x in enumerate(xs)]
    for before, after in zip(outputs, run(tuple(moved)), strict=True):
      assert jnp.abs(before - after).max() > 1e-4


@pytest.fixture(scope='module')
def pair():
  """Two resolutions: the module and what it is applied to."""
  xs = tuple(jax.random.normal(jax.random.key(s), (1, s, s, 3)) for s in (8, 4))
  return small(2), (xs, jnp.ones(1), jnp.ones((1, 3, 5)))


def test_at_first_resolutions_are_independent(pair):
  module, args = pair

  @jax.jit  # compiles nothing but these two
  def adapters(key):
    params = module.init(key, *args)['params']
    return params['in_adapter'], params['out_adapter']

  for leaf in jax.tree.leaves(adapters(jax.random.key(0))):
    np.testing.assert_array_equal(leaf, 0)


def test_progressive_training_starts_from_the_small_model(pair, apply):
  """A trained 64x64 network, inside a new 256x256 one, draws as before."""
  module, (xs, *args) = pair
  params = filled(module.init, xs, *args)['params']
  params['in_adapter'] = jax.tree.map(jnp.zeros_like, params['in_adapter'])
  trained = filled(module.inner_unet.init, xs[1:], *args, seed=1)['params']
  grown = nested_unet.grow(params, trained)
  _, inside = apply(module, grown, xs, *args)
  (alone,) = apply(module.inner_unet, trained, xs[1:], *args)
  assert jnp.abs(alone).max() > 0.1
  np.testing.assert_allclose(inside, alone, rtol=1e-4, atol=1e-5)
  assert grown['conv_in'] is params['conv_in']


def test_growing_from_another_architecture_names_the_parameters():
  params = {'inner_unet': {'conv_in': {'kernel': jnp.ones((3, 3, 3, 8))}}}
  trained = {'conv_in': {'kernel': jnp.ones((3, 3, 3, 4))}, 'odd': jnp.ones(1)}
  message = r'(?s)odd.*not part.*conv_in/kernel.*\(3, 3, 3, 8\).*\(3, 3, 3, 4\)'
  with pytest.raises(ValueError, match=message):
    nested_unet.grow(params, trained)


@pytest.mark.parametrize(
  'sizes, rows, message',
  [
    ((8,), (1,), 'one image per resolution'),
    ((8, 8), (1, 1), '8x8 and 8x8.*must be 2 times as large'),
    ((8, 4), (2, 1), 'fewer images at high resolution, not more: 2 > 1'),
    ((16, 8, 4), (1, 1, 1), '2 images were given'),
  ],
)
def test_misuse_is_explained(sizes, rows, message):
  xs = tuple(jnp.zeros((n, s, s, 3)) for s, n in zip(sizes, rows, strict=True))
  args = jnp.zeros(rows[-1]), jnp.zeros((rows[-1], 1, 5))
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda xs: small(2).init(jax.random.key(0), xs, *args), xs)


def test_micro_conditions_may_be_known_to_the_inner_network_alone(pair):
  module, args = pair
  inner = module.inner_unet.clone(micro_conditions=(('crop', 0.5),))
  module = module.clone(inner_unet=inner)
  params = filled(module.init, *args)['params']

  @jax.jit
  def run(crop):
    micros = {'crop': crop}
    return module.apply({'params': params}, *args, None, micros)[1]

  assert jnp.abs(run(0.2) - run(0.5)).max() > 1e-3  # a number serves all rows


def test_only_the_innermost_network_prepares_the_condition():
  module = small(2).clone(condition_dim=8)
  xs = jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 4, 4, 3))
  with pytest.raises(ValueError, match='condition_dim.*not to a NestedUNet'):
    jax.eval_shape(
      lambda: module.init(jax.random.key(0), xs, jnp.zeros(1), xs[1][0])
    )


@pytest.mark.parametrize('dtype', ['bfloat16'])
def test_every_level_computes_in_the_type_that_was_asked_for(
  data, nested_tiny, forward, inputs, dtype
):
  config = json.loads((data / 'mdm/nested_tiny_config.json').read_text())
  module = mdm.denoiser(config, dtype=dtype)
  assert module.dtype == module.inner_unet.dtype == dtype
  outputs = jax.jit(
    lambda *args: module.apply({'params': nested_tiny[1]}, *args)
  )(*inputs)
  for output, size in zip(outputs, ('hi', 'lo'), strict=True):
    expected = nhwc(forward[f'masked1/out_{size}'])
    error = np.abs(output - expected).mean() / np.abs(expected).mean()
    assert output.dtype == jnp.float32 and 1e-4 < error < 0.05


def test_the_reference_configuration_is_the_fixture(data, nested_tiny):
  config = json.loads((data / 'mdm/nested_tiny_config.json').read_text())
  assert mdm.denoiser(config) == nested_tiny[0]
