"""Data sets that TFDS itself has built, read without TensorFlow."""

import io
import os
import pickle
import re
import subprocess
import sys

import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kaleido_jax.data.example import BadRecord
from kaleido_jax.data.tfds import Tfds

NUMBER = 7


def png(level: int) -> bytes:
  stream = io.BytesIO()
  Image.new('RGB', (9, 6), (level, 2 * level, 3 * level)).save(stream, 'PNG')
  return stream.getvalue()


def example(n: int) -> dict:
  return {
    'image': png(n) if n != 5 else b'<html>',
    'caption': f'number {n}' if n != 6 else ' ',
    'label': ('polar_bear', 'tench')[n % 2],
    'mask': png(0),
  }


class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  VERSION = tfds.core.Version('1.2.0')

  def _info(self):
    features = tfds.features.FeaturesDict(
      {
        'image': tfds.features.Image(),
        'caption': tfds.features.Text(),
        'label': tfds.features.ClassLabel(names=['polar_bear', 'tench']),
        'mask': tfds.features.Image(),
      }
    )
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for n in range(NUMBER):
      yield n, example(n)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('tfds')
  builder = Photographs(data_dir=path, file_format='array_record')
  builder.download_and_prepare()
  return path


def readable(source: Tfds) -> dict[str, tuple[str, list[int]]]:
  found = {}
  for index in range(len(source)):
    try:
      one = source[index]
    except BadRecord:
      continue
    assert one.image.shape == (6, 9, 3) and not one.latents
    found[one.key] = one.caption, one.image[0, 0].tolist()
  return found


def test_pictures_and_captions_belong_together(data_dir):
  source = Tfds('photographs', data_dir)
  assert len(source) == NUMBER
  assert sorted(readable(source).values()) == [
    (f'number {n}', [n, 2 * n, 3 * n]) for n in range(5)
  ]


def test_what_is_wrong_with_a_record_is_said(data_dir):
  source, reasons = Tfds('photographs', data_dir), []
  for index in range(NUMBER):
    try:
      source[index]
    except BadRecord as error:
      assert error.key.startswith('photographs-train.array_record-00000-of-')
      reasons.append(error.reason)
  assert sorted(reasons) == ['no caption', 'not an image']


def test_labels_become_words_in_a_template(data_dir):
  source = Tfds(
    'photographs', data_dir, caption='label', template='a photo of a {}'
  )
  captions = {pixel[0]: caption for caption, pixel in readable(source).values()}
  assert captions[0] == 'a photo of a polar bear'
  assert captions[1] == 'a photo of a tench'


def test_keys_are_those_of_tfds_and_the_same_in_every_slice(data_dir):
  """TFDS names records by shard and place (`add_tfds_id`)."""
  whole = Tfds('photographs', data_dir)
  parts = [
    Tfds('photographs', data_dir, split=f'train[{part}]')
    for part in ('3:', ':3')
  ]
  assert [len(part) for part in parts] == [4, 3]
  assert readable(whole) == readable(parts[0]) | readable(parts[1])
  name = 'photographs-train.array_record-00000-of-00001'
  assert set(readable(whole)) <= {f'{name}__{n}' for n in range(NUMBER)}
  assert whole.fingerprint == parts[0].fingerprint


def test_the_fingerprint_tells_captions_apart(data_dir):
  prints = {
    Tfds(
      'photographs', data_dir, caption=caption, template=template
    ).fingerprint
    for caption, template in ((None, '{}'), ('label', '{}'), ('label', 'a {}'))
  }
  assert len(prints) == 3


def test_sources_travel_without_what_they_opened(data_dir):
  source = Tfds('photographs', data_dir, split='train[1:4]')
  before = readable(source)
  data = pickle.dumps(source)
  assert len(data) < 1000
  assert readable(pickle.loads(data)) == before
  assert pickle.loads(data).fingerprint == source.fingerprint


def test_reading_needs_no_tensorflow(data_dir):
  key = next(iter(readable(Tfds('photographs', data_dir))))
  good = key.rpartition('__')[2]
  program = (
    'import sys; from kaleido_jax.data.tfds import Tfds; '
    f'print(Tfds("photographs:1.2.0", {str(data_dir)!r})[{good}].image.shape); '
    'assert not {"tensorflow", "torch", "jax"} & set(sys.modules)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout == '(6, 9, 3)\n'


@pytest.mark.parametrize(
  'name, command',
  [
    ('imagenet2012', 'python -m kaleido_jax.data.imagenet --source=FOLDER'),
    ('oxford_flowers102', 'tfds build oxford_flowers102'),
    ('photographs:9.0.0', 'tfds build photographs:9.0.0'),
  ],
)
def test_what_is_not_prepared_names_the_command(data_dir, name, command):
  with pytest.raises(FileNotFoundError, match=re.escape(command)):
    Tfds(name, data_dir)


def test_a_config_that_was_left_out_is_named(data_dir, tmp_path):
  (tmp_path / 'many').mkdir()
  (tmp_path / 'many/small').symlink_to(data_dir / 'photographs')
  with pytest.raises(FileNotFoundError, match='use tfds:many/small'):
    Tfds('many', tmp_path)
  assert len(Tfds('many/small', tmp_path)) == NUMBER


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'name': 'photo graphs'}, 'not of the form tfds:NAME'),
    ({'split': 'test'}, r"has splits \['train'\], but 'test'"),
    ({'caption': 'title'}, r"no title .* are \['caption', 'label'\]"),
  ],
)
def test_wrong_arguments_get_a_sentence(data_dir, arguments, message):
  with pytest.raises(ValueError, match=message):
    Tfds(**{'name': 'photographs', 'data_dir': data_dir, **arguments})


def test_another_file_format_is_refused(data_dir, tmp_path):
  """Only TensorFlow reads tfrecord."""
  home = tmp_path / 'photographs/1.2.0'
  home.mkdir(parents=True)
  for path in (data_dir / 'photographs/1.2.0').iterdir():
    text = path.read_bytes().replace(b'"array_record"', b'"tfrecord"')
    (home / path.name).write_bytes(text)
  with pytest.raises(ValueError, match='(?s)stored as tfrecord.*tfds build'):
    Tfds('photographs', tmp_path)
