"""Examples on disk: ArrayRecord shards of msgpack, and what they are.

  folder/about.json                  kind, counts, whatever the writer says
  folder/00000.array_record ...
  folder/hashes.npy, rows.npy        where the record of a key stands

A record is a dict: key, image (a file's bytes), caption, latents (strings by
kind), and fields of the writer's own, such as a licence.
"""

import functools
import hashlib
import json
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

import msgpack
import numpy as np
from array_record.python import array_record_module
from grain import sources

ABOUT = 'about.json'


def write(
  folder: str | pathlib.Path,
  examples: Iterable[Mapping[str, Any]],
  *,
  kind: str,
  about: Mapping[str, Any],
  shard_size: int = 4096,
) -> None:
  """Writes all or nothing: the folder appears when it is complete."""
  folder = pathlib.Path(folder)
  if folder.exists():
    raise ValueError(f'{folder} exists; remove it, or give another folder.')
  unfinished = folder.with_name(f'.{folder.name}.unfinished')
  shutil.rmtree(unfinished, ignore_errors=True)
  unfinished.mkdir(parents=True)
  counts, hashes, writer = [], [], None
  try:
    for index, example in enumerate(examples):
      if index % shard_size == 0:
        if writer is not None:
          writer.close()
        path = unfinished / f'{len(counts):05}.array_record'
        # One record a group: they are read one by one, in any order.
        writer = array_record_module.ArrayRecordWriter(
          str(path), 'group_size:1'
        )
        counts.append(0)
      writer.write(msgpack.packb(dict(example)))
      counts[-1] += 1
      hashes.append(_hash(example['key']))
  finally:
    if writer is not None:
      writer.close()
  if not counts:
    shutil.rmtree(unfinished)
    raise ValueError(f'there is nothing to write to {folder}.')
  rows = np.argsort(np.array(hashes, np.uint64), kind='stable')
  np.save(unfinished / 'hashes.npy', np.array(hashes, np.uint64)[rows])
  np.save(unfinished / 'rows.npy', rows)
  text = json.dumps(
    {'kind': kind, 'count': sum(counts), 'shards': counts, **about}, indent=2
  )
  (unfinished / ABOUT).write_text(text + '\n')
  unfinished.rename(folder)


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
    shards = range(len(self.about['shards']))
    self._records = sources.ArrayRecordDataSource(
      [str(self.folder / f'{shard:05}.array_record') for shard in shards]
    )

  def __len__(self) -> int:
    return self.about['count']

  def __getitem__(self, index: int) -> dict[str, Any]:
    return msgpack.unpackb(self._records[index])

  def find(self, key: str) -> dict[str, Any] | None:
    """The record of a key."""
    hashes, rows = self._index
    wanted = _hash(key)
    for at in range(int(np.searchsorted(hashes, wanted)), len(hashes)):
      if hashes[at] != wanted:
        return None
      record = self[int(rows[at])]
      if record['key'] == key:  # two keys may have one hash
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
    # A pickled map would be a copy.
    return {k: v for k, v in self.__dict__.items() if k != '_index'}


def _hash(key: str) -> np.uint64:
  digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
  return np.uint64(int.from_bytes(digest, 'little'))
