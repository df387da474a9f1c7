"""How much of two places is the same: boxes, and ellipses."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from scipy import optimize

from kaleido_jax.latents import Blob, Box

Place = TypeVar('Place', Box, Blob)
# Points on a spiral, each a golden angle on: even, and without directions
# (Vogel, 1979).
_POINTS, _GOLDEN = 20_000, math.pi * (3 - math.sqrt(5))


def box_iou(a: Box, b: Box) -> float:
  """The shared area over the area of both; 0 of two boxes without any."""
  width = min(a.x2, b.x2) - max(a.x1, b.x1)
  height = min(a.y2, b.y2) - max(a.y1, b.y1)
  shared = max(width, 0) * max(height, 0)
  return shared / max(a.area + b.area - shared, 1)


def blob_iou(a: Blob, b: Blob) -> float:
  """The same of ellipses, by points spread evenly over either."""
  one, other = (math.pi * _semi(x)[0] * _semi(x)[1] for x in (a, b))
  shared = (_share_in(a, b) * one + _share_in(b, a) * other) / 2
  return shared / (one + other - shared)


def match(
  said: Sequence[Place], seen: Sequence[Place], iou: Callable[..., float]
) -> float:
  """How much of what is said is seen, and nothing else: 1 is all of it.

  Each place said goes with one that is seen, so that the sum of their IoU is
  largest, whatever they are called; one that is left over counts 0.
  """
  if not said or not seen:
    return float(not said and not seen)
  shared = np.array([[iou(a, b) for b in seen] for a in said])
  pairs = optimize.linear_sum_assignment(shared, maximize=True)
  return float(shared[pairs].sum() / max(shared.shape))


def _share_in(a: Blob, b: Blob) -> float:
  """How much of a lies in b. A grid would miss the thinnest ones."""
  number = np.arange(_POINTS) + 0.5
  radius, turn = np.sqrt(number / _POINTS), number * _GOLDEN
  major, minor = _semi(a)
  along, across = major * radius * np.cos(turn), minor * radius * np.sin(turn)
  angle = math.radians(a.theta)
  x = a.xc + along * math.cos(angle) - across * math.sin(angle)
  y = a.yc + along * math.sin(angle) + across * math.cos(angle)
  return float(b.holds(x, y).mean())


def _semi(blob: Blob) -> tuple[int, int]:
  """Both semi-axes; what is a line, or a point, is one unit wide."""
  return max(blob.r_major, 1), max(blob.r_minor, 1)
