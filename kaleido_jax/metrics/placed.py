"""How much of two places is the same: boxes, and ellipses."""

import numpy as np

from kaleido_jax.latents import Blob, Box

_FINE = 500  # cells along a side, where areas are counted


def box_iou(a: Box, b: Box) -> float:
  """The shared area over the area of both; 0 of two boxes without any."""
  width = min(a.x2, b.x2) - max(a.x1, b.x1)
  height = min(a.y2, b.y2) - max(a.y1, b.y1)
  shared = max(width, 0) * max(height, 0)
  return shared / max(a.area + b.area - shared, 1)


def blob_iou(a: Blob, b: Blob) -> float:
  """The same of ellipses, counted on a fine grid."""
  one, other = (blob.mask(_FINE, _FINE) for blob in (a, b))
  return float(np.sum(one & other) / max(np.sum(one | other), 1))
