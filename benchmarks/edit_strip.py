"""Draws the README's strip: a picture, and what edits make of it.

  python -m benchmarks.edit_strip   # writes docs/edited.png

As in the paper's figure 14. One caption, one noise; each column changes one
thing, and what comes behind it is imagined again. Where the caption leaves
several things open, the first latents that name what CAPTION says are taken.
"""

import argparse
import pathlib
from dataclasses import replace

from PIL import Image

from kaleido_jax import api, sheet
from kaleido_jax.latents import Box, Latents

ROOT = pathlib.Path(__file__).parents[1]
CAPTION = 'a heart and a leaf'
OUT = ROOT / 'docs/edited.png'


def edits(model: api.Kaleido, first: Latents) -> dict[str, Latents]:
  """By what is done."""
  heart, leaf = first.boxes
  words, _, _ = first.text.partition(' on ')

  def edit(**new) -> Latents:
    return model.edit(CAPTION, first, imagine_later=True, **new)

  colour = heart.label.split()[0]
  return {
    CAPTION: first,
    'boxes: the heart changes sides': edit(boxes=[across(heart), leaf]),
    'boxes: the leaf, too': edit(boxes=[across(heart), across(leaf)]),
    'text: another colour': edit(text=first.text.replace(colour, 'purple')),
    'text: another background': edit(text=f'{words} on striped mint'),
    'text: another thing': edit(text=first.text.replace('leaf', 'drop')),
  }


def across(box: Box) -> Box:
  """Mirrored, but not turned."""
  return replace(box, x1=1000 - box.x2, x2=1000 - box.x1)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', default='pretrained:shapes')
  parser.add_argument('--guidance', type=float, default=4.0)
  parser.add_argument('--number', type=int, default=0, help='of the latents')
  args = parser.parse_args()

  model = api.load(args.workdir)
  first = model.imagine(CAPTION, num=args.number + 1)[args.number]
  made = edits(model, first)
  images = model.render(CAPTION, list(made.values()), guidance=args.guidance)
  tiles = [
    sheet.Tile(image, what, latents)
    for image, (what, latents) in zip(images, made.items(), strict=True)
  ]
  drawn = sheet.draw(tiles, columns=3, side=160)
  Image.fromarray(drawn).quantize(256, dither=Image.Dither.NONE).save(
    OUT, optimize=True
  )
  print(f'wrote {OUT}')


if __name__ == '__main__':
  main()
