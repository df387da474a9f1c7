"""Where the thing in a picture is, without anything learned."""

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

WHITE = 255
SHADE = 32  # levels below white: what is lighter is ground, or faint noise
LEAST = 0.005  # of the picture: what is smaller is a speck


def places(
  image: UInt8[np.ndarray, 'h w 3'],
) -> list[Bool[np.ndarray, 'h w']]:
  """All that is not white, as the one thing that an emoji shows; or nothing.

  White parts at its edge are lost: opacity is not in the picture any more.
  """
  seen = image.min(-1) < WHITE - SHADE
  parts, _ = ndimage.label(seen, np.ones((3, 3)))
  seen &= (np.bincount(parts.ravel()) >= LEAST * seen.size)[parts]
  return [seen] if seen.any() else []
