"""ImageNet in miniature, as tars and as folders, prepared and read back."""

import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from kaleido_jax.data import captions, imagenet
from kaleido_jax.data.tfds import Tfds

# Of the first validation pictures, by the list that comes with TFDS.
VALIDATION = {
  'ILSVRC2012_val_00000001.JPEG': 'n01751748',
  'ILSVRC2012_val_00000002.JPEG': 'n09193705',
  'ILSVRC2012_val_00000003.JPEG': 'n02105855',
}
TRAIN = {
  f'{label}_{n}.JPEG': label
  for label in ('n01440764', 'n02123045', 'n03126707')
  for n in range(4)
}


def jpeg(name: str) -> bytes:
  """A flat picture, of another grey for every name."""
  stream = io.BytesIO()
  level = sum(name.encode()) % 200
  Image.new('RGB', (20, 16), (level,) * 3).save(stream, 'JPEG')
  return stream.getvalue()


def archive(photos: dict[str, bytes]) -> bytes:
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w') as file:
    for name, data in photos.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      file.addfile(member, io.BytesIO(data))
  return stream.getvalue()


@pytest.fixture
def tars(tmp_path) -> pathlib.Path:
  """What image-net.org gives."""
  source = tmp_path / 'tars'
  source.mkdir()
  classes = {
    f'{label}.tar': archive({n: jpeg(n) for n in TRAIN if n.startswith(label)})
    for label in sorted(set(TRAIN.values()))
  }
  (source / 'ILSVRC2012_img_train.tar').write_bytes(archive(classes))
  (source / 'ILSVRC2012_img_val.tar').write_bytes(
    archive({name: jpeg(name) for name in VALIDATION})
  )
  return source


def put(path: pathlib.Path, data: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)


@pytest.fixture(params=['sorted', 'flat'])
def folders(tmp_path, request) -> pathlib.Path:
  """What people make of it."""
  source = tmp_path / 'folders'
  for name, label in TRAIN.items():
    put(source / 'train' / label / name, jpeg(name))
  for name, label in VALIDATION.items():
    inner = label if request.param == 'sorted' else ''
    put(source / 'val' / inner / name, jpeg(name))
  put(source / 'train' / 'n01440764' / '.DS_Store', b'not a picture')
  return source


def stored(folder: pathlib.Path) -> dict[str, bytes]:
  return {
    path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()
  }


def test_tars_become_examples_with_words(tars, tmp_path):
  folder = imagenet.prepare(tars, tmp_path / 'out')
  assert folder == tmp_path / 'out/imagenet2012/5.1.0'
  train = Tfds('imagenet2012', tmp_path / 'out')
  found = {
    example.key: example for example in map(train.__getitem__, range(12))
  }
  assert set(found) == set(TRAIN)
  words = {
    'n01440764': 'tench',
    'n02123045': 'tabby',
    'n03126707': 'construction crane',
  }
  for name, label in TRAIN.items():
    assert found[name].caption == words[label]
    expected = np.asarray(Image.open(io.BytesIO(jpeg(name))))
    np.testing.assert_array_equal(found[name].image, expected)
  validation = Tfds('imagenet2012', tmp_path / 'out', split='validation')
  assert {e.key: e.caption for e in map(validation.__getitem__, range(3))} == {
    'ILSVRC2012_val_00000001.JPEG': 'sea snake',
    'ILSVRC2012_val_00000002.JPEG': 'alp',
    'ILSVRC2012_val_00000003.JPEG': 'Shetland sheepdog',
  }


def test_folders_make_the_same_records(tars, folders, tmp_path):
  one = stored(imagenet.prepare(tars, tmp_path / 'one'))
  other = stored(imagenet.prepare(folders, tmp_path / 'other'))
  assert one.keys() == other.keys()
  for name in one:
    if 'array_record' in name:
      assert one[name] == other[name]


