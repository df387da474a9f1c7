"""Colour clusters (the paper's appendix E): 8 x 8 x 8 bins on a 4 x 4 grid.

The picture is averaged down to 4 x 4; each of red, green and blue falls into
one of eight equal bins, and the id is 64 r + 8 g + b. No model is needed.
"""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from kaleido_jax.latents import areas
from kaleido_jax.latents.ids import Ids, Listed

GRID, BINS = 4, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Colors(Listed):
  """Sixteen ids, row by row."""

  name: str = 'color'
  attribute: str = 'colors'
  pieces: int = BINS**3
  count: int = GRID**2

  def flip(self, value: Ids) -> Ids:
    rows = [value[i : i + GRID] for i in range(0, len(value), GRID)]
    return tuple(i for row in rows for i in row[::-1])

  def overlay(self, draw, value: Ids, width: int, height: int, said) -> None:
    """Swatches in the lower right corner, a quarter of the picture wide."""
    side = max(width // (4 * GRID), 2)
    left, top = width - side * GRID - 2, height - side * GRID - 2
    frame = (left - 2, top - 2, width - 1, height - 1)
    draw.rectangle(frame, fill='white', outline='black')
    for index, i in enumerate(value[: self.count]):
      row, column = divmod(index, GRID)
      x, y = left + column * side, top + row * side
      draw.rectangle((x, y, x + side - 1, y + side - 1), fill=rgb(i))


def rgb(i: int) -> tuple[int, int, int]:
  """The middle of a bin."""
  width = 256 // BINS
  levels = (i // BINS**2, i // BINS % BINS, i % BINS)
  return tuple(level * width + width // 2 for level in levels)


def of(image: UInt8[np.ndarray, 'h w 3']) -> Ids:
  """The colours of a picture."""
  levels = areas.average(image, GRID) * (BINS / 256)
  red, green, blue = np.moveaxis(levels.astype(int), -1, 0)
  return tuple((red * BINS**2 + green * BINS + blue).ravel().tolist())
