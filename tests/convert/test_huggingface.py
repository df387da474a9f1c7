import dataclasses
import json
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import t5_models
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors import numpy as safetensors

from kaleido_jax.convert import huggingface
from kaleido_jax.models import t5


def tensors_of(folder) -> dict[str, np.ndarray]:
  """Everything in a folder's safetensors files, by safetensors' own reader."""
  found = {}
  for path in sorted(folder.glob('*.safetensors')):
    part = safetensors.load_file(path)
    assert not found.keys() & part.keys()
    found |= part
  return found


def copy(version, folder, changes=(), dtype=None, **config) -> None:
  """The committed folder in one file, with changes; None removes a tensor."""
  source = t5_models.FOLDER / version
  tensors = tensors_of(source) | dict(changes)
  tensors = {k: v for k, v in tensors.items() if v is not None}
  if dtype:
    tensors = {k: v.astype(dtype) for k, v in tensors.items()}
  folder.mkdir(exist_ok=True)
  safetensors.save_file(tensors, folder / 'model.safetensors')
  values = json.loads((source / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps(values | config))


@pytest.fixture(scope='module', params=[True, False], ids=['v1_0', 'v1_1'])
def random(request):
  """A model in which no two sizes are equal."""
  config = t5_models.tiny(
    mlp='relu' if request.param else 'gated-gelu', tied_head=request.param
  )
  return config, t5_models.random_params(config)


@pytest.mark.parametrize('max_shard_bytes', [10**9, 9000])
def test_what_is_saved_is_loaded_exactly(random, tmp_path, max_shard_bytes):
  config, params = random
  huggingface.save(
    tmp_path, t5.T5(config), params, max_shard_bytes=max_shard_bytes
  )
  module, found = huggingface.load(tmp_path)
  assert module == t5.T5(config)
  t5_models.assert_equal(found, params)


def test_shards_are_small_and_indexed(tmp_path):
  module, params = t5_models.load('v1_1')
  huggingface.save(tmp_path, module, params, max_shard_bytes=60_000)
  index = json.loads((tmp_path / 'model.safetensors.index.json').read_text())
  shards = sorted(tmp_path.glob('*.safetensors'))
  num = len(shards)
  assert num > 4
  total = 0
  for i, path in enumerate(shards):
    assert path.name == f'model-{i + 1:05}-of-{num:05}.safetensors'
    part = safetensors.load_file(path)
    size = sum(tensor.nbytes for tensor in part.values())
    assert size <= 60_000
    total += size
    assert all(index['weight_map'].pop(name) == path.name for name in part)
  assert not index['weight_map']
  assert index['metadata']['total_size'] == total


@pytest.mark.parametrize('version', t5_models.VERSIONS)
def test_a_saved_folder_holds_what_that_of_transformers_does(version, tmp_path):
  module, params = t5_models.load(version)
  huggingface.save(tmp_path, module, params)
  theirs = tensors_of(t5_models.FOLDER / version)
  ours = tensors_of(tmp_path)
  assert sorted(ours) == sorted(theirs)
  for name, value in theirs.items():
    assert ours[name].dtype == value.dtype
    np.testing.assert_array_equal(ours[name], value, err_msg=name)
  expected = json.loads(
    (t5_models.FOLDER / version / 'config.json').read_text()
  )
  config = json.loads((tmp_path / 'config.json').read_text())
  for name in config.keys() & expected.keys() - {'dropout_rate'}:
    assert config[name] == expected[name], name


@pytest.mark.parametrize('half', ['encoder', 'decoder'])
@pytest.mark.parametrize('version', t5_models.VERSIONS)
def test_one_half_can_be_loaded_alone(version, half):
  _, whole = t5_models.load(version)
  _, params = huggingface.load(t5_models.FOLDER / version, halves=(half,))
  names = ('token_embedder', half)
  t5_models.assert_equal(params, {name: whole[name] for name in names})


def test_a_half_needs_nothing_of_the_other(tmp_path):
  tensors = tensors_of(t5_models.FOLDER / 'v1_1')
  decoder = {k: None for k in tensors if k.startswith(('decoder', 'lm_head'))}
  copy('v1_1', tmp_path, decoder)
  _, params = huggingface.load(tmp_path, halves=('encoder',))
  assert sorted(params) == ['encoder', 'token_embedder']
  with pytest.raises(
    ValueError, match='decoder.final_layer_norm.weight: missi'
  ):
    huggingface.load(tmp_path)


def test_an_unknown_half_is_refused():
  with pytest.raises(ValueError, match=r"halves=\('middle',\) is not made of"):
    huggingface.load(t5_models.FOLDER / 'v1_0', halves=('middle',))


def sharded(params: dict, dtype) -> dict:
  """A target that splits what it can over the eight devices."""
  mesh = Mesh(np.array(jax.devices()), ('fsdp',))

  def target(leaf):
    axes = [i for i, n in enumerate(leaf.shape) if n % 8 == 0]
    spec = P(*(['fsdp' if i == axes[-1] else None for i in range(leaf.ndim)]))
    return jax.ShapeDtypeStruct(
      leaf.shape, dtype, sharding=NamedSharding(mesh, spec)
    )

  return jax.tree.map(target, params)


@pytest.mark.parametrize('version', t5_models.VERSIONS)
def test_parameters_come_in_the_sharding_and_type_of_the_target(version):
  _, whole = t5_models.load(version)
  target = sharded(whole, jnp.bfloat16)
  _, params = huggingface.load(t5_models.FOLDER / version, target)
  for leaf, abstract, value in zip(
    *map(jax.tree.leaves, (params, target, whole)), strict=True
  ):
    assert leaf.sharding == abstract.sharding
    assert not leaf.is_fully_replicated
    assert {shard.data.size for shard in leaf.addressable_shards} == {
      value.size // 8
    }
    assert leaf.dtype == jnp.bfloat16
    expected = np.asarray(value).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(np.asarray(leaf), expected)


def test_layers_can_be_split_among_devices_too(tmp_path):
  config = t5_models.tiny(num_encoder_layers=8, num_decoder_layers=8)
  params = t5_models.random_params(config)
  huggingface.save(tmp_path, t5.T5(config), params)
  mesh = Mesh(np.array(jax.devices()), ('fsdp',))

  def target(leaf):
    spec = P('fsdp') if leaf.shape[0] == 8 else P()
    sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  _, found = huggingface.load(tmp_path, jax.tree.map(target, params))
  t5_models.assert_equal(found, params)
  kernel = found['decoder']['layers']['mlp']['wo']['kernel']
  assert {x.data.shape[0] for x in kernel.addressable_shards} == {1}


@pytest.mark.parametrize('dtype', ['float16', ml_dtypes.bfloat16, 'float64'])
def test_weights_of_other_floating_types_become_float32(tmp_path, dtype):
  copy('v1_1', tmp_path, dtype=dtype)
  _, params = huggingface.load(tmp_path)
  _, whole = t5_models.load('v1_1')
  rounded = jax.tree.map(
    lambda x: np.asarray(x).astype(dtype).astype(np.float32), whole
  )
  t5_models.assert_equal(params, rounded)


@pytest.fixture(scope='module')
def large():
  """A model of 90 MB."""
  config = t5_models.tiny(
    vocab_size=4096,
    width=512,
    num_heads=8,
    head_dim=64,
    mlp_dim=1024,
    num_encoder_layers=3,
    num_decoder_layers=3,
  )
  return config, t5_models.random_params(config)


def peak_of(function) -> int:
  """The most that Python and numpy held at once, beyond what is returned."""
  tracemalloc.start()
  try:
    result = function()
    current, peak = tracemalloc.get_traced_memory()
    del result  # not earlier
    return peak - current
  finally:
    tracemalloc.stop()


def test_memory_never_holds_a_second_copy(large, tmp_path):
  config, params = large
  sizes = [leaf.nbytes for leaf in jax.tree.leaves(params)]
  assert sum(sizes) > 90e6

  limit = 10**7
  peak = peak_of(
    lambda: huggingface.save(
      tmp_path, t5.T5(config), params, max_shard_bytes=limit
    )
  )
  assert peak < 2.5 * limit
  target = sharded(t5.abstract_params(t5.T5(config)), jnp.float32)
  peak = peak_of(lambda: huggingface.load(tmp_path, target))
  # Parts of one parameter, of which the largest has 8.4 MB.
  assert peak < 0.5 * max(sizes)


def test_saving_again_replaces_what_was_there(random, tmp_path):
  config, params = random
  huggingface.save(tmp_path, t5.T5(config), params)
  other = jax.tree.map(lambda x: x + 1, params)
  huggingface.save(tmp_path, t5.T5(config), other, max_shard_bytes=60_000)
  _, found = huggingface.load(tmp_path)
  jax.tree.map(np.testing.assert_array_equal, found, other)


def test_parameters_of_another_model_are_not_saved(random, tmp_path):
  config, params = random
  wrong = t5.T5(dataclasses.replace(config, vocab_size=config.vocab_size + 1))
  with pytest.raises(ValueError, match='token_embedder/embedding: the model'):
    huggingface.save(tmp_path, wrong, params)


def test_settings_that_would_be_ignored_are_refused(tmp_path):
  folder = shutil.copytree(t5_models.FOLDER / 'v1_0', tmp_path / 'copy')
  config = json.loads((folder / 'config.json').read_text())
  changed = json.dumps({**config, 'layer_norm_epsilon': 1e-3})
  (folder / 'config.json').write_text(changed)
  with pytest.raises(ValueError, match='layer_norm_epsilon=0.001 is not 1e-06'):
    huggingface.load(folder)
