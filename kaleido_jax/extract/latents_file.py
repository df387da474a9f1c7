"""Latents that another tool made, as lines of JSON in any order.

  {"key": "000000017", "text": "A pug ...", "bbox": "pug (320, 275, 591, 730)"}

A captioner, a detector or a tokenizer writes the strings; the key is the one
that the source gives its examples.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tqdm

from kaleido_jax.data import key_index
from kaleido_jax.data.example import BadRecord


class LatentsFile:
  """Strings by kind, for every key of a file. Reads a line when it is asked."""

  def __init__(self, path: str | pathlib.Path):
    self._path = pathlib.Path(path)
    if not self._path.is_file():
      raise FileNotFoundError(
        f'there is no file {self._path}. It has a line of JSON for each '
        'example, {"key": KEY, "text": STRING, ...}; give it as '
        '--config.extract.file.'
      )
    found = self._path.stat()
    self.fingerprint = f'{found.st_size}-{found.st_mtime_ns}'
    self._index = self._read()

  def __len__(self) -> int:
    return len(self._index[0])

  def __getitem__(self, key: str) -> Mapping[str, Any]:
    """What all lines of a key say: one may have words, another boxes."""
    found: dict[str, Any] = {}
    with self._path.open('rb') as file:
      for offset in key_index.places(self._index, key):
        file.seek(offset)
        line = json.loads(file.readline().decode('utf-8-sig'))
        if line.pop('key') == key:
          found |= line
    if not found:
      raise BadRecord('no latents', key)
    return found

  def _read(self) -> key_index.Index:
    """Where the line of each key begins."""
    hashes, offsets, at = [], [], 0
    size = self._path.stat().st_size
    with (
      self._path.open('rb') as file,
      tqdm.tqdm(
        total=size, unit='B', unit_scale=True, desc=f'indexing {self._path}'
      ) as bar,
    ):
      for number, line in enumerate(file, 1):
        if line.strip():
          hashes.append(key_index.hash_of(self._key(line, number)))
          offsets.append(at)
        at += len(line)
        bar.update(len(line))
    return key_index.build(hashes, offsets)

  def _key(self, line: bytes, number: int) -> str:
    try:
      key = json.loads(line.decode('utf-8-sig'))['key']
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f'{self._path}, line {number}: this is not {{"key": KEY, "text": '
        f'STRING, ...}} ({type(error).__name__}: {error}).'
      ) from None
    if not isinstance(key, str):
      raise ValueError(
        f'{self._path}, line {number}: the key is {key!r}, which is no string.'
      )
    return key
