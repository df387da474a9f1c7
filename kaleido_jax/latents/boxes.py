"""Bounding boxes inside a caption (Qwen-VL's grounding, the paper's `bbox`).

x1, y1 is the top left corner and x2, y2 the bottom right one, in thousandths of
the picture.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool

from kaleido_jax.latents import words
from kaleido_jax.latents.segments import LIMIT, Placed, check_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
  """Something that lies inside a rectangle."""

  label: str
  x1: int
  y1: int
  x2: int
  y2: int

  def __post_init__(self):
    check_range(self, ('x1', 'y1', 'x2', 'y2'))
    for low, high, side in (('x1', 'x2', 'right of'), ('y1', 'y2', 'below')):
      if getattr(self, low) > getattr(self, high):
        raise ValueError(
          f'has {low}={getattr(self, low)} {side} {high}={getattr(self, high)}'
        )

  @property
  def area(self) -> int:
    """Of a picture of a million."""
    return (self.x2 - self.x1) * (self.y2 - self.y1)

  def mask(self, height: int, width: int) -> Bool[np.ndarray, 'h w']:
    """The pixels whose centres lie inside."""
    y, x = centres(height, width)
    return (self.x1 <= x) & (x <= self.x2) & (self.y1 <= y) & (y <= self.y2)

  def snapped(self, lines: int) -> 'Box':
    """With every side on the nearest of so many lines, each way."""
    step = LIMIT / lines
    sides = ('x1', 'y1', 'x2', 'y2')
    near = {n: round(round(getattr(self, n) / step) * step) for n in sides}
    return dataclasses.replace(self, **near)

  def flip(self) -> 'Box':
    return dataclasses.replace(
      self,
      label=words.mirror(self.label),
      x1=LIMIT - self.x2,
      x2=LIMIT - self.x1,
    )

  def draw(
    self, draw, ink: str, width: int, height: int, line: int
  ) -> tuple[float, float]:
    """Draws the rectangle; says where its label goes."""
    x1, x2 = (v * (width - 1) / LIMIT for v in (self.x1, self.x2))
    y1, y2 = (v * (height - 1) / LIMIT for v in (self.y1, self.y2))
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1), (x2, y1)]
    draw.line(corners, fill=ink, width=line, joint='curve')
    return x1 + 4, y1 + 2


def around(label: str, mask: Bool[np.ndarray, 'h w']) -> Box:
  """The smallest box that holds all pixels of a mask."""
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  if not len(rows):
    raise ValueError(f'the mask of {label!r} is empty; it has no box.')
  height, width = mask.shape
  return Box(
    label=label,
    x1=round(LIMIT * int(columns[0]) / width),
    y1=round(LIMIT * int(rows[0]) / height),
    x2=round(LIMIT * (int(columns[-1]) + 1) / width),
    y2=round(LIMIT * (int(rows[-1]) + 1) / height),
  )


def centres(height: int, width: int):
  """Where pixels lie in the 0..1000 square: y as a column, x as a row."""
  y = (np.arange(height)[:, None] + 0.5) * (LIMIT / height)
  x = (np.arange(width)[None, :] + 0.5) * (LIMIT / width)
  return y, x


BOXES = Placed(name='bbox', attribute='boxes', thing=Box)
