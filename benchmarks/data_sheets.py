"""Draws docs/shapes.png and docs/emoji.png: what the sources give, to look at.

  python benchmarks/data_sheets.py --emoji=FOLDER

FOLDER is what `python -m kaleido_jax.data.emoji --licences=permissive` wrote.
"""

import pathlib

import numpy as np
from absl import app, flags
from PIL import Image

from kaleido_jax import sheet
from kaleido_jax.data import records
from kaleido_jax.data.emoji import Emoji
from kaleido_jax.data.shapes import Shapes

DOCS = pathlib.Path(__file__).parent.parent / 'docs'
KINDS = ('text', 'bbox', 'blob', 'color')
CAPTIONS = ('cat face', 'rocket', 'mushroom')  # of the emoji sheet


def tiles(source, indices) -> list[sheet.Tile]:
  examples = [source[i] for i in indices]
  return [sheet.Tile(e.image, e.caption, e.latents) for e in examples]


def main(argv: list[str]) -> None:
  del argv
  save('shapes', tiles(Shapes(size=64, kinds=(*KINDS, 'layout')), range(2, 14)))
  if not flags.FLAGS.emoji:
    return
  found = records.Records(
    pathlib.Path(flags.FLAGS.emoji) / 'train', kind='emoji', command=''
  )
  licences = {about['licence'] for about in found.about['sets'].values()}
  if 'CC-BY-SA-4.0' in licences:
    raise ValueError(
      'these emoji include ShareAlike art, which is not published here; '
      'prepare them with --licences=permissive.'
    )
  rows = [
    [i for i in range(len(found)) if found[i]['caption'] == caption]
    for caption in CAPTIONS
  ]
  # The same vendors in every row, as far as they drew it.
  chosen = [i for row in rows for i in row[:4]]
  save('emoji', tiles(Emoji(flags.FLAGS.emoji, kinds=KINDS), chosen))


def save(name: str, drawn: list[sheet.Tile]) -> None:
  pixels = sheet.draw(drawn, columns=4, side=160)
  path = DOCS / f'{name}.png'
  # A palette: flat colours compress to a third, and nobody sees it.
  Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE).save(
    path, optimize=True
  )
  print(f'{path}: {np.shape(pixels)}, {path.stat().st_size:,} bytes')


if __name__ == '__main__':
  flags.DEFINE_string('emoji', None, 'Permissive ones; without, only shapes.')
  app.run(main)
