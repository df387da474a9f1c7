"""Reads and writes .npz.xz fixtures: float32 arrays as four planes of bytes.

Random float32 numbers hardly compress, but their exponents alone do: sorted by
byte the fixtures are a sixth smaller, which keeps them in the repository.
"""

import io
import lzma
import pathlib

import numpy as np


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as archive:
    return {name: _joined(archive[name]) for name in archive}


def write(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  buffer = io.BytesIO()
  np.savez(buffer, **{name: _split(value) for name, value in arrays.items()})
  path.write_bytes(lzma.compress(buffer.getvalue(), preset=9))


def _split(value: np.ndarray) -> np.ndarray:
  if value.dtype != np.float32:
    return value
  planes = np.frombuffer(value.tobytes(), np.uint8).reshape(*value.shape, 4)
  return np.ascontiguousarray(np.moveaxis(planes, -1, 0))


def _joined(value: np.ndarray) -> np.ndarray:
  if value.dtype != np.uint8:
    return value
  whole = np.moveaxis(value, 0, -1).tobytes()
  return np.frombuffer(whole, np.float32).reshape(value.shape[1:])
