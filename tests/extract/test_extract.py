"""Latent stores: from a file of latents and a T5 to a batch of training."""

import io
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tars
from PIL import Image

from configs import cc12m
from kaleido_jax.convert import huggingface
from kaleido_jax.data import records, sources, store
from kaleido_jax.data.example import BadRecord
from kaleido_jax.extract import pipeline
from kaleido_jax.extract.latents_file import LatentsFile
from kaleido_jax.latents import Latents
from kaleido_jax.latents.tokens import PAD

CAPTIONS = ['a dog', 'a cat and a dog', 'a cat', '3 dog', 'a dog, a cat', '7']


def jpeg(shade: int) -> bytes:
  file = io.BytesIO()
  Image.new('RGB', (40, 32), (shade, 90, 90)).save(file, 'JPEG')
  return file.getvalue()


@pytest.fixture
def config(tmp_path, data, t5_like):
  """CC12M in small: six pictures, latents for all but one, a T5 of its own."""
  tars.write(
    tmp_path / '00000.tar',
    [
      (f'{index:09}', jpeg(40 * index), caption)
      for index, caption in enumerate(CAPTIONS)
    ],
  )
  lines = [
    {'key': f'{index:09}', 'text': f'number {index}', 'color': 'not asked for'}
    for index in reversed(range(5))
  ]
  text = '\n'.join(map(json.dumps, lines)) + '\n\n'
  (tmp_path / 'latents.jsonl').write_text(text)
  config = cc12m.get_config('64')
  config.latents = ('text', 'color')
  config.data.update(
    source='webdataset',
    path=str(tmp_path),
    store=str(tmp_path / 'store'),
    vocabulary=t5_like,
    vocabulary_rows=96,
    caption_length=24,
    batch_size=5,
    num_workers=0,
  )
  config.data.lengths.text = 40
  config.extract.update(
    file=str(tmp_path / 'latents.jsonl'),
    t5=str(data / 't5_huggingface/v1_1'),
    shard_size=4,
    batch_size=3,
  )
  config.model.encoder.dtype = 'float32'
  return config


def run(config):
  pipeline.run(config, workdir='')


def encoder_name(config) -> str:
  _, params = huggingface.load(config.extract.t5, halves=('encoder',))
  words = sources.vocabulary(config.data, config.latents)
  return store.encoder_name(
    params, 'float32', words, config.data.caption_length
  )


def test_from_files_to_a_batch_of_training(config):
  run(config)
  batch = next(sources.batches(config, encoder=encoder_name(config)))
  assert {record.reason for record in batch.bad} <= {'no latents'}
  vocabulary = sources.vocabulary(config.data, config.latents)
  module, params = huggingface.load(config.extract.t5, halves=('encoder',))
  for i, key in enumerate(batch.keys):
    found, problems = Latents.parse(
      vocabulary.decode(batch.arrays['z'][i]), vocabulary.kinds
    )
    assert not problems and len(found.colors) == 16
    ids = batch.arrays['ids'][i : i + 1]
    states = module.apply(
      {'params': params}, jnp.asarray(ids), ids != PAD, method='encode'
    )
    used = int((ids != PAD).sum())
    memory = batch.arrays['memory'][i]
    np.testing.assert_allclose(memory[:used], states[0, :used], atol=1e-5)
    assert not memory[used:].any()
    text = store.Joined(
      sources.alone(config.data, sources.recipe_of(config), split='train'),
      config.data.store,
      kinds=('text',),
    )[int(key)].latents.text
    assert text == f'number {int(key)}'


def test_without_a_file_there_are_states_and_no_latents(config):
  config.extract.file = ''
  run(config)
  found = records.Records(config.data.store, kind=store.KIND, command='')
  assert len(found) == 6 and found.about['kinds'] == []
  assert found.about['encoder'] == encoder_name(config)


def test_it_goes_on_where_it_was_killed(config, monkeypatch):
  run_whole(config, 'whole')
  made = []

  def dying(self, shard, rows):
    if made:
      raise KeyboardInterrupt
    made.append(shard)
    return add(self, shard, rows)

  add = records.Unfinished.add
  monkeypatch.setattr(records.Unfinished, 'add', dying)
  with pytest.raises(KeyboardInterrupt):
    run(config)
  monkeypatch.setattr(records.Unfinished, 'add', counting(add, again := []))
  run(config)
  assert made == [0] and again == [1]
  assert contents(config.data.store) == contents(f'{config.data.store}-whole')


