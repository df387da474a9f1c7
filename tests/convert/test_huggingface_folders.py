"""Folders that differ from what transformers writes today, for good or bad."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import t5_models
from safetensors import numpy as safetensors

from kaleido_jax.convert import huggingface, torch_file
from kaleido_jax.models import t5

INDEX = 'model.safetensors.index.json'
WO = 'decoder.block.1.layer.2.DenseReluDense.wo.weight'


def tensors_of(version) -> dict[str, np.ndarray]:
  files = sorted((t5_models.FOLDER / version).glob('*.safetensors'))
  parts = [safetensors.load_file(file) for file in files]
  return {name: value for part in parts for name, value in part.items()}


def copy(version, folder, changes=(), **config):
  """The committed model in one file, with changes; None removes a tensor."""
  tensors = tensors_of(version) | dict(changes)
  tensors = {k: v for k, v in tensors.items() if v is not None}
  safetensors.save_file(tensors, folder / 'model.safetensors')
  values = json.loads((t5_models.FOLDER / version / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps(values | config))
  return folder


def refused(folder, *parts, target=None, **kwargs):
  """Loading fails with one message that has all the parts."""
  with pytest.raises(ValueError) as raised:
    huggingface.load(folder, target, **kwargs)
  for part in (folder.name, *parts):
    assert part in str(raised.value)


def logits_of(module, params):
  golden = t5_models.golden('v1_0')
  names = ('input_ids', 'attention_mask', 'decoder_input_ids')
  inputs = [golden[f'ragged/{name}'] for name in names]
  return t5_models.run(module, params, *inputs)[2]


@pytest.mark.parametrize('num_files', [1, 2])
def test_older_folders_with_pytorch_files_are_read(tmp_path, num_files):
  copy('v1_1', tmp_path)
  (tmp_path / 'model.safetensors').unlink()
  # Old folders have copies of the embedding, and a bias that none reads.
  tensors = tensors_of('v1_1')
  for half in ('encoder', 'decoder'):
    tensors[f'{half}.embed_tokens.weight'] = tensors['shared.weight']
  unused = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias'
  tensors[f'{unused}.weight'] = np.zeros((32, 4), np.float32)
  if num_files == 1:
    torch_file.write(tmp_path / 'pytorch_model.bin', tensors)
  else:
    names = [f'pytorch_model-{i}-of-2.bin' for i in (1, 2)]
    placed = {name: names[i % 2] for i, name in enumerate(tensors)}
    for file in names:
      part = {k: v for k, v in tensors.items() if placed[k] == file}
      torch_file.write(tmp_path / file, part)
    (tmp_path / 'pytorch_model.bin.index.json').write_text(
      json.dumps({'weight_map': placed})
    )
  module, params = huggingface.load(tmp_path)
  assert module == t5_models.load('v1_1')[0]
  t5_models.assert_equal(params, t5_models.load('v1_1')[1])


def test_a_v1_0_folder_may_store_its_head_too(tmp_path):
  shared = tensors_of('v1_0')['shared.weight']
  copy('v1_0', tmp_path, {'lm_head.weight': shared})
  module, params = huggingface.load(tmp_path)
  assert module == t5_models.load('v1_0')[0]
  t5_models.assert_equal(params, t5_models.load('v1_0')[1])


def test_a_v1_0_head_that_differs_is_used_with_the_scale(tmp_path):
  """As transformers 5 does: `scale_decoder_outputs` is apart from tying."""
  shared = tensors_of('v1_0')['shared.weight']
  copy('v1_0', tmp_path, {'lm_head.weight': -3 * shared})
  module, params = huggingface.load(tmp_path)
  assert not module.config.tied_head
  logits = t5_models.golden('v1_0')['ragged/logits']
  found = logits_of(module, params)
  np.testing.assert_allclose(found, -3 * logits, rtol=0, atol=3e-4)


def test_a_v1_1_folder_without_a_head_has_the_embedding_for_one(tmp_path):
  tensors = tensors_of('v1_1')
  copy('v1_1', tmp_path / '.', {'lm_head.weight': None})
  module, params = huggingface.load(tmp_path)
  assert not module.config.tied_head  # nor scaled
  head = params['decoder']['logits_dense']['kernel']
  np.testing.assert_array_equal(head, tensors['shared.weight'].T)


@pytest.mark.parametrize(
  'words, tied_head',
  [
    (dict(tie_word_embeddings=True), True),  # transformers 4: v1.0
    (dict(tie_word_embeddings=False), False),  # v1.1
    # transformers 5: always tied, in its words.
    (dict(tie_word_embeddings=True, scale_decoder_outputs=True), True),
    (dict(tie_word_embeddings=True, scale_decoder_outputs=False), False),
    ({}, True),
  ],
)
def test_both_words_for_the_version_are_understood(tmp_path, words, tied_head):
  copy('v1_0', tmp_path)
  path = tmp_path / 'config.json'
  values = json.loads(path.read_text())
  for word in ('tie_word_embeddings', 'scale_decoder_outputs'):
    del values[word]
  path.write_text(json.dumps(values | words))
  assert huggingface.load_config(tmp_path).tied_head == tied_head


def test_overrides_are_fields_that_no_file_knows(tmp_path):
  config = huggingface.load_config(
    t5_models.FOLDER / 'v1_0', dtype='bfloat16', dropout=0.1
  )
  assert (config.dtype, config.dropout, config.width) == ('bfloat16', 0.1, 32)


def test_a_folder_of_nothing_is_refused(tmp_path):
  refused(tmp_path, 'has no config.json', 'hf download')
  refused(tmp_path / 'nowhere', 'has no config.json')


def test_another_model_is_refused(tmp_path):
  copy('v1_0', tmp_path, model_type='bert')
  refused(tmp_path, 'config.json: model_type is \'bert\', not "t5"')


@pytest.mark.parametrize('text', ['{"model_type": "t5", "vocab', '[1]', ''])
def test_a_broken_config_is_refused(tmp_path, text):
  copy('v1_0', tmp_path)
  (tmp_path / 'config.json').write_text(text)
  refused(tmp_path, 'config.json is broken', 'get it again')


def test_a_config_that_lacks_a_size_is_refused(tmp_path):
  copy('v1_0', tmp_path)
  path = tmp_path / 'config.json'
  values = json.loads(path.read_text())
  del values['d_kv']
  path.write_text(json.dumps(values))
  refused(tmp_path, 'config.json', 'd_kv')


def test_an_unknown_activation_is_refused(tmp_path):
  copy('v1_0', tmp_path, feed_forward_proj='gated-silu')
  refused(tmp_path, "config.json: feed_forward_proj='gated-silu' is neither")


def test_a_folder_without_weights_is_refused(tmp_path):
  copy('v1_0', tmp_path)
  (tmp_path / 'model.safetensors').unlink()
  refused(tmp_path, 'has neither model.safetensors nor pytorch_model.bin')


def test_a_missing_shard_is_refused(tmp_path):
  shutil.copytree(t5_models.FOLDER / 'v1_1', tmp_path, dirs_exist_ok=True)
  shard = 'model-00002-of-00003.safetensors'
  weights = json.loads((tmp_path / INDEX).read_text())['weight_map']
  lost = [name for name, file in weights.items() if file == shard]
  (tmp_path / shard).unlink()
  refused(
    tmp_path,
    f'{shard} is missing',
    f'{len(lost)} tensors, {lost[0]} among them',
    'download it again',
  )


def test_a_broken_index_is_refused(tmp_path):
  copy('v1_0', tmp_path)
  (tmp_path / 'model.safetensors').rename(tmp_path / 'other.safetensors')
  (tmp_path / INDEX).write_text('{"weight_map')
  refused(tmp_path, f'{INDEX} is broken', 'get it again')
  (tmp_path / INDEX).write_text('{}')
  refused(tmp_path, f'{len(tensors_of("v1_0"))} missing, 0 extra')


@pytest.mark.parametrize('size', [0, 5, 1000, 200_000])
def test_half_a_file_is_refused(tmp_path, size):
  copy('v1_0', tmp_path)
  path = tmp_path / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:size])
  refused(tmp_path, 'model.safetensors is not a readable', 'download it again')


def test_quantised_weights_are_refused(tmp_path):
  copy('v1_0', tmp_path, {WO: tensors_of('v1_0')[WO].astype(np.int8)})
  refused(tmp_path, f'tensor {WO} is I8', 'floating-point', 'not quantised')


def test_a_wrong_vocabulary_size_is_refused(tmp_path):
  copy('v1_0', tmp_path, vocab_size=128)
  refused(
    tmp_path,
    '0 missing, 0 extra, 1 mis-shaped tensors',
    'shared.weight: the model needs (128, 32), the file has (96, 32)',
    'take the configuration that they were trained with',
  )
  copy('v1_1', tmp_path, vocab_size=128)
  refused(
    tmp_path, '2 mis-shaped', 'lm_head.weight: the model needs (128, 32), the'
  )


def test_a_wrong_width_is_refused_for_every_tensor(tmp_path):
  copy('v1_0', tmp_path, d_model=40)
  num = len(tensors_of('v1_0')) - 2  # all but the position biases
  refused(tmp_path, f'{num} mis-shaped', f'{WO}: the model needs (40, 64), the')


@pytest.mark.parametrize(
  'num_layers, message', [(2, '8 extra'), (4, '8 missi')]
)
def test_a_wrong_number_of_layers_is_refused(tmp_path, num_layers, message):
  copy('v1_0', tmp_path, num_layers=num_layers)
  layer = f'encoder.block.{max(2, num_layers - 1)}.layer.0.SelfAttention.q'
  refused(tmp_path, message, layer)


def test_every_misfit_is_named(tmp_path):
  norm = 'encoder.final_layer_norm.weight'
  copy(
    'v1_1',
    tmp_path,
    {norm: None, 'odd': np.zeros(3, np.float32), WO: np.zeros((32, 63))},
  )
  refused(
    tmp_path,
    '1 missing, 1 extra, 1 mis-shaped tensors',
    f'{norm}: missing',
    'odd: not part of the model',
    f'{WO}: the model needs (32, 64), the file has (32, 63)',
    'strict=False',
  )


def test_what_does_not_fit_keeps_its_initial_value_if_told_so(tmp_path, capsys):
  norm = 'decoder.block.0.layer.1.layer_norm.weight'
  copy('v1_1', tmp_path, {norm: None, WO: np.zeros((32, 63), np.float32)})
  module, params = huggingface.load(tmp_path, strict=False)
  assert f'{norm}: missing' in capsys.readouterr().out
  _, whole = t5_models.load('v1_1')
  found, expected = params['decoder']['layers'], whole['decoder']['layers']
  part = 'pre_cross_attention_layer_norm'
  np.testing.assert_array_equal(found[part]['scale'][0], 1)
  np.testing.assert_array_equal(
    found[part]['scale'][1], expected[part]['scale'][1]
  )
  found, expected = (
    found['mlp']['wo']['kernel'],
    expected['mlp']['wo']['kernel'],
  )
  np.testing.assert_array_equal(found[0], expected[0])
  assert 0 < jnp.abs(found[1]).max() and (found[1] != expected[1]).all()
  for name in ('encoder', 'token_embedder'):
    t5_models.assert_equal(params[name], whole[name])
  assert module == t5_models.load('v1_1')[0]


def test_a_target_of_another_model_is_refused():
  folder = t5_models.FOLDER / 'v1_1'
  config = t5_models.load('v1_1')[0].config
  fields = {k: v for k, v in vars(config).items() if k != 'vocab_size'}
  larger = t5.abstract_params(t5.T5(t5_models.tiny(**fields, vocab_size=128)))
  refused(
    folder,
    'decoder/logits_dense/kernel has shape (32, 96) there and (32, 128) in the',
    'resize_vocabulary',
    target=larger,
  )
  half = t5.abstract_params(t5.T5(config), ('encoder',))
  refused(folder, 'the target lacks decoder/', target=half)
  whole = t5.abstract_params(t5.T5(config))
  refused(folder, 'only the target has d', target=whole, halves=('encoder',))


@pytest.mark.parametrize('adapted', [dict(frozen_layers=1), dict(lora_rank=2)])
def test_what_no_other_program_knows_is_not_saved(tmp_path, adapted):
  config = t5_models.tiny(**adapted)
  with pytest.raises(ValueError, match='adaptation.restore'):
    huggingface.save(tmp_path, t5.T5(config), t5.abstract_params(t5.T5(config)))
  assert not list(tmp_path.iterdir())
