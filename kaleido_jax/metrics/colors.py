"""How much of a picture has the colours that its latents say."""

import numpy as np
from jaxtyping import UInt8

from kaleido_jax.latents import areas, colors

WIDTH = 256 // colors.BINS  # of a bin, in levels


def match(said: tuple[int, ...], image: UInt8[np.ndarray, 'h w 3']) -> float:
  """The share of squares near the middle of the bin that is said of them.

  Near: by no more than a bin is wide, in red, green and blue. In the same bin
  would be too strict: a colour at its edge is as good.
  """
  seen = areas.average(image, colors.GRID).reshape(-1, 3)
  if len(said) != len(seen):
    raise ValueError(f'{len(said)} colours are said of {len(seen)} squares.')
  middles = np.array([colors.rgb(i) for i in said])
  return float((abs(seen - middles) <= WIDTH).all(1).mean())
