"""The eight outlines, as signed distances: below zero inside.

Each lives in a circle of radius 1 around its origin; y points down. Most are
plump, so that blobs fit them: an ellipse with the second moments of a thing
shares .87 of their union on average, of a star .70. (Were stars and crosses as
plump as the rest, a small model would take them for circles.)
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Grid = Float[np.ndarray, '*grid']

POINTS = 5  # of the star
_RAYS = 420  # divisible by 4 and 5: rays hit every tip


def circle(x: Grid, y: Grid) -> Grid:
  return np.hypot(x, y) - 0.9


def square(x: Grid, y: Grid) -> Grid:
  return _box(x, y, 0.74, 0.74, 0.12)


def cross(x: Grid, y: Grid) -> Grid:
  lying, standing = _box(x, y, 0.9, 0.34, 0.08), _box(x, y, 0.34, 0.9, 0.08)
  return np.minimum(lying, standing)


def pill(x: Grid, y: Grid) -> Grid:
  return _box(x, y, 1.0, 0.5, 0.5)


def leaf(x: Grid, y: Grid) -> Grid:
  """What two discs have in common: tips above and below."""
  return np.hypot(np.abs(x) + 0.6, y) - 1.166


def drop(x: Grid, y: Grid) -> Grid:
  return _cone(x, y - 0.21, 0.68, 1.09)


def heart(x: Grid, y: Grid) -> Grid:
  """Two drops, mirrored, with one tip."""
  across, down = 0.35, 0.94
  # Without the disc their common inside would seem near to an edge.
  middle = np.hypot(x, y + 0.04) - 0.6
  x, y = np.abs(x) - across, y + 0.2
  # Turned so that the tip, below and towards the middle, comes to lie above.
  length = math.hypot(across, down)
  a, b = across / length, down / length
  return np.minimum(middle, _cone(b * x + a * y, a * x - b * y, 0.59, length))


def star(x: Grid, y: Grid) -> Grid:
  """The distance from the straight side between a tip and a valley."""
  wedge = 2 * np.pi / POINTS
  angle = np.arctan2(x, -y)
  angle -= wedge * np.rint(angle * (1 / wedge))
  np.abs(angle, out=angle)
  radius = np.hypot(x, y)
  valley = 0.52 * np.exp(0.5j * wedge)
  normal = np.array([valley.imag, 1 - valley.real]) / abs(1 - valley)
  # (r cos a, r sin a) . normal is one cosine.
  turn = float(np.arctan2(normal[1], normal[0]))
  return radius * np.cos(angle - np.float32(turn)) - np.float32(normal[0])


def _box(x: Grid, y: Grid, width: float, height: float, corner: float) -> Grid:
  """A rectangle, by its half sides, with round corners."""
  x, y = np.abs(x) - (width - corner), np.abs(y) - (height - corner)
  inside = np.minimum(np.maximum(x, y), 0)
  return np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + inside - corner


def _cone(x: Grid, y: Grid, radius: float, length: float) -> Grid:
  """A disc at the origin and the tangents to it from a tip above it."""
  x = np.abs(x)
  sine = radius / length
  cosine = (1 - sine * sine) ** 0.5
  side = x * cosine - y * sine - radius
  # Where the tangents touch, and below, the disc is nearer.
  return np.where(x * sine + y * cosine > 0, np.hypot(x, y) - radius, side)


OUTLINES: dict[str, Callable[[Grid, Grid], Grid]] = {
  'circle': circle,
  'square': square,
  'star': star,
  'heart': heart,
  'cross': cross,
  'drop': drop,
  'leaf': leaf,
  'pill': pill,
}


class Measure(NamedTuple):
  """What boxes and blobs need to know of an outline."""

  points: Float[np.ndarray, '2 rays']  # where it is, as x and y
  centre: tuple[float, float]  # of its area
  spread: tuple[float, float]  # second moments about it, xx and yy; xy is 0


@functools.cache
def measure(shape: str) -> Measure:
  """Sums over rays: from the origin, each meets the outline once."""
  angle = np.arange(_RAYS) * (2 * np.pi / _RAYS)
  x, y = np.cos(angle), np.sin(angle)
  inside, outside = np.zeros(_RAYS), np.full(_RAYS, 1.5)
  for _ in range(30):
    radius = (inside + outside) / 2
    beyond = OUTLINES[shape](x * radius, y * radius) > 0
    inside = np.where(beyond, inside, radius)
    outside = np.where(beyond, radius, outside)

  def integral(values, power):
    """Of values(angle) r^power over the area, but for a constant."""
    return float((values * inside ** (power + 2)).sum() / (power + 2))

  area = integral(1, 0)
  centre = integral(x, 1) / area, integral(y, 1) / area
  spread = [
    integral(axis * axis, 2) / area - middle * middle
    for axis, middle in zip((x, y), centre, strict=True)
  ]
  points = np.stack([x, y]) * inside
  return Measure(points, centre, (spread[0], spread[1]))
