"""How often a run of configs/shapes.py draws what the caption names.

  python -m benchmarks.shapes_right --workdir=runs/shapes
  python -m benchmarks.shapes_right --workdir=runs/shapes-mdm

Draws 200 captions of held-out scenes that name a shape and a colour of
everything in the picture, from one thing to three, and asks the generator's own
segmentation what is there (`data/shapes/seeing.py`; of 400 scenes that the
generator itself has drawn at 32 pixels it finds everything in 399). A picture
is right if everything named is in it. Writes a sheet of the first ones into the
workdir.
"""

import argparse
from typing import NamedTuple

import numpy as np
from PIL import Image

from kaleido_jax import api, exported, sheet
from kaleido_jax.data.shapes import Shapes, seeing, wording
from kaleido_jax.data.shapes.world import Facts
from kaleido_jax.latents import Latents
from kaleido_jax.pictures import Asked

FIT = 0.6  # an outline that fits worse is a blob


class Verdict(NamedTuple):
  """What became of one caption."""

  count: int  # things that it names
  named: list[bool]  # whether each is there
  extra: bool  # whether something else is, too
  told: bool  # whether the latents named everything


def captions(count: int) -> list[Facts]:
  """Of the first held-out scenes, those that name a colour of everything."""
  source, found, index = Shapes(split='test', kinds=()), [], 0
  while len(found) < count:
    said = source.scene(index).said
    if all(thing.colour for thing in said.things):
      found.append(said)
    index += 1
  return found


def judge(said: Facts, picture: np.ndarray, latents: Latents) -> Verdict:
  seen = [s for s in seeing.things(picture) if s.fit >= FIT]
  there = {(s.shape, s.colour) for s in seen}
  labels = {thing.label for thing in placed(latents)}
  return Verdict(
    count=len(said.things),
    named=[(thing.shape, thing.colour) in there for thing in said.things],
    extra=len(seen) > len(said.things),
    told=bool(labels)
    and all(wording.label(thing) in labels for thing in said.things),
  )


def placed(latents: Latents) -> tuple:
  """The boxes that there are, or the blobs."""
  return getattr(latents, 'boxes', None) or getattr(latents, 'blobs', ())


def measure(
  model: api.Kaleido, guidance: float, count: int
) -> tuple[list[Verdict], list[sheet.Tile]]:
  """Draws, judges, and shows the first few."""
  said = captions(count)
  texts = [wording.caption(facts) for facts in said]
  wanted = [Asked(text, index=index) for index, text in enumerate(texts)]
  drawn, latents = model.draw(wanted, model.asked(guidance=guidance))
  tiles = map(sheet.Tile, drawn[:24], texts, latents)
  return list(map(judge, said, drawn, latents)), list(tiles)


def table(weight: float, verdicts: list[Verdict]) -> str:
  def share(values) -> str:
    values = list(values)
    return f'{np.mean(values):.1%}' if values else 'none'

  of = ', '.join(
    f'{n}: {share(all(v.named) for v in verdicts if v.count == n)}'
    for n in (1, 2, 3)
  )
  return (
    f'guidance {weight:g}: right {share(all(v.named) for v in verdicts)} '
    f'(by number of things {of}), with nothing else '
    f'{share(all(v.named) and not v.extra for v in verdicts)}; of things '
    f'{share(n for v in verdicts for n in v.named)}; latents that name all '
    f'{share(v.told for v in verdicts)}'
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', default='pretrained:shapes')
  parser.add_argument('--count', type=int, default=200)
  parser.add_argument('--weights', default='1,2,4')
  args = parser.parse_args()

  model = api.load(args.workdir, batch_size=50)
  folder = exported.home(args.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  print(f'{model}, {args.count} captions')
  for weight in map(float, args.weights.split(',')):
    verdicts, tiles = measure(model, weight, args.count)
    print(table(weight, verdicts), flush=True)
    path = folder / f'right_{weight:g}.png'
    Image.fromarray(sheet.draw(tiles)).save(path)


if __name__ == '__main__':
  main()
