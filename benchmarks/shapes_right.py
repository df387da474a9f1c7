"""How often a run of configs/shapes.py draws what the caption names.

  python -m benchmarks.shapes_right --variant=    # reads runs/shapes
  python -m benchmarks.shapes_right --variant=mdm # reads runs/shapes-mdm

Draws 200 held-out captions that name a shape and a colour of everything in the
picture, from one thing to three, and asks the generator's own segmentation
(`data/shapes/seeing.py`, which is right about 98 % of what the generator draws)
what is there. A picture is right if everything named is. Writes a sheet of the
first ones beside the checkpoints.
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from benchmarks import trained
from configs import shapes
from kaleido_jax import sheet
from kaleido_jax.data.shapes import Shapes, seeing, wording


def captions(count: int, size: int):
  """The first held-out ones that name a colour of everything."""
  source, found, index = Shapes(size=size, split='test', kinds=()), [], 0
  while len(found) < count:
    said = source.scene(index).said
    if all(thing.colour for thing in said.things):
      found.append(said)
    index += 1
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--variant', default='')
  parser.add_argument('--workdir', default='')
  parser.add_argument('--count', type=int, default=200)
  parser.add_argument('--weights', default='1,2,4')
  args = parser.parse_args()

  config = shapes.get_config(args.variant)
  name = f'shapes-{args.variant}'.strip('-')
  folder = pathlib.Path(args.workdir or trained.ROOT / 'runs' / name)
  run = trained.Run(config, folder)
  said = captions(args.count, config.image_shapes[0][0])
  texts = [wording.caption(facts) for facts in said]
  print(f'{folder} at step {run.step}, {len(said)} captions')
  for weight in map(float, args.weights.split(',')):
    drawn = run.draw(texts, seed=0, weight=weight)
    right = {1: [], 2: [], 3: []}
    things = []
    for facts, picture in zip(said, drawn.pictures, strict=True):
      seen = {(thing.shape, thing.colour) for thing in seeing.things(picture)}
      named = [(thing.shape, thing.colour) in seen for thing in facts.things]
      right[len(named)].append(all(named))
      things += named
    of = ', '.join(
      f'{count}: {np.mean(rows):.0%} of {len(rows)}'
      for count, rows in right.items()
    )
    every = np.mean(sum(right.values(), []))
    print(
      f'guidance {weight:g}: {every:.1%} of pictures right ({of}), '
      f'{np.mean(things):.1%} of things'
    )
    if drawn.latents and config.latents:
      told = [
        all(
          wording.label(thing) in {box.label for box in latents.boxes}
          for thing in facts.things
        )
        for facts, latents in zip(said, drawn.latents, strict=True)
      ]
      print(f'  of latents: {np.mean(told):.1%}')
    tiles = map(sheet.Tile, drawn.pictures[:24], texts, drawn.latents)
    path = folder / f'right_{weight:g}.png'
    Image.fromarray(sheet.draw(list(tiles))).save(path)


if __name__ == '__main__':
  main()
