"""Pictures averaged down to a coarse grid, exactly, whatever their size."""

import functools

import numpy as np
from jaxtyping import Float, Shaped


def average(
  image: Shaped[np.ndarray, 'h w *c'], size: int
) -> Float[np.ndarray, '{size} {size} *c']:
  """The mean of each of size x size equal parts."""
  height, width = image.shape[:2]
  pixels = image.reshape(height, -1).astype(np.float32)
  rows = _shares(height, size) @ pixels
  return np.tensordot(
    _shares(width, size), rows.reshape(size, width, *image.shape[2:]), (1, 1)
  ).swapaxes(0, 1)


@functools.cache
def _shares(length: int, size: int) -> Float[np.ndarray, '{size} {length}']:
  """How much of each part is each pixel; rows sum to one."""
  edges = np.arange(size + 1) * (length / size)
  pixel = np.arange(length)
  inside = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(
    pixel, edges[:-1, None]
  )
  return (np.maximum(inside, 0) * (size / length)).astype(np.float32)
