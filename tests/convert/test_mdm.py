import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import packing
import pytest

from kaleido_jax.convert import mdm, torch_file
from kaleido_jax.models import nested_unet

RESNET = {'num_groups_norm': 32, 'dropout': 0.0}


def released(size: int) -> dict:
  """The configurations of Apple's released cc12m models."""
  inner = {
    'resolution_channels': [256, 512, 768],
    'num_resnets_per_resolution': [2, 2, 2],
    'attention_levels': [1, 2],
    'num_attention_layers': [0, 1, 5],
    'temporal_dim': 1024,
    'conditioning_feature_dim': 2048,
    'conditioning_feature_proj_dim': 2048,
    'num_lm_head_layers': 0,
    'masked_cross_attention': 0,
    'micro_conditioning': 'scale:64',
    'resnet_config': {**RESNET, 'use_attention_ffn': True},
  }
  if size == 64:
    return inner
  outer = {
    'num_resnets_per_resolution': [2, 2, 1],
    'attention_levels': [],
    'num_attention_layers': [0, 0, 0],
    'temporal_dim': 1024,
    'conditioning_feature_dim': 2048,
    'conditioning_feature_proj_dim': -1,
    'skip_mid_blocks': True,
    'skip_cond_emb': True,
    'resnet_config': {**RESNET, 'use_attention_ffn': False},
  }
  middle = {
    **outer,
    'resolution_channels': [64, 128, 256],
    'micro_conditioning': 'scale:256',
    'skip_normalization': size == 256,
    'inner_config': inner,
  }
  if size == 256:
    return middle
  return {
    **outer,
    'resolution_channels': [32, 32, 64],
    'micro_conditioning': 'scale:1024',
    'skip_normalization': True,
    'inner_config': middle,
  }


def kaleido() -> dict:
  """Appendix B.1 of the paper, as a reference configuration."""
  config = released(256)
  config['inner_config'] |= {
    'conditioning_feature_proj_dim': 1024,
    'num_lm_head_layers': 2,
    'masked_cross_attention': 1,
  }
  return config


def count(params) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@pytest.fixture(scope='module')
def tiny(data):
  config = json.loads((data / 'mdm/unet_tiny_config.json').read_text())
  return config, packing.read(data / 'mdm/unet_tiny_weights.npz.xz')


@pytest.mark.parametrize(
  'config, expected',
  [
    (released(64), 461_359_107),
    (released(256), 476_613_958),
    (released(1024), 480_970_057),
    (kaleido(), 452_458_822),
  ],
)
def test_parameter_counts_are_the_published_ones(config, expected):
  assert count(mdm.abstract_params(mdm.denoiser(config), config)) == expected


def test_all_names_and_shapes_of_kaleido_match(data):
  config = kaleido()
  ours = mdm.shapes(mdm.abstract_params(mdm.denoiser(config), config))
  lines = (data / 'mdm/kaleido_state_dict_shapes.txt').read_text().splitlines()
  theirs = {}
  for line in lines:
    name, shape = line.split('\t')
    numbers = shape.strip('()').split(',')
    theirs[name] = tuple(int(n) for n in numbers if n.strip())
  # 912 line ends; the last line has none.
  assert len(theirs) == 913
  assert ours == theirs


@pytest.mark.parametrize('network', ['nested_tiny', 'unet_tiny'])
def test_weights_round_trip_exactly(data, request, network):
  module, params = request.getfixturevalue(network)
  weights = packing.read(data / f'mdm/{network}_weights.npz.xz')
  back = mdm.save(module, params)
  assert back.keys() == weights.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(back[name], value, err_msg=name)
    assert back[name].dtype == value.dtype


def test_a_pth_file_round_trips_exactly(tiny, tmp_path):
  config, weights = tiny
  torch_file.write(tmp_path / 'vis_model_000001.pth', weights)
  found = torch_file.state_dict(tmp_path / 'vis_model_000001.pth')
  module, params = mdm.load(config, found)
  for name, value in mdm.save(module, params).items():
    np.testing.assert_array_equal(value, weights[name], err_msg=name)