def test_it_does_not_go_on_with_other_latents(config, monkeypatch):
  def dying(self, shard, rows):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(records.Unfinished, 'add', dying)
    run(config)
  with open(config.extract.file, 'a') as file:
    file.write('{"key": "x", "text": "y"}')
  with pytest.raises(ValueError, match='begun with other inputs'):
    run(config)


def counting(add, seen):
  def counted(self, shard, rows):
    seen.append(shard)
    return add(self, shard, rows)

  return counted


def run_whole(config, name):
  folder = config.data.store
  config.data.store = f'{folder}-{name}'
  run(config)
  config.data.store = folder


def contents(folder) -> list:
  found = records.Records(folder, kind=store.KIND, command='')
  return [found.about, *(found[i] for i in range(len(found)))]


def test_parts_share_the_work(config):
  run_whole(config, 'whole')
  config.extract.part = '1/2'
  run(config)
  with pytest.raises(FileNotFoundError):  # half of it is no store
    contents(config.data.store)
  config.extract.part = '0/2'
  run(config)
  assert contents(config.data.store) == contents(f'{config.data.store}-whole')


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'file': '', 't5': ''}, 'nothing to extract.*config.extract.file='),
    ({'part': '1'}, 'part=.1. is not of the form 0/4'),
    ({'part': '4/4'}, 'part=.4/4. is not of the form 0/4'),
    ({'shard_size': 0}, 'shard_size=0'),
    ({'file': 'nowhere.jsonl'}, 'no file nowhere.jsonl.*a line of JSON'),
    ({'t5': 'nowhere'}, 'nowhere has no config.json'),
  ],
)
def test_mistakes_end_with_a_sentence(config, fields, message):
  config.extract.update(fields)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    run(config)


def test_it_asks_where_to(config):
  config.data.store = ''
  with pytest.raises(ValueError, match='where to'):
    run(config)


def test_a_line_that_is_no_json_is_named(tmp_path):
  path = tmp_path / 'latents.jsonl'
  path.write_text('{"key": "a", "text": "b"}\n{"text": "no key"}\n')
  with pytest.raises(ValueError, match='line 2: this is not'):
    LatentsFile(path)
  path.write_text('{"key": 3}\n')
  with pytest.raises(ValueError, match='line 1: the key is 3'):
    LatentsFile(path)


def test_latents_are_found_in_any_order(tmp_path):
  path = tmp_path / 'latents.jsonl'
  lines = [{'key': f'k{i}', 'text': 'ü' * i} for i in range(50)]
  path.write_text('\n'.join(json.dumps(line) for line in lines[::-1]))
  found = LatentsFile(path)
  assert len(found) == 50
  assert all(found[f'k{i}'] == {'text': 'ü' * i} for i in range(50))
  with pytest.raises(BadRecord, match='k50: no latents'):
    found['k50']


def test_lines_of_one_key_are_put_together(tmp_path):
  """A captioner's file and a detector's, one after the other."""
  path = tmp_path / 'latents.jsonl'
  lines = [{'key': 'a', 'text': 'x', 'score': 0.5}, {'key': 'a', 'bbox': 'y'}]
  text = '\r\n'.join(map(json.dumps, lines))
  path.write_bytes(b'\xef\xbb\xbf' + text.encode())  # as Windows writes it
  assert LatentsFile(path)['a'] == {'text': 'x', 'score': 0.5, 'bbox': 'y'}


def test_latents_that_cannot_be_used_are_counted_not_raised(config):
  with open(config.extract.file, 'a') as file:
    file.write('{"key": "000000005", "text": "\\ud800"}\n')  # half a letter
    file.write('{"key": "000000004", "text": 7}\n')
  config.extract.t5 = ''
  run(config)
  assert len(contents(config.data.store)) == 5  # about, and four


def test_what_needs_no_store_is_told_so(config):
  config.latents, config.extract.t5 = ('color',), ''
  with pytest.raises(ValueError, match='webdataset needs no store'):
    run(config)
