import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models
from flax import serialization, traverse_util
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kaleido_jax.convert import t5x
from kaleido_jax.models import t5

FOLDER = t5_models.DATA / 't5x'
GOLDEN = {
  'minimal': 'golden.npz',
  'scalable': 'golden.npz',
  'minimal_v1_0': 'golden_minimal_v1_0.npz',
}
QUERY = 'target.decoder.layers_1.self_attention.query.kernel'


@pytest.fixture(scope='module', params=GOLDEN)
def folder(request) -> str:
  return request.param


def arrays_of(folder: str) -> dict[str, np.ndarray]:
  """T5X's parameters, inputs and outputs, as it had them itself."""
  inputs = dict(np.load(FOLDER / 'golden.npz'))
  inputs = {name: x for name, x in inputs.items() if 'tokens' in name}
  return inputs | dict(np.load(FOLDER / GOLDEN[folder]))


def tree_of(folder: pathlib.Path) -> dict:
  """What the file `checkpoint` says."""
  return serialization.msgpack_restore((folder / 'checkpoint').read_bytes())


def unstacked(params: dict) -> dict[str, np.ndarray]:
  """Our parameters, layer by layer, under T5X's names."""
  found = {}
  for name, leaf in traverse_util.flatten_dict(params, sep='/').items():
    if '/layers/' not in name:
      found[name] = leaf
      continue
    for i, part in enumerate(leaf):
      found[name.replace('/layers/', f'/layers_{i}/')] = part
  return found


def test_parameters_are_read_exactly(folder):
  golden = arrays_of(folder)
  expected = {name: x for name, x in golden.items() if '/' in name}
  _, params = t5x.load(FOLDER / folder)
  t5_models.assert_equal(unstacked(params), expected)


def test_a_read_checkpoint_gives_the_logits_of_t5x(folder):
  golden = arrays_of(folder)
  ids = golden['encoder_input_tokens']
  encoded, _, logits = t5_models.run(
    *t5x.load(FOLDER / folder), ids, ids > 0, golden['decoder_input_tokens']
  )
  expected = golden['encoded'] * (ids > 0)[..., None]
  np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-5)
  np.testing.assert_allclose(logits, golden['logits'], rtol=0, atol=1e-5)


def test_the_architecture_is_told_by_the_shapes(folder):
  module, _ = t5x.load(FOLDER / folder, dtype='bfloat16')
  v1_0 = folder == 'minimal_v1_0'
  assert module.config == t5_models.tiny(
    vocab_size=64,
    num_heads=2,
    num_encoder_layers=2 if v1_0 else 3,
    num_decoder_layers=2 if v1_0 else 3,
    mlp='relu' if v1_0 else 'gated-gelu',
    tied_head=v1_0,
    dtype='bfloat16',
  )


def test_position_biases_that_differ_between_layers_are_refused():
  message = (
    r'scalable_untied: (\w+)/\1/relpos_bias/rel_embedding differs between its 3'
    ' layers.*only T5 can be read'
  )
  with pytest.raises(ValueError, match=message):
    t5x.load(FOLDER / 'scalable_untied')


@pytest.mark.parametrize('layout', t5x.LAYOUTS)
@pytest.mark.parametrize('tied_head', [True, False])
def test_what_is_saved_is_loaded_exactly(tmp_path, layout, tied_head):
  """No two sizes are equal, so that no two axes can be confused."""
  config = t5_models.tiny(
    mlp='relu' if tied_head else 'gated-gelu', tied_head=tied_head
  )
  params = t5_models.random_params(config)
  t5x.save(tmp_path, t5.T5(config), params, layout=layout)
  module, found = t5x.load(tmp_path)
  assert module == t5.T5(config)
  t5_models.assert_equal(found, params)


