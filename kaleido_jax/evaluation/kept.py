"""Arrays in files that are there as a whole, or not at all."""

import os
import pathlib
import socket
from collections.abc import Mapping

import numpy as np


def part(folder: pathlib.Path, number: int, parts: int) -> pathlib.Path:
  """Cut into other parts, the same pictures have other names."""
  return folder / f'{number:05}-of-{parts:05}.npz'


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Whoever else writes the same file at this moment does no harm."""
  path.parent.mkdir(parents=True, exist_ok=True)
  mine = f'{path.stem}.{socket.gethostname()}-{os.getpid()}.new.npz'
  np.savez_compressed(path.with_name(mine), **arrays)
  path.with_name(mine).replace(path)


def read(path: pathlib.Path, *names: str) -> dict[str, np.ndarray]:
  """These arrays, or all."""
  with np.load(path) as file:
    return {name: file[name] for name in names or file.files}
