"""One emoji: drawn, measured, described. Runs in worker processes.

The latents that are measured describe the one object of the picture, the
drawing itself, even where it has several parts (two hearts, a family): which
part is which nobody says. Its mask is where the drawing is more opaque than
not, and its label the head of the caption.
"""

import dataclasses
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kaleido_jax.data.emoji import color_names
from kaleido_jax.latents import Latents, blobs, boxes, colors, layout

KINDS = ('text', 'bbox', 'blob', 'color', 'layout')
MOST_TAGS = 3
# 'grinning face with sweat' and 'family: man, boy' have a head and more.
_HEAD = re.compile(r'[:,(]| with | in | on | over ')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
  """What there is to draw."""

  key: str
  art: str | bytes  # SVG, or an image file
  mirrored: bool
  size: int
  caption: str
  tags: tuple[str, ...]
  style: str
  fields: Mapping[str, str]  # go into the record as they are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
  """What could not be drawn; `reason` is one of few, to be counted."""

  key: str
  reason: str
  detail: str = ''


def svg(icons: Mapping[str, Any], name: str) -> tuple[str, bool]:
  """An icon of iconify's icons.json as a document; whether it is mirrored."""
  target = icons.get('aliases', {}).get(name, {})
  icon = icons['icons'][target.get('parent', name)]
  frame = [
    icon.get(side, icons.get(side, default))
    for side, default in (('left', 0), ('top', 0), ('width', 16))
  ]
  frame.append(icon.get('height', icons.get('height', 16)))
  return (
    '<svg xmlns="http://www.w3.org/2000/svg" '
    'xmlns:xlink="http://www.w3.org/1999/xlink" '
    f'viewBox="{" ".join(map(str, frame))}">{icon["body"]}</svg>',
    bool(target.get('hFlip')),
  )


def draw(drawing: Drawing) -> dict[str, Any] | Skipped:
  """The record of a drawing, or why there is none."""
  try:
    rgba = render(drawing.art, drawing.size)
  except (ValueError, OSError, SyntaxError) as error:
    kind = 'svg' if isinstance(drawing.art, str) else 'image'
    return Skipped(key=drawing.key, reason=f'broken {kind}', detail=str(error))
  if drawing.mirrored:
    rgba = rgba[:, ::-1]
  mask = rgba[..., 3] > 127
  if not mask.any():
    return Skipped(key=drawing.key, reason='empty picture')
  image = on_white(rgba)
  return {
    'key': drawing.key,
    'image': png(image),
    'caption': drawing.caption,
    'latents': describe(drawing, image, mask).to_strings(),
    **drawing.fields,
  }


def render(art: str | bytes, size: int) -> UInt8[np.ndarray, 'size size 4']:
  """Red, green, blue and opacity."""
  if isinstance(art, str):
    import resvg_py  # not in the base install

    # Nothing in an emoji is text: without system fonts it starts faster, and
    # draws the same everywhere.
    art = bytes(
      resvg_py.svg_to_bytes(
        svg_string=art, width=size, height=size, skip_system_fonts=True
      )
    )
  picture = Image.open(io.BytesIO(art)).convert('RGBA')
  if picture.size != (size, size):
    picture = picture.resize((size, size), Image.LANCZOS)
  return np.asarray(picture)


def on_white(rgba: UInt8[np.ndarray, 'h w 4']) -> UInt8[np.ndarray, 'h w 3']:
  picture = Image.new('RGBA', rgba.shape[1::-1], 'white')
  picture.alpha_composite(Image.fromarray(rgba))
  return np.asarray(picture)[..., :3]


def png(image: UInt8[np.ndarray, 'h w 3']) -> bytes:
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'png')
  return file.getvalue()


def describe(drawing: Drawing, image: np.ndarray, mask: np.ndarray) -> Latents:
  """The latents that a picture comes with."""
  label = _HEAD.split(drawing.caption)[0]
  return Latents(
    text=text(drawing, color_names.of(image, mask)),
    bbox=(boxes.around(label, mask),),
    blob=(blobs.fit(label, mask),),
    color=colors.of(image),
    layout=layout.of([mask]),
  )


def text(drawing: Drawing, names: tuple[str, ...]) -> str:
  """'twemoji style, flat; feline, pet; orange, black and white'.

  What the caption does not say comes first: style is the mode that hides most.
  """
  parts = (
    drawing.style,
    ', '.join(told(drawing.caption, drawing.tags)),
    color_names.phrase(names),
  )
  return '; '.join(filter(None, parts))


def told(caption: str, tags: tuple[str, ...]) -> list[str]:
  """The first tags that the caption, or a tag before, has not said."""
  said, chosen = caption.lower(), []
  for tag in tags:
    # 'rockets' of a rocket, 'animals' after 'animal'.
    if tag.lower().removesuffix('s') not in said and not tag.isdigit():
      said += f' {tag.lower()}'
      chosen.append(tag)
  return chosen[:MOST_TAGS]
