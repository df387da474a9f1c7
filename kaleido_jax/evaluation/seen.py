"""What an extractor sees in pictures, part by part, beside the pictures.

  FOLDER/efficientnet_lite0-57934424/00003-of-00016.npz

A name of the extractor has how its weights begin. Processes share the parts.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from kaleido_jax.evaluation import kept
from kaleido_jax.metrics.features import Extractor

Features = Mapping[str, Float[np.ndarray, 'n _']]


@runtime_checkable
class Pictures(Protocol):
  """Drawn ones, or real ones."""

  parts: int

  def part(self, number: int) -> UInt8[np.ndarray, 'n h w 3']: ...


class Seen:
  """Of all parts of some pictures."""

  def __init__(
    self, pictures: Pictures, extractor: Extractor, folder: pathlib.Path
  ):
    self.pictures, self._extractor = pictures, extractor
    self._folder = folder / str(extractor)

  def look(
    self,
    share: tuple[int, int] = (0, 1),
    done: Callable[[], object] = lambda: None,
  ) -> None:
    """At what nobody has looked at, of a share."""
    first, of = share
    for number in range(first, self.pictures.parts, of):
      if not self._path(number).exists():
        images = self.pictures.part(number)
        if len(images):  # or none of them could be read
          kept.write(self._path(number), self._extractor(images))
        else:
          kept.write(self._path(number), {})
      done()

  @property
  def parts(self) -> int:
    return self.pictures.parts

  @property
  def is_complete(self) -> bool:
    return all(self._path(number).exists() for number in range(self.parts))

  def read(self) -> Features:
    parts = [kept.read(self._path(number)) for number in range(self.parts)]
    some = [part for part in parts if part]
    return {
      name: np.concatenate([part[name] for part in some])
      for name in (some[0] if some else ())
    }

  def _path(self, number: int) -> pathlib.Path:
    return kept.part(self._folder, number, self.parts)
