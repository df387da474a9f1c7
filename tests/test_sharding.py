"""Meshes, and who holds what."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from configs import imagenet, toy
from kaleido_jax import sharding
from kaleido_jax.models import kaleido


def mesh(data=-1, fsdp=1, tensor=1, slices=1):
  section = dict(data=data, fsdp=fsdp, tensor=tensor, slices=slices)
  return sharding.create_mesh(section)


def shapes(config):
  model = kaleido.from_config(config)
  return jax.eval_shape(
    lambda key: kaleido.init_params(model, key, config.image_shapes),
    jax.random.key(0),
  )


@pytest.fixture(scope='module')
def large():
  return shapes(imagenet.get_config())


def held(params, on) -> int:
  """Numbers on one device."""
  found = sharding.shardings(params, on, 'nested_unet')
  leaves = zip(jax.tree.leaves(params), jax.tree.leaves(found), strict=True)
  return sum(math.prod(s.shard_shape(leaf.shape)) for leaf, s in leaves)


def test_data_takes_the_devices_that_are_left():
  assert dict(mesh(fsdp=2, tensor=2).shape) == {
    'data': 2,
    'fsdp': 2,
    'tensor': 2,
  }
  assert dict(mesh(data=8).shape)['data'] == 8


@pytest.mark.parametrize(
  'asked, data, fsdp',
  [
    (dict(fsdp=-1), 1, 8),
    (dict(fsdp=-1, data=2), 2, 4),
    (dict(fsdp=-1, tensor=2), 1, 4),
  ],
)
def test_fsdp_takes_the_devices_that_are_left_before_data(asked, data, fsdp):
  found = mesh(**asked).shape
  assert (found['data'], found['fsdp']) == (data, fsdp)


@dataclasses.dataclass(frozen=True)
class Chip:
  """A device of several slices, as far as a mesh looks at it."""

  id: int
  slice_index: int
  platform: str = 'none'
  device_kind: str = 'none'
  process_index: int = 0


@pytest.mark.parametrize('fsdp, data', [(2, 4), (-1, 2)])
def test_only_data_crosses_slices(fsdp, data):
  chips = [Chip(id=i, slice_index=i % 2) for i in range(8)]
  section = dict(data=-1, fsdp=fsdp, tensor=1, slices=2)
  found = sharding.create_mesh(section, chips)
  assert found.shape['data'] == data
  for row in found.devices.reshape(data, -1):
    assert len({chip.slice_index for chip in row}) == 1
  assert {*found.devices.flat} == {*chips}


@pytest.mark.parametrize(
  'asked, message',
  [
    (dict(data=3), 'data=3 x fsdp=1 x tensor=1 devices, but there are 8'),
    (dict(fsdp=16), 'there are 8'),
    (dict(fsdp=8, slices=2), 'slices=2 does not divide data=1'),
  ],
)
def test_a_mesh_that_does_not_fit_is_refused(asked, message):
  with pytest.raises(ValueError, match=message):
    mesh(**asked)


@pytest.mark.parametrize(
  'axes, share, slack',
  # Convolutions are not split over tensor.
  [
    (dict(), 1, 1.01),
    (dict(fsdp=8), 8, 1.01),
    (dict(fsdp=2, tensor=2), 4, 1.1),
  ],
)
def test_the_large_model_is_split_as_far_as_it_can_be(
  large, axes, share, slack
):
  """What stays whole is norms, biases and little else."""
  total = sum(leaf.size for leaf in jax.tree.leaves(large))
  assert total / share <= held(large, mesh(**axes)) < total / share * slack


def test_the_layer_stack_is_not_split():
  on = mesh(fsdp=8)
  path = 'decoder/decoder/layers/mlp/wo/kernel'
  assert sharding.spec(path, (24, 64, 512), on, 'mlp') == P(None, None, 'fsdp')
  # Another tree of the state: the same end, the same place.
  assert sharding.spec(f'opt_state/mu/{path}', (24, 64, 512), on, 'mlp') == P(
    None, None, 'fsdp'
  )


def test_inputs_and_outputs_alternate_over_tensor():
  on = mesh(tensor=4)
  wi = sharding.spec('decoder/layers/mlp/wi_0/kernel', (2, 64, 96), on, 'mlp')
  wo = sharding.spec('decoder/layers/mlp/wo/kernel', (2, 96, 64), on, 'mlp')
  assert wi[2] == 'tensor' and wo[1] == 'tensor'


def test_a_row_that_matches_nothing_is_an_error(large, monkeypatch):
  rows = (*sharding.UNET, (r'/qvk/kernel', -1))
  monkeypatch.setitem(sharding.TABLES, 'nested_unet', rows)
  with pytest.raises(ValueError, match='qvk.*matches nothing in denoiser'):
    sharding.check(large, mesh(fsdp=8), 'nested_unet')


def test_a_large_array_on_every_device_is_an_error():
  odd = {'denoiser': {'odd': jax.ShapeDtypeStruct((1025, 1025), jnp.float32)}}
  with pytest.raises(ValueError, match='odd.*in full.*fsdp=8'):
    sharding.check(odd, mesh(fsdp=8), 'mlp')


@pytest.mark.parametrize('variant', ['', 'mdm'])
def test_every_row_matches_in_the_small_models_too(variant):
  config = toy.get_config(variant)
  text = sharding.check(shapes(config), mesh(fsdp=8), 'mlp')
  assert 'sharding on data=1 x fsdp=8 x tensor=1' in text


def test_the_table_adds_up(large):
  text = sharding.check(large, mesh(fsdp=8), 'nested_unet')
  rows = [line.replace(',', '').split() for line in text.splitlines()[2:]]
  total = sum(leaf.size for leaf in jax.tree.leaves(large))
  assert sum(int(row[-2]) for row in rows) == total


def test_a_batch_that_cannot_be_split_is_refused():
  sharding.check_batch(16, mesh(fsdp=2))
  with pytest.raises(ValueError, match='batch_size=12.*multiple of 8'):
    sharding.check_batch(12, mesh(fsdp=2))


def test_rows_of_a_batch_go_to_devices_in_order():
  on = mesh(fsdp=4)
  rows = np.arange(16).reshape(16, 1)
  (array,) = sharding.to_devices({'x': rows}, on).values()
  for shard in array.addressable_shards:
    np.testing.assert_array_equal(shard.data, rows[shard.index])
  assert {shard.data.shape for shard in array.addressable_shards} == {(2, 1)}