@pytest.mark.parametrize(
  'folder, layout',
  [
    ('minimal', 'minimal'),
    ('scalable', 'scalable'),
    ('minimal_v1_0', 'minimal'),
  ],
)
def test_a_saved_checkpoint_is_built_as_those_of_t5x(tmp_path, folder, layout):
  """Names, relative paths, shapes, chunks, types, compression; and values."""
  module, params = t5x.load(FOLDER / folder)
  t5x.save(tmp_path, module, params, layout=layout)
  ours, theirs = tree_of(tmp_path), tree_of(FOLDER / folder)
  assert ours['version'] == theirs['version'] == 3
  assert ours['optimizer']['target'] == theirs['optimizer']['target']
  stores = sorted(path.name for path in (FOLDER / folder).glob('target.*'))
  assert sorted(path.name for path in tmp_path.glob('*.*')) == stores
  for name in stores:
    mine, other = (
      json.loads((parent / name / '.zarray').read_text())
      for parent in (tmp_path, FOLDER / folder)
    )
    assert mine == other, name
    files = sorted(path.name for path in (tmp_path / name).iterdir())
    assert files == sorted(p.name for p in (FOLDER / folder / name).iterdir())


def test_both_layouts_load_into_the_same_sharded_parameters():
  mesh = Mesh(np.array(jax.devices()), ('fsdp',))
  _, whole = t5x.load(FOLDER / 'minimal')

  def target(leaf):
    # Also the axes along which heads are joined.
    spec = P(*([None] * (leaf.ndim - 1)), 'fsdp')
    spec = spec if leaf.shape[-1] % 8 == 0 else P()
    sharding = NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16, sharding=sharding)

  target = jax.tree.map(target, whole)
  for folder in ('minimal', 'scalable'):
    _, params = t5x.load(FOLDER / folder, target)
    for leaf, abstract, value in zip(
      *map(jax.tree.leaves, (params, target, whole)), strict=True
    ):
      assert (leaf.sharding, leaf.dtype) == (abstract.sharding, jnp.bfloat16)
      expected = np.asarray(value.astype(jnp.bfloat16))
      np.testing.assert_array_equal(np.asarray(leaf), expected)


@pytest.mark.parametrize('half', ['encoder', 'decoder'])
def test_one_half_can_be_loaded_alone(folder, half):
  _, whole = t5x.load(FOLDER / folder)
  _, params = t5x.load(FOLDER / folder, halves=(half,))
  names = ('token_embedder', half)
  t5_models.assert_equal(params, {name: whole[name] for name in names})


@pytest.fixture
def copy(tmp_path):
  """Copies a committed checkpoint; `change` edits its tree of specs."""

  def make(folder, change=lambda target: None):
    shutil.copytree(FOLDER / folder, tmp_path, dirs_exist_ok=True)
    tree = tree_of(tmp_path)
    change(tree['optimizer']['target'])
    content = serialization.msgpack_serialize(tree)
    (tmp_path / 'checkpoint').write_bytes(content)
    return tmp_path

  return make


def test_stores_are_found_beside_the_file_wherever_they_once_were(copy):
  """Older writers put the path beside the kvstore, which named a bucket."""

  def change(target):
    for half in ('encoder', 'decoder'):
      norm = target[half][f'{half}_norm']['scale']
      path = norm['kvstore'].pop('path')
      norm |= {'kvstore': {'driver': 'gcs', 'bucket': 'data'}, 'path': path}

  _, params = t5x.load(copy('minimal', change))
  t5_models.assert_equal(params, t5x.load(FOLDER / 'minimal')[1])


def test_arrays_may_stand_in_the_file_itself(copy):
  scale = arrays_of('minimal')['encoder/encoder_norm/scale']

  def change(target):
    target['encoder']['encoder_norm']['scale'] = scale

  _, params = t5x.load(copy('minimal', change))
  t5_models.assert_equal(params, t5x.load(FOLDER / 'minimal')[1])


def test_scanned_layers_had_another_name_until_2022(copy):
  def change(target):
    for half in ('encoder', 'decoder'):
      target[half]['layers'] = target[half].pop(half)

  _, params = t5x.load(copy('scalable', change))
  t5_models.assert_equal(params, t5x.load(FOLDER / 'minimal')[1])


def refused(folder, *parts, **kwargs):
  """Loading fails with one message that has all the parts."""
  with pytest.raises(ValueError) as raised:
    t5x.load(folder, **kwargs)
  for part in (folder.name, *parts):
    assert part in str(raised.value)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
  refused(tmp_path, 'no file named checkpoint', 'checkpoint_1000000')


