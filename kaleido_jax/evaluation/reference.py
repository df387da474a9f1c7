"""Real pictures and captions, of a split that training has not seen."""

import functools
import hashlib
import itertools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict

from kaleido_jax.data import images, sources
from kaleido_jax.data.example import BadRecord, Example

Images = UInt8[np.ndarray, 'n h w 3']
PART = 256  # pictures that are looked at together


class Reference:
  """Read when it is asked for, and far from one to the next.

  Some sets lie class by class: their first captions would be of one class.
  """

  def __init__(
    self,
    config: ConfigDict,
    wanted: ConfigDict,
    *,
    only: Iterable[str] = (),
    without: Iterable[str] = (),
  ):
    """wanted: config.evaluate. only, without: captions of its pictures."""
    self._config, self._wanted = config, wanted
    self._only, self._without = frozenset(only), frozenset(without)
    self._data = config.data.copy_and_resolve_references()
    if len(config.image_shapes[0]) < 3:
      raise ValueError(
        'the toy draws points; benchmarks/guidance_toy.py looks at those.'
      )
    if wanted.path:
      self._data.path = wanted.path
    elif self._data.source == 'webdataset':
      raise ValueError(
        'a webdataset has no splits: give config.evaluate.path, a folder of '
        'shards that training has not seen.'
      )
    self._size = config.image_shapes[0][0]
    recipe = sources.recipe(self._data, (), self._size)
    self._source = sources.alone(self._data, recipe, split=wanted.split)
    self._stride = _stride(len(self._source))
    self._count, self._split = wanted.real, wanted.split
    self._file = pathlib.Path(wanted.reference) if wanted.reference else None

  def captions(self, count: int) -> list[str]:
    """The first different ones."""
    found: dict[str, None] = {}
    for place in range(len(self._source)):
      if len(found) == count:
        break
      if example := self._example(place):
        found[example.caption] = None
    if len(found) < count:
      raise ValueError(
        f'the {self._split} split of {self._data.source} has {len(found)} '
        f'captions, fewer than config.evaluate.num_captions={count}.'
      )
    return list(found)

  @property
  def name(self) -> str:
    """Of the source: shapes."""
    return self._data.source.partition(':')[0]

  def whole(self) -> 'Reference':
    """All pictures of its split, or of its captions."""
    many = max(len(self._source), self._count)
    return self.other(real=many, only=self._only)

  def other(
    self,
    *,
    only: Iterable[str] = (),
    without: Iterable[str] = (),
    **changed: Any,
  ) -> 'Reference':
    """The same data, but for captions and some fields of config.evaluate."""
    wanted = self._wanted.copy_and_resolve_references()
    wanted.update(changed)
    return Reference(self._config, wanted, only=only, without=without)

  def ceiling(self) -> 'Reference | None':
    """Other real pictures, to be judged as drawn ones are, and as many.

    A file has no others; in shards, those of training are all there is.
    """
    wanted = self._wanted
    if not wanted.ceiling or self._file is not None:
      return None
    shards = self._data.source == 'webdataset'
    try:
      return self.other(
        split=wanted.ceiling,
        path=self._config.data.path if shards else wanted.path,
        real=wanted.num_captions * wanted.per_caption,
      )
    except (OSError, ValueError) as error:
      # Who evaluates need not have what was trained on.
      raise type(error)(
        f'{error}\nThese pictures would only be judged beside the drawn ones: '
        'without them, --config.evaluate.ceiling='
      ) from error

  @functools.cached_property
  def said(self) -> list[tuple[str, str]]:
    """(key, caption) of all pictures of all parts."""
    found = filter(None, map(self._example, self._places))
    return [(each.key, each.caption) for each in found]

  def of_captions(
    self, captions: Sequence[str]
  ) -> Int[np.ndarray, ' pictures'] | None:
    """Which of these each picture has, -1 where none; a file says nothing."""
    if self._file is not None:
      return None
    numbers = {caption: number for number, caption in enumerate(captions)}
    return np.array([numbers.get(caption, -1) for _, caption in self.said])

  def __str__(self) -> str:
    if self._file is not None:
      return f'{self._file.name} ({_digest(self._file)}), at most {self._count}'
    known = self._source.fingerprint
    known = known if known.startswith(self.name) else f'{self.name}-{known}'
    return (
      f'{known}, {self._split}{self._which}, at most {self._count}, '
      f'{self._size} pixels, {self._data.preprocess}'
    )

  @property
  def _which(self) -> str:
    """Of its captions, if these are not all."""
    told = ''
    for how, some in (('of', self._only), ('without', self._without)):
      if some:
        mark = hashlib.sha256('\n'.join(sorted(some)).encode()).hexdigest()[:8]
        told += f', {how} {len(some)} captions ({mark})'
    return told

  @property
  def parts(self) -> int:
    """Of pictures; an .npz may have statistics alone, and no pictures."""
    return -(-self._pictures // PART)

  def part(self, number: int) -> Images:
    """A part without the pictures that cannot be read."""
    rows = slice(number * PART, (number + 1) * PART)
    if self._file is not None:
      return self._of_file[rows][: self._pictures - rows.start]
    found = [
      images.preprocess(example.image, self._size, style=self._data.preprocess)
      for place in self._places[rows]
      if (example := self._example(place))
    ]
    return np.stack(found) if found else self._none

  @property
  def statistics(self) -> pathlib.Path | None:
    """A file of Inception's means and covariances."""
    return self._file

  @property
  def _pictures(self) -> int:
    there = self._places if self._file is None else self._of_file
    return min(len(there), self._count)

  @functools.cached_property
  def _places(self) -> Sequence[int]:
    """Where its pictures lie; all are read where captions are chosen."""
    if not (self._only or self._without):
      return range(min(len(self._source), self._count))
    found = (
      place
      for place in range(len(self._source))
      if (example := self._example(place)) and self._takes(example.caption)
    )
    return list(itertools.islice(found, self._count))

  def _takes(self, caption: str) -> bool:
    if caption in self._without:
      return False
    return not self._only or caption in self._only

  @property
  def _none(self) -> Images:
    return np.zeros((0, self._size, self._size, 3), np.uint8)

  @functools.cached_property
  def _of_file(self) -> Images:
    """What ADM's reference batches call arr_0."""
    if not self._file.is_file():
      raise FileNotFoundError(
        f'there is no file {self._file} (config.evaluate.reference).'
      )
    with np.load(self._file) as file:
      found = file['arr_0'] if 'arr_0' in file else self._none
    if found.shape[1:] != self._none.shape[1:]:
      raise ValueError(
        f'{self._file} has pictures of {list(found.shape[1:])}, and the model '
        f'draws {list(self._none.shape[1:])}.'
      )
    return found

  def _example(self, place: int) -> Example | None:
    try:
      return self._source[place * self._stride % len(self._source)]
    except BadRecord:
      return None  # as in training


def _stride(count: int) -> int:
  """Near the golden section, whose multiples spread evenly from the start.

  Without a factor in common with the count, so that each index comes once.
  """
  stride = max(round(count * (5**0.5 - 1) / 2), 1)
  while math.gcd(stride, count) > 1:
    stride += 1
  return stride


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()[:8]
