"""Pictures of a setting, drawn part by part: what is there stays there.

  FOLDER/cads-7-1f2e3d4c/00003.npz   64 pictures and their latents

The name ends with a mark of all that the pictures depend on. Several processes
may share a folder: each draws the parts that are its own.
"""

import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from kaleido_jax.api import Kaleido
from kaleido_jax.pictures import Asked

Images = UInt8[np.ndarray, 'n h w 3']
PART = 64  # pictures; what is lost when it is killed


def draw(
  model: Kaleido,
  wanted: list[Asked],
  folder: pathlib.Path,
  *,
  share: tuple[int, int] = (0, 1),
  done: Callable[[int], None] = lambda count: None,
) -> None:
  """Draws what is missing of a share; tells how many pictures are there."""
  folder.mkdir(parents=True, exist_ok=True)
  sample = model.asked(**wanted[0].settings)
  first, of = share
  for number, start in list(enumerate(range(0, len(wanted), PART)))[first::of]:
    some = wanted[start : start + PART]
    path = _path(folder, number)
    if not path.exists():
      images, latents = model.draw(some, sample)
      strings = [json.dumps(each.to_strings()) for each in latents]
      new = path.with_name(f'{path.stem}.{os.getpid()}.new.npz')
      np.savez_compressed(new, images=images, latents=np.array(strings))
      new.replace(path)
    done(len(some))


def is_complete(wanted: list[Asked], folder: pathlib.Path) -> bool:
  """Whether every process is through."""
  parts = range(-(-len(wanted) // PART))
  return all(_path(folder, number).exists() for number in parts)


def read(wanted: list[Asked], folder: pathlib.Path) -> Images:
  """The pictures of a complete folder."""
  found = []
  for number in range(-(-len(wanted) // PART)):
    with np.load(_path(folder, number)) as file:
      found.append(file['images'])
  return np.concatenate(found)


def _path(folder: pathlib.Path, number: int) -> pathlib.Path:
  return folder / f'{number:05}.npz'
