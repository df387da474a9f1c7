"""No field of a configuration is ignored in silence."""

import io
import json
import pathlib

import jax
import pytest
import t5_models
import tars
from ml_collections import ConfigDict
from PIL import Image

from configs import cc12m, toy
from kaleido_jax import compile as compiling
from kaleido_jax import origins, sharding, steering, train
from kaleido_jax import state as states
from kaleido_jax.data import sources
from kaleido_jax.extract import pipeline as extract
from kaleido_jax.models import kaleido

# Read by a mode that takes minutes.
ELSEWHERE = {
  'compile': ['compile.py'],
  'evaluate': [
    'evaluate.py',
    *(
      f'evaluation/{room}.py'
      for room in ('jobs', 'plan', 'reference', 'scores')
    ),
  ],
}


@pytest.fixture
def read(monkeypatch):
  """Makes configurations tell which of their fields are read."""
  names, found = {}, set()
  getitem = ConfigDict.__getitem__

  def told(self, key):
    if id(self) in names:
      found.add(f'{names[id(self)][0]}{key}')
    return getitem(self, key)

  def watch(section: ConfigDict, path: str = '') -> ConfigDict:
    for name, value in dict(section.items()).items():
      if isinstance(value, ConfigDict):
        watch(value, f'{path}{name}.')
    names[id(section)] = path, section  # kept, or another could get its id
    return section

  monkeypatch.setattr(ConfigDict, '__getitem__', told)
  return watch, found


def leaves(section: dict, path: str = '') -> set[str]:
  found = set()
  for name, value in section.items():
    inside = isinstance(value, dict)
    found |= leaves(value, f'{path}{name}.') if inside else {path + name}
  return found


def photographs(folder: pathlib.Path, vocabulary: str) -> ConfigDict:
  """A small run on four pictures, with latents in a store."""
  config = cc12m.get_config('tiny')
  config.latents = ('text', 'voken', 'color')
  config.data.update(
    path=str(folder),
    store=str(folder / 'store'),
    vocabulary=vocabulary,
    vocabulary_rows=96,
    voken_codes=16,
    voken_count=2,
    batch_size=2,
  )
  config.model.decoder.vocab_size = 96 + 16 + 512
  config.extract.update(
    file=str(folder / 'latents.jsonl'), t5=str(t5_models.FOLDER / 'v1_1')
  )
  stream = io.BytesIO()
  Image.new('RGB', (40, 36), (9, 99, 199)).save(stream, 'JPEG')
  picture = stream.getvalue()
  tars.write(
    folder / '00000.tar', [(str(n), picture, 'a dog') for n in range(4)]
  )
  with (folder / 'latents.jsonl').open('w') as file:
    for n in range(4):
      line = {'key': str(n), 'text': 'a dog and a cat', 'voken': '3#14'}
      file.write(json.dumps(line) + '\n')
  return config


def test_every_field_is_read(read, t5_like, tmp_path):
  watch, found = read

  config = toy.get_config()
  config.data.batch_size = 8
  config.model.denoiser.update(width=16, num_layers=1)
  config.train.num_steps = 3  # a first, a last, and one in between
  config.train.sample_count = 0  # what sheets read is traced below
  together = [name for name in steering.METHODS if name != 'autoguidance']
  config.sample.update(steps=2, threshold='dynamic', methods=together)
  train.run(watch(config), workdir=str(tmp_path / 'run'))
  mesh = sharding.create_mesh(config.mesh)
  for step in ('imagine', 'render'):
    config.compile.step = step
    compiling.lower(config, kaleido.from_config(config), mesh)
  config.sample.methods = ['autoguidance']
  config.sample.autoguidance.weaker = 'runs/early'
  assert steering.weaker(config.sample) == 'runs/early'

  config = watch(photographs(tmp_path, t5_like))
  extract.run(config, workdir='')
  origins.check(config, fresh=True)
  batch = next(sources.batches(config))
  mesh = sharding.create_mesh(config.mesh, jax.devices()[:1])
  model = kaleido.from_config(config)
  shapes, _ = states.shardings(config, model, mesh)
  jax.eval_shape(
    states.build_step(config, model, mesh, 5), shapes, batch.arrays
  )

  read_by_then = set(found)  # the next line reads all
  plain = config.to_dict()
  unread = leaves(plain) - read_by_then
  for section, files in ELSEWHERE.items():
    package = pathlib.Path('kaleido_jax')
    text = ''.join((package / file).read_text() for file in files)
    unread -= {
      f'{section}.{name}' for name in plain[section] if f'.{name}' in text
    }
  assert not unread


def test_a_field_that_nothing_reads_is_seen(read):
  watch, found = read
  config = ConfigDict({'used': 1, 'section': {'used': 2, 'unused': 3}})
  watch(config)
  assert config.used + config.section.used == 3
  assert found == {'used', 'section', 'section.used'}
