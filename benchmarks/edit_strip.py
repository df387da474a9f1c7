"""Draws the README's strip: a picture, and what edits make of it.

  python -m benchmarks.edit_strip   # writes docs/edited.png

As in the paper's figure 14. One caption and one noise; in every picture one
kind of latents has been edited, and what comes behind it imagined again. The
first latents are taken that name what the caption says, the heart aside, both
plain, in no colour that an edit asks for.
"""

import argparse
import pathlib
from dataclasses import replace

from PIL import Image

from kaleido_jax import api, sheet
from kaleido_jax.data.shapes import wording
from kaleido_jax.latents import Box, Latents
from kaleido_jax.metrics.placed import box_iou

ROOT = pathlib.Path(__file__).parents[1]
CAPTION = 'a heart and a leaf'
TRIES = 64
OUT = ROOT / 'docs/edited.png'


def first(model: api.Kaleido) -> Latents:
  """Latents that can be edited so."""
  for latents in model.imagine(CAPTION, num=TRIES):
    labels = [box.label.split()[-1] for box in latents.boxes]
    if labels == ['heart', 'leaf']:
      heart, leaf = latents.boxes
      rooms = [(heart.flip(), leaf), (heart, heart.flip()), (heart, leaf)]
      told = wording.read_text(latents.text).things
      plain = all(thing.texture in (None, 'plain') for thing in told)
      other = all(thing.colour not in ('purple', 'green') for thing in told)
      if plain and other and all(apart(*pair) for pair in rooms):
        return latents
  raise ValueError(
    f'none of {TRIES} latents of {CAPTION!r} have what is edited'
  )


def edits(model: api.Kaleido, start: Latents) -> dict[str, Latents]:
  """By what is done."""
  heart, leaf = start.boxes
  told = wording.read_text(start.text)

  def edit(**new) -> Latents:
    return model.edit(CAPTION, start, imagine_later=True, **new)

  def retold(thing: int | None = None, **new) -> Latents:
    things = list(told.things)
    if thing is None:
      return edit(text=wording.text(replace(told, **new)))
    things[thing] = replace(things[thing], **new)
    return edit(text=wording.text(replace(told, things=tuple(things))))

  return {
    CAPTION: start,
    'boxes: the heart changes sides': edit(boxes=[heart.flip(), leaf]),
    'boxes: both do': edit(boxes=[heart.flip(), leaf.flip()]),
    'text: a purple heart': retold(0, colour='purple'),
    'text: a green leaf': retold(1, colour='green'),
    'text: on plain navy': retold(tone='navy', pattern='plain'),
  }


def larger(box: Box, by: int = 90) -> Box:
  """Further to all sides, as far as the picture goes."""
  return replace(
    box,
    x1=max(box.x1 - by, 0),
    y1=max(box.y1 - by, 0),
    x2=min(box.x2 + by, 1000),
    y2=min(box.y2 + by, 1000),
  )


def apart(a: Box, b: Box) -> bool:
  """Whether there is room between them."""
  return box_iou(larger(a), larger(b)) == 0


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', default='pretrained:shapes')
  parser.add_argument('--guidance', type=float, default=4.0)
  args = parser.parse_args()

  model = api.load(args.workdir)
  made = edits(model, first(model))
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
