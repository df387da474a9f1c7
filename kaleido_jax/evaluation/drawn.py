"""Pictures of a setting, drawn part by part: what is there stays there.

  FOLDER/cads-7-1f2e3d4c/00003-of-00016.npz   64 pictures and their latents

The name ends with a mark of all that the pictures depend on. Several processes
may share a folder: each draws the parts that are its own.
"""

import json
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from kaleido_jax.api import Kaleido
from kaleido_jax.evaluation import kept
from kaleido_jax.pictures import Asked

Images = UInt8[np.ndarray, 'n h w 3']
# Pictures, or a batch of them, or what a caption has: what is lost when it is
# killed.
PART = 64
Share = tuple[int, int]  # which, of how many


class Drawn:
  """What a model is to draw under a setting, some of it there already."""

  def __init__(
    self,
    model: Kaleido,
    wanted: list[Asked],
    folder: pathlib.Path,
    *,
    each: int,
    batch: int = 1,
  ):
    """each: pictures of a caption; they lie in one part.

    batch: of a device, not all that there are: other processes may have more.
    """
    self._model, self._wanted, self.folder = model, wanted, folder
    self._each = each
    self._size = max(max(PART, batch) // each, 1) * each
    self.parts = -(-len(wanted) // self._size)

  def draw(
    self,
    share: Share = (0, 1),
    done: Callable[[int], object] = lambda count: None,
  ) -> None:
    """Draws what is missing of a share; tells how many pictures are there."""
    sample = self._model.asked(**self._wanted[0].settings)
    first, of = share
    for number in range(first, self.parts, of):
      some = self._wanted[number * self._size : (number + 1) * self._size]
      if not self._path(number).exists():
        images, latents = self._model.draw(some, sample)
        strings = [json.dumps(each.to_strings()) for each in latents]
        kept.write(
          self._path(number), {'images': images, 'latents': np.array(strings)}
        )
      done(len(some))

  def part(self, number: int) -> Images:
    return kept.read(self._path(number), 'images')['images']

  def all(self) -> Images:
    return np.concatenate([self.part(number) for number in range(self.parts)])

  def latents(self, number: int) -> list[dict[str, str]]:
    """Of a part's pictures, by kind; a baseline's are empty."""
    found = kept.read(self._path(number), 'latents')['latents']
    return list(map(json.loads, found.tolist()))

  def first(self, captions: int) -> UInt8[np.ndarray, 'captions each h w 3']:
    """All pictures of some captions."""
    wanted = captions * self._each
    parts = range(min(-(-wanted // self._size), self.parts))
    found = np.concatenate(list(map(self.part, parts)))[:wanted]
    return found.reshape(-1, self._each, *found.shape[1:])

  def _path(self, number: int) -> pathlib.Path:
    return kept.part(self.folder, number, self.parts)