def test_tfds_itself_reads_them_in_the_order_that_it_would_have_made(
  tars, tmp_path
):
  """TFDS shuffles as it writes; so do we, alike, and keep the bytes."""
  out = tmp_path / 'out'
  imagenet.prepare(tars, out)

  class Imagenet2012(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('5.1.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=imagenet._features())

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      for name, label in TRAIN.items():
        yield name, {'image': jpeg(name), 'label': label, 'file_name': name}

  theirs = Imagenet2012(data_dir=tmp_path / 'tfds', file_format='array_record')
  theirs.download_and_prepare()
  skip = {'image': tfds.decode.SkipDecoding()}
  ours = tfds.builder_from_directory(out / 'imagenet2012/5.1.0')
  records = list(ours.as_data_source('train', decoders=skip))
  assert records == list(theirs.as_data_source('train', decoders=skip))
  for record in records:
    assert record['image'] == jpeg(record['file_name'].decode())


def test_labels_are_numbered_as_in_tfds():
  names = tfds.core.tfds_path('datasets/imagenet2012/labels.txt').read_text()
  classes = captions.imagenet_classes()
  assert list(classes) == names.split()
  firsts = {captions.of_class(name).lower() for name in classes}
  assert len(firsts) == 1000  # no two classes have the same caption
  assert len(imagenet.validation_labels()) == 50_000


def test_an_interrupted_run_goes_on(tars, tmp_path, monkeypatch):
  monkeypatch.setattr(imagenet, 'SHARD_BYTES', 1500)
  whole = stored(imagenet.prepare(tars, tmp_path / 'whole'))
  assert sum('train' in name for name in whole) > 2
  real, written = imagenet._record, []

  def failing(features, photo):
    if len(written) == 5:
      raise KeyboardInterrupt
    written.append(photo.name)
    return real(features, photo)

  monkeypatch.setattr(imagenet, '_record', failing)
  with pytest.raises(KeyboardInterrupt):
    imagenet.prepare(tars, tmp_path / 'out')
  with pytest.raises(FileNotFoundError, match='holds no prepared data set'):
    Tfds('imagenet2012', tmp_path / 'out')
  again = []
  monkeypatch.setattr(
    imagenet, '_record', lambda f, p: again.append(p.name) or real(f, p)
  )
  assert stored(imagenet.prepare(tars, tmp_path / 'out')) == whole
  assert 0 < len(again) < len(TRAIN) + len(VALIDATION)


def test_other_files_do_not_go_into_what_was_begun(tars, tmp_path, monkeypatch):
  monkeypatch.setattr(imagenet, '_describe', lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    imagenet.prepare(tars, tmp_path / 'out')
  with pytest.raises(ValueError, match='begun with other files or splits'):
    imagenet.prepare(tars, tmp_path / 'out', ['train'])


def test_what_is_missing_is_named(tars, tmp_path):
  (tars / 'ILSVRC2012_img_val.tar').unlink()
  with pytest.raises(FileNotFoundError, match=r'img_val.tar .*--splits=train'):
    imagenet.prepare(tars, tmp_path / 'out')
  imagenet.prepare(tars, tmp_path / 'out', ['train'])
  with pytest.raises(ValueError, match=r"splits \['train'\], but 'validation'"):
    Tfds('imagenet2012', tmp_path / 'out', split='validation')
  with pytest.raises(FileExistsError, match='move it away'):
    imagenet.prepare(tars, tmp_path / 'out', ['train'])


def test_a_cut_archive_is_refused(tars, tmp_path):
  path = tars / 'ILSVRC2012_img_train.tar'
  path.write_bytes(path.read_bytes()[:9000])
  with pytest.raises(ValueError, match='ends at byte .*download it again'):
    imagenet.prepare(tars, tmp_path / 'out')


def test_a_full_disk_is_seen_before_anything_is_written(
  tars, tmp_path, monkeypatch
):
  usage = type('Usage', (), {'free': 100})
  monkeypatch.setattr(imagenet.shutil, 'disk_usage', lambda _: usage)
  with pytest.raises(OSError, match='GB are free; choose another --out'):
    imagenet.prepare(tars, tmp_path / 'out')
  assert not list((tmp_path / 'out').rglob('*.array_record*'))


def test_names_that_say_no_class_are_refused(folders, tmp_path):
  put(folders / 'train/cats/a.JPEG', jpeg('a'))
  with pytest.raises(ValueError, match="'cats' in .* none of the 1000 classes"):
    imagenet.prepare(folders, tmp_path / 'out')


def test_the_command_needs_no_tensorflow(tars, tmp_path):
  program = (
    'import atexit, runpy, sys; atexit.register(lambda: print('
    'sorted({"tensorflow", "torch", "jax"} & set(sys.modules)))); '
    'runpy.run_module("kaleido_jax.data.imagenet", run_name="__main__")'
  )
  out = tmp_path / 'out'
  done = subprocess.run(
    [sys.executable, '-c', program, f'--source={tars}', f'--out={out}'],
    env={**os.environ, 'PYTHONPATH': os.getcwd()},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '--config.data.path=' in done.stdout and '[]' in done.stdout
  about = json.loads((out / 'imagenet2012/5.1.0/dataset_info.json').read_text())
  assert about['version'] == '5.1.0' and about['fileFormat'] == 'array_record'
