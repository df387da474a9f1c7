"""Contact sheets: pictures, what was said of them, and what hides in them."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from kaleido_jax.latents import Latents

MARGIN, LINE = 12, 15
FONT_SIZE = 12


class Tile(NamedTuple):
  """One picture of a sheet."""

  image: UInt8[np.ndarray, 'h w 3']
  caption: str = ''
  latents: Latents = Latents()


def draw(
  tiles: Sequence[Tile], *, columns: int = 4, side: int = 192
) -> UInt8[np.ndarray, '_ _ 3']:
  """Each picture, with its latents drawn over it on the right, words below."""
  if not tiles:
    raise ValueError('there is nothing to draw: the sheet has no tiles.')
  marked = any(_can_be_drawn(tile.latents) for tile in tiles)
  width = side * (2 if marked else 1) + 4 * marked
  texts = [_lines(tile, width) for tile in tiles]
  rows = [
    range(i, min(i + columns, len(tiles)))
    for i in range(0, len(tiles), columns)
  ]
  heights = [side + LINE * max(len(texts[i]) for i in row) + 8 for row in rows]
  sheet = Image.new(
    'RGB',
    (
      MARGIN + (width + MARGIN) * min(columns, len(tiles)),
      MARGIN + sum(height + MARGIN for height in heights),
    ),
    'white',
  )
  top = MARGIN
  for row, height in zip(rows, heights, strict=True):
    for column, i in enumerate(row):
      left = MARGIN + column * (width + MARGIN)
      _place(sheet, tiles[i], texts[i], left, top, side, marked)
    top += height + MARGIN
  return np.asarray(sheet)


def _place(sheet, tile: Tile, lines, left: int, top: int, side: int, marked):
  """Pastes one tile."""
  picture = Image.fromarray(tile.image).resize((side, side), Image.NEAREST)
  sheet.paste(picture, (left, top))
  if marked:
    # Drawn at twice the size, so that lines stay smooth.
    enlarge = max(1, round(2 * side / tile.image.shape[0]))
    over = Image.fromarray(tile.latents.overlay(tile.image, enlarge=enlarge))
    over = over.resize((side, side), Image.LANCZOS)
    sheet.paste(over, (left + side + 4, top))
  pen = ImageDraw.Draw(sheet)
  for number, (text, ink) in enumerate(lines):
    pen.text(
      (left, top + side + 6 + number * LINE), text, fill=ink, font=_font()
    )


def _lines(tile: Tile, width: int) -> list[tuple[str, str]]:
  """The words under a picture, and their ink."""
  letters = max(8, int(width / (FONT_SIZE * 0.53)))
  wrapped = [(line, 'black') for line in textwrap.wrap(tile.caption, letters)]
  for name, string in tile.latents.to_strings().items():
    # A long list of ids has no blank to break at.
    text = f'{name}: {string}'.replace('#', '#\u200b')
    for line in textwrap.wrap(text, letters, subsequent_indent='  '):
      wrapped.append((line.replace('\u200b', ''), '#555577'))
  return wrapped


def _can_be_drawn(latents: Latents) -> bool:
  return bool(set(latents) & {'bbox', 'blob', 'color', 'layout'})


def _font():
  return ImageFont.load_default(FONT_SIZE)
