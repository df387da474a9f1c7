"""How closely pictures follow their latents, where both can be compared.

color_match  of colours, in any picture
box_iou      of boxes, and
blob_iou     of blobs, where the data knows how to see things without learning

And the same of another caption's latents, as color_match_other and so on: what
is on white, and in the middle, follows any latents to some extent.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

from kaleido_jax.evaluation.drawn import Drawn
from kaleido_jax.latents import Latents, blobs, boxes, named
from kaleido_jax.metrics import colors, placed

Image = UInt8[np.ndarray, 'h w 3']
Masks = Sequence[Bool[np.ndarray, 'h w']]  # one of each thing
Seeing = Callable[[Image], Masks]
KINDS = ('color', 'bbox', 'blob')  # which can be compared with a picture
Figures = Iterator[tuple[str, float]]


def of(
  drawn: Drawn, source: str, each: int
) -> Mapping[str, Float[np.ndarray, ' n']]:
  """Each figure that there is, picture by picture.

  source: where the captions are from. each: pictures of one. Pictures part by
  part: all together may be larger than memory.
  """
  seeing, found = _seeing(source), collections.defaultdict(list)
  said = [_read(x) for part in range(drawn.parts) for x in drawn.latents(part)]
  others = said[each:] + said[:each]
  images = (image for part in range(drawn.parts) for image in drawn.part(part))
  for own, other, image in zip(said, others, images, strict=True):
    seen = seeing(image) if seeing else None
    for ending, latents in (('', own), ('_other', other)):
      for name, value in _figures(latents, image, seen):
        found[f'{name}{ending}'].append(value)
  return {name: np.array(values) for name, values in found.items()}


def _read(strings: Mapping[str, str]) -> Latents:
  """Of what a prior wrote: what does not parse says nothing."""
  kinds = [named(kind) for kind in KINDS if kind in strings]
  values = {kind.name: kind.parse(strings[kind.name])[0] for kind in kinds}
  return Latents(**values)


def _figures(said: Latents, image: Image, seen: Masks | None) -> Figures:
  if 'color' in said:
    wrong = named('color').check(said.colors)
    yield 'color_match', 0.0 if wrong else colors.match(said.colors, image)
  if 'bbox' in said and seen is not None:
    there = [boxes.around('', mask) for mask in seen]
    yield 'box_iou', placed.match(said.boxes, there, placed.box_iou)
  if 'blob' in said and seen is not None:
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
