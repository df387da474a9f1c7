"""Prepares ImageNet (ILSVRC 2012) without TensorFlow.

  python -m kaleido_jax.data.imagenet --source=FOLDER --out=DATA_DIR

FOLDER holds, for the training split, one of

  ILSVRC2012_img_train.tar              as downloaded, a tar of tars
  train/n01440764/*.JPEG

and for the validation split one of

  ILSVRC2012_img_val.tar                as downloaded
  val/*.JPEG                            its files
  val/n01440764/*.JPEG                  its files, sorted into classes

The labels of the validation split come with TFDS; no devkit is needed. Pictures
keep their bytes. DATA_DIR/imagenet2012/5.1.0 gets the records that TFDS itself
would write, in its order, so `tfds.data_source('imagenet2012')` reads them too;
TFDS's own writer needs TensorFlow for anything above a gigabyte.

Run it again if it was interrupted: shards that are done are kept.
"""

import hashlib
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tensorflow_datasets as tfds
from absl import app, flags
from array_record.python import array_record_module
from tqdm import tqdm

from kaleido_jax.data import captions, tar

NAME, VERSION = 'imagenet2012', '5.1.0'
SPLITS = {'train': 'train', 'validation': 'val'}  # and how files call them
SHARD_BYTES = 128 << 20
SUFFIXES = ('.jpeg', '.jpg', '.png')  # one photograph is a PNG, named .JPEG


class Photo(NamedTuple):
  name: str  # n01440764_10026.JPEG
  label: str  # n01440764
  path: str
  offset: int
  size: int

  def read(self) -> bytes:
    with open(self.path, 'rb') as file:
      file.seek(self.offset)
      data = file.read(self.size)
    if len(data) < self.size:
      raise ValueError(f'{self.path} became shorter while it was read.')
    return data


def prepare(
  source: str | pathlib.Path,
  out: str | pathlib.Path,
  splits: Sequence[str] = tuple(SPLITS),
) -> pathlib.Path:
  """Writes the splits; returns the folder of the data set."""
  folder = pathlib.Path(out).expanduser() / NAME / VERSION
  if folder.exists():
    raise FileExistsError(
      f'{folder} exists; move it away to prepare {NAME} anew.'
    )
  source = pathlib.Path(source).expanduser()
  found = {split: _ordered(split, _photos(source, split)) for split in splits}
  partial = folder.with_name(f'{VERSION}.partial')
  partial.mkdir(parents=True, exist_ok=True)
  _check_plan(partial, found)
  shards = {split: _shards(split, found[split]) for split in splits}
  _check_space(partial, shards)
  for split in splits:
    _write(partial, split, shards[split])
  _describe(partial, shards)
  partial.rename(folder)
  return folder


def _photos(source: pathlib.Path, split: str) -> list[Photo]:
  short = SPLITS[split]
  archive, folder = source / f'ILSVRC2012_img_{short}.tar', source / short
  if archive.exists():
    try:
      read = _train_archive if split == 'train' else _validation_archive
      return list(read(archive))
    except tar.DamagedError as error:
      raise ValueError(f'{archive} {error}; download it again.') from None
  if folder.exists():
    return list(_files(folder))
  others = [other for other in SPLITS if other != split]
  raise FileNotFoundError(
    f'the {split} split needs {archive} or a folder {folder}, and neither '
    'exists. Download it from https://image-net.org (an account is needed), or '
    f'leave it out: --splits={others[0]}.'
  )


def _train_archive(path: pathlib.Path) -> Iterator[Photo]:
  with open(path, 'rb') as file:
    progress = tqdm(unit=' classes', desc='looking', disable=None)
    for archive in tar.members(file.fileno()):
      label = _known(archive.name.removesuffix('.tar'), path)
      stop = archive.offset + archive.size
      for photo in tar.members(file.fileno(), archive.offset, stop):
        yield Photo(photo.name, label, str(path), photo.offset, photo.size)
      progress.update()
    progress.close()


def _validation_archive(path: pathlib.Path) -> Iterator[Photo]:
  labels = validation_labels()
  with open(path, 'rb') as file:
    for photo in tar.members(file.fileno()):
      label = _label_of(photo.name, labels, path)
      yield Photo(photo.name, label, str(path), photo.offset, photo.size)


def _files(folder: pathlib.Path) -> Iterator[Photo]:
  """Files in folders of classes, or validation files side by side."""
  labels = validation_labels()
  for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
    if entry.is_dir():
      label = _known(entry.name, folder)
      for file in os.scandir(entry.path):
        if file.name.lower().endswith(SUFFIXES):
          yield Photo(file.name, label, file.path, 0, file.stat().st_size)
    elif entry.name.lower().endswith(SUFFIXES):
      label = _label_of(entry.name, labels, folder)
      yield Photo(entry.name, label, entry.path, 0, entry.stat().st_size)


def _known(label: str, where: pathlib.Path) -> str:
  if label in captions.imagenet_classes():
    return label
  raise ValueError(
    f'{label!r} in {where} is none of the 1000 classes, such as n01440764.'
  )


def _label_of(name: str, labels: list[str], where: pathlib.Path) -> str:
  match = re.fullmatch(r'ILSVRC2012_val_(\d{8})\.JPEG', name)
  if match and 1 <= int(match[1]) <= len(labels):
    return labels[int(match[1]) - 1]
  raise ValueError(
    f'{name} in {where} has no known label; names such as '
    'ILSVRC2012_val_00000001.JPEG, or folders of classes, are needed.'
  )


