"""What a picture shows, as far as the world of shapes goes.

  seeing.things(image)   # [Seen(shape='circle', colour='red', fit=.93, ...)]
  seeing.places(image)   # a mask of each
  seeing.tone(image)     # 'navy'

The way back from `drawing`, without anything learned: the background's tone
explains most pixels; what it cannot explain is cut into things by their tints;
and each is compared with every outline, laid over it by its area and centre.
"""

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from kaleido_jax.data.shapes import drawing, outlines
from kaleido_jax.latents import Blob, Box, blobs, boxes

LEAST = 0.012  # of the picture: what is smaller is no thing
HALF = 0.5  # of a pixel that is a thing's
ANGLES = range(-40, 41, 8)  # degrees: whatever `scenes` tilts, and some more
SIZES = (0.94, 1.0, 1.06)  # times the radius that the area tells
NUDGES = (-0.4, 0.0, 0.4)  # pixels around the centre


class Seen(NamedTuple):
  """One thing of a picture, how well its outline fits (IoU), where it is."""

  shape: str
  colour: str
  fit: float
  box: Box
  blob: Blob


def things(image: UInt8[np.ndarray, 'size size 3']) -> list[Seen]:
  """Everything that is there, from left to right."""
  found = []
  for shown, colour in _silhouettes(image):
    shape, fit, x = _fitted(shown)
    label, inside = f'{colour} {shape}', shown >= HALF
    place = boxes.around(label, inside), blobs.fit(label, inside)
    found.append((x, Seen(shape, colour, fit, *place)))
  return [seen for _, seen in sorted(found, key=lambda pair: pair[0])]


def largest(
  image: UInt8[np.ndarray, 'size size 3'], colour: str | None = None
) -> Seen | None:
  """The largest thing, of this colour."""
  there = [s for s in things(image) if colour in (None, s.colour)]
  return max(there, key=lambda seen: seen.box.area, default=None)


def places(
  image: UInt8[np.ndarray, 'size size 3'],
) -> list[Bool[np.ndarray, 'size size']]:
  """Where things are, whatever they are: the quick part of `things`."""
  return [shown >= HALF for shown, _ in _silhouettes(image)]


def tone(image: UInt8[np.ndarray, 'size size 3']) -> str:
  """The tone of the background: most of the picture is near to its colours."""
  flat = image.reshape(-1, 3).astype(np.float32)

  def misfit(tone):
    base, other = np.float32(drawing.GROUNDS[tone])
    return np.median(_to_mixture(flat, base, other, beyond=0.2)[0])

  return min(drawing.GROUNDS, key=misfit)


def _silhouettes(image):
  """Of each thing how much of every pixel it is, and its colour."""
  ground = np.float32(drawing.GROUNDS[tone(image)])
  cover, tint = _unmixed(image.astype(np.float32), ground)
  for mask, colour in _parts(cover, tint):
    yield np.where(mask, cover, 0), colour


def _unmixed(pixels, ground):
  """How much of each pixel is a thing, and of which tint.

  A pixel is a mixture of two: of a colour of the ground and a tint, plain or
  shaded, or of a tint and its shade. That tint is taken which leaves the least
  unexplained.
  """
  size, flat = pixels.shape[0], pixels.reshape(-1, 3)
  misfits, covers = [], []
  for tint in map(np.float32, drawing.TINTS.values()):
    inks = tint, (1 - drawing.SHADE) * tint
    best, cover = _to_mixture(flat, *inks)[0], np.ones(len(flat))
    for base, ink in itertools.product(ground, inks):
      left, share = _to_mixture(flat, base, ink)
      # Where two explain it, the one that has less of the thing.
      cover = np.where(left < best + 2, np.minimum(share, cover), cover)
      cover = np.where(left < best - 2, share, cover)
      best = np.minimum(best, left)
    misfits.append(best)
    covers.append(cover)
  tint = np.argmin(misfits, 0)
  cover = np.take_along_axis(np.stack(covers), tint[None], 0)[0]
  # What may be ground is ground.
  plain = _to_mixture(flat, *ground, beyond=0.2)[0] < np.min(misfits, 0) + 12
  return np.where(plain, 0, cover).reshape(size, size), tint.reshape(size, size)