@pytest.mark.parametrize(
  'content',
  [
    b'',
    b'garbage',
    b'\xc1\xff\x00',
    (FOLDER / 'minimal/checkpoint').read_bytes()[:2000],
    serialization.msgpack_serialize({'version': 3}),
    serialization.msgpack_serialize({'optimizer': {'target': {}}}),
    serialization.msgpack_serialize({'optimizer': {'target': 3}}),
  ],
  ids=['empty', 'text', 'bytes', 'half', 'version', 'nothing', 'number'],
)
def test_garbage_is_refused(tmp_path, content):
  (tmp_path / 'checkpoint').write_bytes(content)
  refused(tmp_path, 'is not a T5')


def test_a_missing_array_is_refused(copy):
  folder = copy('minimal')
  shutil.rmtree(folder / QUERY)
  name = 'decoder/layers_1/self_attention/query/kernel'
  refused(folder, QUERY, 'is missing', name, 'copy the whole folder')


@pytest.mark.parametrize('file', ['.zarray', '0.0'])
def test_a_broken_array_is_refused(copy, file):
  folder = copy('minimal')
  path = folder / QUERY / file
  path.write_bytes(path.read_bytes()[:20])
  refused(folder, QUERY, 'cannot be read')


def test_a_lost_chunk_is_refused(copy):
  """Zarr would read it as zeros."""
  folder = copy('minimal')
  (folder / QUERY / '0.0').unlink()
  refused(folder, QUERY, 'cannot be read')


def test_what_tells_the_architecture_must_be_there(copy):
  folder = copy('minimal', lambda target: target.pop('token_embedder'))
  refused(folder, 'has no token_embedder/', 'not a T5 encoder-decoder')


def test_half_a_checkpoint_is_not_taken_for_a_whole_one(copy):
  folder = copy('minimal', lambda target: target.pop('encoder'))
  refused(folder, 'encoder/encoder_norm/scale: missing')


def test_every_misfit_is_named(copy):
  def change(target):
    del target['decoder']['layers_1']['mlp']['wo']
    layers = target['decoder']
    layers['layers_0']['mlp']['wo'] = layers['layers_0']['mlp']['wi_0']
    target['odd'] = np.zeros(3, np.float32)

  refused(
    copy('minimal', change),
    '1 missing, 1 extra, 1 mis-shaped tensors',
    'decoder/layers_1/mlp/wo/kernel: missing',
    'odd: not part of the model',
    'decoder/layers_0/mlp/wo/kernel: the model needs (32, 16), the file has',
    'strict=False',
  )


def test_what_does_not_fit_keeps_its_initial_value_if_told_so(copy, capsys):
  folder = copy(
    'minimal', lambda target: target['decoder']['layers_1'].pop('mlp')
  )
  _, params = t5x.load(folder, strict=False)
  assert 'layers_1/mlp/wo/kernel: missing' in capsys.readouterr().out
  _, whole = t5x.load(FOLDER / 'minimal')
  found, expected = (
    x['decoder']['layers']['mlp']['wo']['kernel'] for x in (params, whole)
  )
  np.testing.assert_array_equal(found[::2], expected[::2])
  assert (found[1] != expected[1]).all() and jnp.abs(found[1]).max() > 0


def test_quantised_weights_are_refused(copy):
  def change(target):
    target['decoder']['decoder_norm']['scale'] = np.ones(16, np.int8)

  name = 'decoder/decoder_norm/scale'
  refused(copy('minimal', change), f'tensor {name} is int8', 'not quantised')


def test_only_two_layouts_exist(tmp_path):
  module, params = t5x.load(FOLDER / 'minimal')
  with pytest.raises(ValueError, match="'big' is not one of .'minimal', 'scal"):
    t5x.save(tmp_path, module, params, layout='big')


def test_what_no_other_program_knows_is_not_saved(tmp_path):
  config = t5_models.tiny(lora_rank=2)
  with pytest.raises(ValueError, match='adaptation.restore'):
    t5x.save(tmp_path, t5.T5(config), {})
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('half', ['encoder', 'decoder'])
def test_half_a_model_is_saved_and_read(tmp_path, half):
  module, params = t5x.load(FOLDER / 'minimal', halves=(half,))
  t5x.save(tmp_path, module, params)
  _, found = t5x.load(tmp_path, halves=(half,))
  jax.tree.map(np.testing.assert_array_equal, found, params)
