"""Data sets that TFDS has prepared as ArrayRecord, read without TensorFlow.

Pictures stay encoded until `images.decode`; TFDS would have TensorFlow do it.
A caption is a text of the record, or the words of its label put in a template.
As with MDM, the plain words are the default: 'tench', not 'a photo of a tench'.

A record is keyed by its file_name if it has one, else as TFDS itself does, by
shard and place: both stay what they are in 'train[:10%]'.
"""

import bisect
import functools
import hashlib
import json
import pathlib
import re
from typing import Any

import tensorflow_datasets as tfds

from kaleido_jax.data import captions, images
from kaleido_jax.data.example import BadRecord, Example
from kaleido_jax.latents import Latents

NAME = re.compile(r'(?P<name>\w+)(/(?P<config>[^:/]+))?(:(?P<version>[\d.]+))?')
CAPTIONS = ('caption', 'text', 'label')


class Tfds:
  """A split of a prepared data set: imagenet2012, my_set/config:1.0.0."""

  kinds = ()

  def __init__(
    self,
    name: str,
    data_dir: str | pathlib.Path,
    *,
    split: str = 'train',
    caption: str | None = None,
    template: str = '{}',
  ):
    """`caption` names the text or label to use; else the first of CAPTIONS."""
    self._folder = find(name, data_dir)
    self._split, self._template = split, template
    info = self._builder.info
    self._image = _only_image(info)
    self._caption = _caption(info, caption)
    self._check(command(name, data_dir))
    self.fingerprint = self._fingerprint()

  def _check(self, command: str) -> None:
    info = self._builder.info
    if info.file_format.value != 'array_record':
      raise ValueError(
        f'{self._folder} is stored as {info.file_format.value}, which only '
        'TensorFlow reads; array_record is needed. Prepare it anew with\n  '
        f'{command}'
      )
    try:
      self._places  # noqa: B018  (asks TFDS for the split)
    except ValueError as error:
      raise ValueError(
        f'{self._folder} has splits {sorted(info.splits)}, but '
        f'{self._split!r} was asked for: {error}'
      ) from None

  def _fingerprint(self) -> str:
    info = self._builder.info
    # Not the slice: keys are the same in it, so its latents are.
    parts = sorted(set(re.findall(r'\w+', self._split)) & set(info.splits))
    shards = {part: info.splits[part].shard_lengths for part in parts}
    what = [info.full_name, shards, self._caption, self._template]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]

  def __len__(self) -> int:
    return self._places[0][-1]

  def __getitem__(self, index: int) -> Example:
    record = self._features.deserialize_example_np(
      self._source[index], decoders={self._image: tfds.decode.SkipDecoding()}
    )
    key = self._key(index, record)
    caption = self._said(record[self._caption], key)
    image = images.decode(record[self._image], key)
    return Example(key, image, caption, Latents())

  def _key(self, index: int, record: dict[str, Any]) -> str:
    if 'file_name' in record:
      return record['file_name'].decode('utf-8', 'replace')
    ends, files = self._places
    file = bisect.bisect_right(ends, index)
    instruction = files[file]
    row = instruction.skip + index - (ends[file] - instruction.take)
    return f'{pathlib.PurePath(instruction.filename).name}__{row}'

  def _said(self, value: Any, key: str) -> str:
    if isinstance(value, bytes):
      return captions.decode(value, key)
    if value < 0:  # test splits have no labels
      raise BadRecord('no caption', key, 'the label is -1')
    label = self._features[self._caption].int2str(int(value))
    return self._template.format(captions.of_class(label))

  # Opened where it is read, and never pickled.
  def __getstate__(self) -> dict[str, Any]:
    opened = ('_builder', '_source', '_features', '_places')
    return {k: v for k, v in self.__dict__.items() if k not in opened}

  @functools.cached_property
  def _builder(self) -> tfds.core.DatasetBuilder:
    return tfds.builder_from_directory(self._folder)

  @functools.cached_property
  def _source(self) -> Any:
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return self._builder.as_data_source(self._split, deserialize_method=raw)

  @functools.cached_property
  def _features(self) -> tfds.features.FeaturesDict:
    """What is read of a record; masks and the like would take time."""
    features = self._builder.info.features
    wanted = (self._image, self._caption, 'file_name')
    return tfds.features.FeaturesDict(
      {name: features[name] for name in wanted if name in features}
    )

  @functools.cached_property
  def _places(self) -> tuple[list[int], list[Any]]:
    """The shards of the split, and the index at which each of them ends."""
    files = self._builder.info.splits[self._split].file_instructions
    ends, total = [], 0
    for file in files:
      total += file.take
      ends.append(total)
    return ends, files


def find(name: str, data_dir: str | pathlib.Path) -> str:
  """The folder of a data set's newest version, or of the one asked for."""
  parts = NAME.fullmatch(name)
  if not parts:
    raise ValueError(
      f'tfds:{name} is not of the form tfds:NAME, tfds:NAME/CONFIG or '
      'tfds:NAME:VERSION.'
    )
  home = pathlib.Path(data_dir).expanduser() / parts['name']
  home = home / parts['config'] if parts['config'] else home
  pattern = parts['version'] or '*.*.*'
  found = [path.parent for path in home.glob(f'{pattern}/dataset_info.json')]
  if not found:
    inner = sorted(
      path.parts[-3] for path in home.glob('*/*/dataset_info.json')
    )
    hint = (
      f' It has configs {inner}: use tfds:{name}/{inner[0]}.' if inner else ''
    )
    raise FileNotFoundError(
      f'{home} holds no prepared data set.{hint} Prepare it with\n  '
      f'{command(name, data_dir)}'
    )
  return str(max(found, key=_version))


def _version(folder: pathlib.Path) -> list[int]:
  return [int(part) for part in folder.name.split('.') if part.isdigit()]


def command(name: str, data_dir: str | pathlib.Path) -> str:
  """What prepares a data set."""
  if name.partition(':')[0] == 'imagenet2012':
    return (
      f'python -m kaleido_jax.data.imagenet --source=FOLDER --out={data_dir}\n'
      'where FOLDER has ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar '
      'from https://image-net.org, where one needs an account.'
    )
  return f'tfds build {name} --data_dir={data_dir} --file_format=array_record'


def _only_image(info: tfds.core.DatasetInfo) -> str:
  found = [
    name
    for name, feature in info.features.items()
    if isinstance(feature, tfds.features.Image)
  ]
  if 'image' in found or len(found) == 1:
    return 'image' if 'image' in found else found[0]
  raise ValueError(
    f'{info.full_name} has {len(found)} pictures per record ({found}); a '
    "feature named 'image', or a single one, is needed."
  )


def _caption(info: tfds.core.DatasetInfo, wanted: str | None) -> str:
  usable = sorted(
    name
    for name, feature in info.features.items()
    if isinstance(feature, tfds.features.Text | tfds.features.ClassLabel)
  )
  for name in (wanted,) if wanted else CAPTIONS:
    if name in usable:
      return name
  raise ValueError(
    f'{info.full_name} has no {wanted or " or ".join(CAPTIONS)} to make '
    f'captions of; texts and labels in it are {usable}: name one as caption=.'
  )