def _to_mixture(points, a, b, beyond=0.0):
  """How far colours are from the mixtures of two, and the second's share."""
  share = (points - a) @ (b - a) / ((b - a) @ (b - a))
  share = share.clip(-beyond, 1 + beyond)
  return np.linalg.norm(points - a - share[:, None] * (b - a), axis=1), share


def _parts(cover, tint):
  """Connected pixels of one tint that are large enough: (mask, colour).

  Edges are mixtures, and may look like another tint: they go to the thing that
  they touch.
  """
  size = cover.shape[0]
  seeds = np.zeros((size, size), np.int32)
  colours: list[str] = []
  for index, colour in enumerate(drawing.TINTS):
    labels, count = ndimage.label((tint == index) & (cover > 0.85))
    for label in range(1, count + 1):
      inside = labels == label
      if inside.sum() >= LEAST * size**2:
        colours.append(colour)
        seeds[inside] = len(colours)
  if not colours:
    return
  distance, nearest = ndimage.distance_transform_edt(
    seeds == 0, return_indices=True
  )
  owner = np.where(distance < 2.1, seeds[tuple(nearest)], 0)
  for index, colour in enumerate(colours):
    mask = owner == index + 1
    yield ndimage.binary_fill_holes(mask), colour


def _fitted(cover: Float[np.ndarray, 'size size']) -> tuple[str, float, float]:
  """The outline that a silhouette fits best: (shape, IoU, x)."""
  rows, columns = np.nonzero(cover > 0)
  top, left = max(rows.min() - 2, 0), max(columns.min() - 2, 0)
  window = cover[top : rows.max() + 3, left : columns.max() + 3]
  tried = {}
  for shape in outlines.OUTLINES:
    fits = [(_fit(window, shape, angle), angle) for angle in ANGLES]
    tried[shape] = max(fits)
  # The few that are near are looked at again, moved and scaled a little.
  near = sorted(tried, key=tried.get, reverse=True)[:3]
  best = max(
    (_fit(window, shape, tried[shape][1], factor, dx, dy), shape)
    for shape in near
    for factor, dx, dy in itertools.product(SIZES, NUDGES, NUDGES)
  )
  x = (window.sum(0) * np.arange(window.shape[1])).sum() / window.sum()
  return best[1], best[0], float(left + x)


def _fit(
  window: np.ndarray,
  shape: str,
  degrees: int,
  factor: float = 1.0,
  dx: float = 0.0,
  dy: float = 0.0,
) -> float:
  """The IoU of a silhouette and an outline of its area around its centre."""
  unit, middle = _unit(shape)
  rows, columns = (np.arange(n) + 0.5 for n in window.shape)
  area = window.sum()
  x = (window.sum(0) * columns).sum() / area
  y = (window.sum(1) * rows).sum() / area
  angle, radius = math.radians(degrees), factor * math.sqrt(area / unit)
  cosine, sine = math.cos(angle), math.sin(angle)
  across = (columns - x - dx) / radius
  down = ((rows - y - dy) / radius)[:, None]
  distance = outlines.OUTLINES[shape](
    np.float32(across * cosine + down * sine + middle[0]),
    np.float32(down * cosine - across * sine + middle[1]),
  )
  drawn = np.clip(0.5 - distance * radius, 0, 1)
  return float(
    np.minimum(drawn, window).sum() / np.maximum(drawn, window).sum()
  )


@functools.cache
def _unit(shape: str) -> tuple[float, tuple[float, float]]:
  """The area and centre of an outline of radius 1."""
  axis = (np.arange(400) + 0.5) / 200 - 1
  x, y = np.meshgrid(axis, axis)
  inside = outlines.OUTLINES[shape](np.float32(x), np.float32(y)) <= 0
  area = inside.mean() * 4
  return area, (float(x[inside].mean()), float(y[inside].mean()))
