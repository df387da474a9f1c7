"""Blobs inside a caption: tilted ellipses (Nie et al., 2024; `blob`).

(xc, yc, r_major, r_minor, theta): centre and semi-axes in thousandths of the
picture, and the angle from the x axis to the major one, turning towards the y
axis (which points down), in degrees of [0, 180). Where a picture is not square,
the ellipse is stretched with it.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from kaleido_jax.latents import words
from kaleido_jax.latents.boxes import centres
from kaleido_jax.latents.segments import LIMIT, Placed, check_range

TURN = 15  # degrees between angles, where coordinates are on lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blob:
  """Something that roughly fills an ellipse."""

  label: str
  xc: int
  yc: int
  r_major: int
  r_minor: int
  theta: int

  def __post_init__(self):
    check_range(self, ('xc', 'yc', 'r_major', 'r_minor'))
    check_range(self, ('theta',), limit=179)
    if self.r_minor > self.r_major:
      raise ValueError(
        f'has r_minor={self.r_minor} longer than r_major={self.r_major}'
      )

  def mask(self, height: int, width: int) -> Bool[np.ndarray, 'h w']:
    """The pixels whose centres lie inside."""
    y, x = centres(height, width)
    return self.holds(x, y)

  def holds(
    self, x: Float[np.ndarray, '...'], y: Float[np.ndarray, '...']
  ) -> Bool[np.ndarray, '...']:
    """Which points, in thousandths, lie inside."""
    angle = math.radians(self.theta)
    along = (x - self.xc) * math.cos(angle) + (y - self.yc) * math.sin(angle)
    across = (y - self.yc) * math.cos(angle) - (x - self.xc) * math.sin(angle)
    r_major, r_minor = max(self.r_major, 1), max(self.r_minor, 1)
    return (along / r_major) ** 2 + (across / r_minor) ** 2 <= 1

  def snapped(self, lines: int) -> 'Blob':
    """With its centre on the nearest of so many lines, each way.

    A radius is a number of half lines, and at least one, so that its diameter
    is as coarse as the side of a box; angles are TURN apart.
    """
    step = LIMIT / lines

    def nearest(value, step, least=0):
      return min(round(max(round(value / step), least) * step), LIMIT)

    return dataclasses.replace(
      self,
      xc=nearest(self.xc, step),
      yc=nearest(self.yc, step),
      r_major=nearest(self.r_major, step / 2, least=1),
      r_minor=nearest(self.r_minor, step / 2, least=1),
      theta=nearest(self.theta, TURN) % 180,
    )

  def flip(self) -> 'Blob':
    return dataclasses.replace(
      self,
      label=words.mirror(self.label),
      xc=LIMIT - self.xc,
      theta=-self.theta % 180,
    )

  def draw(
    self, draw, ink: str, width: int, height: int, line: int
  ) -> tuple[float, float]:
    """Draws the outline; says where the label goes."""
    turn, angle = np.linspace(0, 2 * np.pi, 49), math.radians(self.theta)
    along, across = self.r_major * np.cos(turn), self.r_minor * np.sin(turn)
    x = self.xc + along * math.cos(angle) - across * math.sin(angle)
    y = self.yc + along * math.sin(angle) + across * math.cos(angle)
    points = zip(x * (width / LIMIT), y * (height / LIMIT), strict=True)
    draw.line(list(points), fill=ink, width=line, joint='curve')
    return self.xc * width / LIMIT, self.yc * height / LIMIT


def fit(label: str, mask: Bool[np.ndarray, 'h w']) -> Blob:
  """The ellipse with the centre and the second moments of a mask."""
  rows, columns = np.nonzero(mask)
  if not len(rows):
    raise ValueError(f'the mask of {label!r} is empty; it has no blob.')
  height, width = mask.shape
  x, y = (columns + 0.5) * (LIMIT / width), (rows + 0.5) * (LIMIT / height)
  xc, yc = x.mean(), y.mean()
  # A pixel is a square with moments of its own, side^2 / 12.
  xx = ((x - xc) ** 2).mean() + (LIMIT / width) ** 2 / 12
  yy = ((y - yc) ** 2).mean() + (LIMIT / height) ** 2 / 12
  xy = ((x - xc) * (y - yc)).mean()
  # Eigenvalues of [[xx, xy], [xy, yy]]; an ellipse has moment radius^2 / 4.
  half, spread = (xx + yy) / 2, math.hypot((xx - yy) / 2, xy)
  angle = math.degrees(math.atan2(2 * xy, xx - yy)) / 2

  def bounded(value):
    return min(round(float(value)), LIMIT)

  return Blob(
    label=label,
    xc=bounded(xc),
    yc=bounded(yc),
    r_major=bounded(2 * math.sqrt(half + spread)),
    r_minor=bounded(2 * math.sqrt(max(half - spread, 0))),
    theta=round(angle) % 180,
  )


BLOBS = Placed(name='blob', attribute='blobs', thing=Blob)
