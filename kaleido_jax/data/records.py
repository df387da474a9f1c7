"""Examples on disk: ArrayRecord shards of msgpack, and what they are.

  folder/about.json                  kind, counts, whatever the writer says
  folder/00000.array_record ...
  folder/hashes.npy, rows.npy        see `key_index`

A record is a dict: key, image (a file's bytes), caption, latents (strings by
kind), and fields of the writer's own, such as a licence.
"""

import bisect
import functools
import hashlib
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import msgpack
import numpy as np
from array_record.python import array_record_module

from kaleido_jax.data import key_index

ABOUT = 'about.json'
MAX_OPEN_FILES = 64


class Unfinished:
  """A folder of records in the making, shard by shard.

  It lies beside the folder that it becomes. A shard is there when it is
  complete, so writing can go on after a crash, and shards can be shared out
  among processes.
  """

  def __init__(
    self, folder: str | pathlib.Path, *, inputs: Mapping[str, Any] | None = None
  ):
    """`inputs` is what the records are made of: others cannot go on with it."""
    self._folder = pathlib.Path(folder)
    if self._folder.exists():
      raise ValueError(
        f'{self._folder} exists; remove it, or give another folder.'
      )
    self._path = _unfinished(self._folder)
    self._path.mkdir(parents=True, exist_ok=True)
    self._check(json.dumps(inputs, sort_keys=True, indent=2))

  def _check(self, inputs: str) -> None:
    begun = self._path / 'inputs.json'
    if not begun.exists():
      partial = self._path / f'.inputs.{os.getpid()}'
      partial.write_text(inputs)
      partial.rename(begun)
    elif begun.read_text() != inputs:
      raise ValueError(
        f'{self._path} was begun with other inputs ({begun.read_text()}) than '
        f'these ({inputs}). Remove it, or give another folder.'
      )

  def shards(self) -> list[int]:
    """Those that are complete."""
    names = (path.name for path in self._path.glob('*.hashes.npy'))
    return sorted(int(name.partition('.')[0]) for name in names)

  def add(self, shard: int, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes a shard; returns how many records it has."""
    path = self._path / f'{shard:05}.array_record'
    hashes = []
    # One record a group: they are read one by one, in any order.
    writer = array_record_module.ArrayRecordWriter(str(path), 'group_size:1')
    try:
      for row in rows:
        writer.write(msgpack.packb(dict(row)))
        hashes.append(key_index.hash_of(row['key']))
    finally:
      writer.close()
    self._save(f'{shard:05}.hashes.npy', np.array(hashes, np.uint64))
    return len(hashes)

  def finish(self, *, kind: str, about: Mapping[str, Any]) -> None:
    """Indexes the shards, and gives the folder its name.

    Killed in here, or done by two processes at once, it can be done again.
    """
    found = [
      np.load(self._path / f'{shard:05}.hashes.npy') for shard in self.shards()
    ]
    count = sum(map(len, found))
    if not count:
      self.sweep(self._folder)
      raise ValueError(f'there is nothing to write to {self._folder}.')
    if self.shards() != list(range(len(found))):
      raise ValueError(f'{self._path} lacks shards; it has {self.shards()}.')
    hashes, rows = key_index.build(np.concatenate(found), np.arange(count))
    self._save('hashes.npy', hashes)
    self._save('rows.npy', rows)
    counts = {'count': count, 'shards': [len(part) for part in found]}
    text = json.dumps({'kind': kind, **counts, **about}, indent=2)
    (self._path / ABOUT).write_text(text + '\n')
    try:
      self._path.rename(self._folder)
    except FileNotFoundError:
      if not self._folder.exists():  # or another process was faster
        raise
    for shard in range(len(found)):
      (self._folder / f'{shard:05}.hashes.npy').unlink(missing_ok=True)
    (self._folder / 'inputs.json').unlink(missing_ok=True)

  def _save(self, name: str, array: np.ndarray) -> None:
    """A file that is complete as soon as it is there."""
    partial = self._path / f'.{name}.{os.getpid()}.npy'
    np.save(partial, array)
    partial.rename(self._path / name)

  @staticmethod
  def sweep(folder: str | pathlib.Path) -> None:
    """Removes what was left unfinished."""
    folder = pathlib.Path(folder)
    shutil.rmtree(_unfinished(folder), ignore_errors=True)


def _unfinished(folder: pathlib.Path) -> pathlib.Path:
  return folder.with_name(f'.{folder.name}.unfinished')


def write(
  folder: str | pathlib.Path,
  examples: Iterable[Mapping[str, Any]],
  *,
  kind: str,
  about: Mapping[str, Any],
  shard_size: int = 4096,
) -> None:
  """Writes all or nothing: the folder appears when it is complete.

  `about` is read at the end, so it may tell what the examples were.
  """
  Unfinished.sweep(folder)
  unfinished = Unfinished(folder)
  rest = iter(examples)
  for shard in itertools.count():
    if unfinished.add(shard, itertools.islice(rest, shard_size)) < shard_size:
      break
  unfinished.finish(kind=kind, about=about)


class Records:
  """The records of a folder, by index."""

  def __init__(self, folder: str | pathlib.Path, *, kind: str, command: str):
    """`command` is what the user runs if the folder is not there."""
    self.folder = pathlib.Path(folder)
    path = self.folder / ABOUT
    if not path.is_file():
      raise FileNotFoundError(
        f'there are no {kind} records in {self.folder}. Make them with: '
        f'{command}'
      )
    text = path.read_text()
    self.about = json.loads(text)
    if self.about['kind'] != kind:
      raise ValueError(
        f'{self.folder} holds {self.about["kind"]} records, not {kind} ones. '
        f'Make those with: {command}'
      )
    self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    self._ends = list(itertools.accumulate(self.about['shards']))

  def __len__(self) -> int:
    return self.about['count']

  def __getitem__(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'there is no record {index} of {len(self)}.')
    shard = bisect.bisect_right(self._ends, index)
    start = self._ends[shard - 1] if shard else 0
    # Who reads keeps the reader alive, if the cache lets go of it meanwhile.
    reader = self._open(shard)
    return msgpack.unpackb(reader.read([index - start])[0])

  @functools.cached_property
  def _open(self):
    """Opens a shard; so many, that no limit on open files is reached."""

    def opened(shard: int):
      path = self.folder / f'{shard:05}.array_record'
      return array_record_module.ArrayRecordReader(str(path))

    return functools.lru_cache(MAX_OPEN_FILES)(opened)

  def find(self, key: str) -> dict[str, Any] | None:
    """The record of a key."""
    for row in key_index.places(self._index, key):
      record = self[row]
      if record['key'] == key:
        return record
    return None

  @functools.cached_property
  def _index(self) -> tuple[np.ndarray, np.ndarray]:
    """Mapped, not read: worker processes share one copy of it."""
    return tuple(
      np.load(self.folder / name, mmap_mode='r')
      for name in ('hashes.npy', 'rows.npy')
    )

  def __getstate__(self) -> dict[str, Any]:
    # A pickled map would be a copy, and files are opened where they are read.
    opened = ('_index', '_open')
    return {k: v for k, v in self.__dict__.items() if k not in opened}
