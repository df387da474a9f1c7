"""Names of the colours that a picture is made of, in the order of their share.

Each pixel takes the name of the nearest sample in OKLab (Ottosson, 2020), a
space in which distances are close to how different colours look. Lightness
counts half: a slate gray is nearer to other grays than to a dark brown.
"""

import numpy as np
from jaxtyping import Bool, Float, UInt8

# A name may have several samples: what people call blue is no ball in OKLab.
SAMPLES = (
  ('black', (20, 20, 22)),
  ('black', (48, 51, 56)),
  ('gray', (84, 90, 97)),
  ('gray', (125, 130, 136)),
  ('gray', (170, 175, 180)),
  ('white', (250, 250, 250)),
  ('white', (222, 228, 234)),
  ('red', (215, 40, 45)),
  ('red', (150, 20, 35)),
  ('orange', (245, 140, 30)),
  ('yellow', (255, 205, 60)),
  ('yellow', (255, 235, 60)),
  ('green', (90, 170, 65)),
  ('green', (35, 95, 45)),
  ('green', (170, 215, 90)),
  ('teal', (30, 150, 145)),
  ('blue', (55, 115, 205)),
  ('blue', (35, 55, 120)),
  ('light blue', (110, 190, 240)),
  ('light blue', (185, 225, 245)),
  ('purple', (130, 80, 185)),
  ('purple', (180, 150, 220)),
  ('pink', (245, 120, 170)),
  ('pink', (250, 190, 205)),
  ('brown', (130, 80, 50)),
  ('brown', (85, 55, 45)),
  ('brown', (185, 130, 85)),
  ('beige', (240, 215, 180)),
)

MOST, LEAST_SHARE = 3, 0.12


def of(
  image: UInt8[np.ndarray, 'h w 3'], mask: Bool[np.ndarray, 'h w']
) -> tuple[str, ...]:
  """At most three names; at least one, if the mask has pixels."""
  names = sorted({name for name, _ in SAMPLES})
  samples = coordinates(np.array([rgb for _, rgb in SAMPLES], np.uint8))
  pixels = coordinates(image[mask])
  distances = ((pixels[:, None] - samples) ** 2).sum(-1)
  index = np.array([names.index(name) for name, _ in SAMPLES])
  counts = np.bincount(index[distances.argmin(-1)], minlength=len(names))
  order = np.argsort(-counts, kind='stable')[:MOST]
  return tuple(
    names[i]
    for rank, i in enumerate(order)
    if counts[i] and (rank == 0 or counts[i] >= LEAST_SHARE * counts.sum())
  )


def phrase(names: tuple[str, ...]) -> str:
  """('orange', 'black', 'white') -> 'orange, black and white'."""
  return ' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))


def coordinates(rgb: UInt8[np.ndarray, 'n 3']) -> Float[np.ndarray, 'n 3']:
  """Half the lightness, green to red, blue to yellow."""
  value = rgb / 255
  linear = np.where(
    value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4
  )
  cones = np.cbrt(linear @ _TO_CONES.T)
  return cones @ _TO_LAB.T


_TO_CONES = np.array(
  [
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
  ]
)
_TO_LAB = np.array(
  [
    [0.2104542553 / 2, 0.7936177850 / 2, -0.0040720468 / 2],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
  ]
)