def test_a_released_64_model_fits_into_a_256_one():
  """Progressive training: same names, same shapes."""
  config = released(256)
  large = mdm.abstract_params(mdm.denoiser(config), config)
  config = released(64)
  small = mdm.abstract_params(mdm.denoiser(config), config)
  grown = nested_unet.grow(large, small)
  assert jax.tree.structure(grown) == jax.tree.structure(large)
  assert jax.tree.map(np.shape, grown) == jax.tree.map(np.shape, large)


def test_every_misfit_is_named(tiny):
  config, weights = tiny
  weights = dict(weights)
  del weights['conv_in.bias']
  weights['lm_proj.weight'] = weights['lm_proj.weight'][:, :-1]
  weights['odd'] = np.zeros(1, np.float32)
  with pytest.raises(ValueError) as raised:
    mdm.load(config, weights, source='vis_model_000001.pth')
  message = str(raised.value)
  for part in (
    'vis_model_000001.pth: 1 missing, 1 extra, 1 mis-shaped',
    'conv_in.bias: missing',
    'odd: not part of the model',
    'lm_proj.weight: the model needs (32, 24), the file has (32, 23)',
    'strict=False',
  ):
    assert part in message


def test_what_does_not_fit_keeps_its_initial_value_if_told_so(tiny, capsys):
  config, weights = tiny
  weights = dict(weights)
  del weights['conv_out.bias']
  _, params = mdm.load(config, weights, strict=False)
  np.testing.assert_array_equal(params['conv_out']['bias'], 0)
  expected = weights['conv_in.bias']
  np.testing.assert_array_equal(params['conv_in']['bias'], expected)
  assert 'conv_out.bias: missing' in capsys.readouterr().out


def test_the_width_of_the_language_model_is_found_in_the_weights(tiny):
  """The reference's own files leave it at -1."""
  config, weights = tiny
  module, _ = mdm.load(config | {'conditioning_feature_dim': -1}, weights)
  assert module == mdm.denoiser(config)


def test_a_configuration_of_something_else_is_refused():
  with pytest.raises(ValueError, match='has no resolution_channels; give'):
    mdm.denoiser({'d_model': 512})


def test_quantised_weights_are_refused(tiny):
  config, weights = tiny
  weights = {**weights, 'conv_in.bias': np.zeros(32, np.int8)}
  with pytest.raises(
    ValueError, match='conv_in.bias is int8, where a floating'
  ):
    mdm.load(config, weights)


def test_bfloat16_weights_become_float32(tiny):
  config, weights = tiny
  half = {k: v.astype(jnp.bfloat16) for k, v in weights.items()}
  _, params = mdm.load(config, half)
  assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_unused_interpolation_layers_of_the_reference_are_left_out(tiny):
  config, weights = tiny
  config = {**config, 'interp_conditioning': True}
  weights = {**weights, 'interp_layer1.weight': np.zeros((2, 2), np.float32)}
  _, params = mdm.load(config, weights)
  assert 'interp_layer1.weight' not in mdm.to_torch(params)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'temporal_mode': True}, 'video networks are not supported'),
    ({'skip_inner_unet_input': True}, 'cannot be built'),
    ({'skip_cond_emb': False}, 'cannot be built'),
  ],
)
def test_configurations_that_cannot_be_built_are_refused(change, message):
  with pytest.raises(ValueError, match=message):
    mdm.denoiser({**released(256), **change})


def test_an_outer_projection_only_renames_the_width():
  """The reference's trap 17: it projects nothing."""
  config = released(256) | {'conditioning_feature_proj_dim': 512}
  params = mdm.abstract_params(mdm.denoiser(config), config)
  assert params['inner_unet']['lm_proj']['kernel'].shape == (512, 2048)
