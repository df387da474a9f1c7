"""How closely pictures follow their latents, where both can be compared.

color_match  of colours, in any picture
box_iou      of boxes, and
blob_iou     of blobs, where the data knows how to see things without learning
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from kaleido_jax.evaluation.drawn import Drawn
from kaleido_jax.latents import Latents, blobs, boxes, named
from kaleido_jax.metrics import colors, placed

Image = UInt8[np.ndarray, 'h w 3']
Seeing = Callable[[Image], Sequence[Bool[np.ndarray, 'h w']]]  # a mask of each
KINDS = ('color', 'bbox', 'blob')  # which can be compared with a picture
Figures = Iterator[tuple[str, float]]


def of(drawn: Drawn, source: str) -> Mapping[str, Float[np.ndarray, ' n']]:
  """Each figure that there is, picture by picture.

  source: where the captions are from. Part by part: all pictures together may
  be larger than memory.
  """
  seeing, found = _seeing(source), {}
  for number in range(drawn.parts):
    pairs = zip(drawn.latents(number), drawn.part(number), strict=True)
    for strings, image in pairs:
      said = _read(strings)
      for name, value in _figures(said, image, seeing):
        found.setdefault(name, []).append(value)
  return {name: np.array(values) for name, values in found.items()}


def _read(strings: Mapping[str, str]) -> Latents:
  """Of what a prior wrote: what does not parse says nothing."""
  kinds = [named(kind) for kind in KINDS if kind in strings]
  values = {kind.name: kind.parse(strings[kind.name])[0] for kind in kinds}
  return Latents(**values)


def _figures(said: Latents, image: Image, seeing: Seeing | None) -> Figures:
  if 'color' in said:
    yield 'color_match', colors.match(said.colors, image)
  if seeing is None or not {'bbox', 'blob'} & set(said):
    return
  seen = seeing(image)
  if 'bbox' in said:
    there = [boxes.around('', mask) for mask in seen]
    yield 'box_iou', placed.match(said.boxes, there, placed.box_iou)
  if 'blob' in said:
    there = [blobs.fit('', mask) for mask in seen]
    yield 'blob_iou', placed.match(said.blobs, there, placed.blob_iou)


def _seeing(source: str) -> Seeing | None:
  """What tells where things are in pictures of some data."""
  if source == 'shapes':
    from kaleido_jax.data.shapes import seeing
  elif source == 'emoji':
    from kaleido_jax.data.emoji import seeing
  else:
    return None
  return seeing.places