def validation_labels() -> list[str]:
  """The class of ILSVRC2012_val_00000001.JPEG, of 00000002 ..."""
  path = tfds.core.tfds_path(f'datasets/{NAME}/validation_labels.txt')
  return path.read_text().split()


def _ordered(split: str, photos: list[Photo]) -> list[Photo]:
  """Shuffled as TFDS does: by the hash of the split and the name."""
  if not photos:
    raise ValueError(f'the {split} split has no pictures.')
  by_name = {photo.name: photo for photo in photos}
  if len(by_name) < len(photos):
    raise ValueError(
      f'{len(photos) - len(by_name)} pictures of the {split} split share their '
      'name with another; names have to be unique.'
    )
  return sorted(
    photos, key=lambda p: hashlib.md5(f'{split}{p.name}'.encode()).digest()
  )


def _shards(split: str, photos: list[Photo]) -> dict[str, list[Photo]]:
  """The files to write."""
  total = sum(photo.size for photo in photos)
  number = min(-(-total // SHARD_BYTES), len(photos)) or 1
  bounds = [i * len(photos) // number for i in range(number + 1)]
  return {
    f'{NAME}-{split}.array_record-{i:05d}-of-{number:05d}': photos[
      bounds[i] : bounds[i + 1]
    ]
    for i in range(number)
  }


def _check_plan(partial: pathlib.Path, found: dict[str, list[Photo]]) -> None:
  """Shards that an earlier run left must be of the same pictures."""
  digest = hashlib.sha256()
  for split, photos in found.items():
    for photo in photos:
      digest.update(
        f'{split} {photo.name} {photo.label} {photo.size}\n'.encode()
      )
  plan = partial / 'plan'
  if plan.exists() and plan.read_text() != digest.hexdigest():
    raise ValueError(
      f'{partial} was begun with other files or splits; remove it to begin '
      'anew.'
    )
  plan.write_text(digest.hexdigest())


def _check_space(
  partial: pathlib.Path, shards: dict[str, dict[str, list[Photo]]]
) -> None:
  needed = sum(
    photo.size + 256  # name, label, and what frames them
    for files in shards.values()
    for file, photos in files.items()
    if not (partial / file).exists()
    for photo in photos
  )
  free = shutil.disk_usage(partial).free
  if free < needed:
    raise OSError(
      f'{partial} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are '
      'free; choose another --out, or one split with --splits.'
    )


def _write(
  partial: pathlib.Path, split: str, shards: dict[str, list[Photo]]
) -> None:
  features = _features()
  total = sum(map(len, shards.values()))
  with tqdm(total=total, unit=' images', desc=split, disable=None) as progress:
    for file, photos in shards.items():
      if not (partial / file).exists():
        writing = partial / 'writing'
        writer = array_record_module.ArrayRecordWriter(
          str(writing), 'group_size:1'
        )
        for photo in photos:
          writer.write(_record(features, photo))
        writer.close()
        writing.rename(partial / file)
      progress.update(len(photos))


def _record(features: tfds.features.FeaturesDict, photo: Photo) -> bytes:
  return features.serialize_example(
    {'image': photo.read(), 'label': photo.label, 'file_name': photo.name}
  )


def _features() -> tfds.features.FeaturesDict:
  names = list(captions.imagenet_classes())
  return tfds.features.FeaturesDict(
    {
      'image': tfds.features.Image(encoding_format='jpeg'),
      'label': tfds.features.ClassLabel(names=names),
      'file_name': tfds.features.Text(),
    }
  )


def _describe(
  partial: pathlib.Path, shards: dict[str, dict[str, list[Photo]]]
) -> None:
  """What TFDS reads first: features.json, dataset_info.json, the labels."""
  template = tfds.core.ShardedFileTemplate(
    data_dir=partial, dataset_name=NAME, filetype_suffix='array_record'
  )
  tfds.folder_dataset.write_metadata(
    data_dir=partial,
    features=_features(),
    split_infos=[
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=list(map(len, files.values())),
        num_bytes=sum((partial / file).stat().st_size for file in files),
        filename_template=template.replace(split=split),
      )
      for split, files in shards.items()
    ],
    version=VERSION,
    check_data=False,  # which needs TensorFlow
    supervised_keys=('image', 'label'),
    homepage='https://image-net.org/',
  )
  (partial / 'plan').unlink()


def define_flags() -> None:
  """Not when this is imported: flags are for whoever runs the program."""
  flags.DEFINE_string('source', None, 'What was downloaded.', required=True)
  flags.DEFINE_string('out', None, 'A data_dir of TFDS.', required=True)
  flags.DEFINE_multi_enum('splits', list(SPLITS), list(SPLITS), 'Which splits.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected {argv[1]!r}: every argument is a flag.')
  given = flags.FLAGS
  try:
    folder = prepare(given.source, given.out, given.splits)
  except (OSError, ValueError) as error:
    sys.exit(f'{error}')
  print(f'{NAME} is in {folder}; train with --config.data.path={given.out}')


if __name__ == '__main__':
  define_flags()
  app.run(main)
