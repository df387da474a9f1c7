"""How far an edit of latents reaches into the picture, for held-out scenes.

  python -m benchmarks.shapes_edited --workdir=pretrained:shapes
  python -m benchmarks.shapes_edited --workdir=runs/shapes-blob

Latents are imagined and drawn, then edited and drawn again from the same noise;
the generator's own segmentation (`data/shapes/seeing.py`) says what is there.

  place    a thing's box, or blob, is moved by a quarter of the picture or
           more; what comes later, the colours, is imagined again. IoU of the
           edited place and that of what is seen in its colour; how much the
           background, out of all places, changes, beside the same latents from
           other noise and a fresh sample of the caption.
  text     another colour for a thing, or another tone for the background, where
           the caption leaves them open; the rest is imagined again. Share of
           pictures that show it.
  colours  the swatches of the background turned into another tone's, and
           nothing else. Share of pictures whose background has that tone.
  noise    eight noises under one set of latents, beside eight other sets: how
           much of what those latents name is there, and how often their tone.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from benchmarks import edits_of_shapes
from benchmarks.edits_of_shapes import Edit, Start
from benchmarks.shapes_right import placed
from kaleido_jax import api, sheet
from kaleido_jax.data.shapes import seeing
from kaleido_jax.latents import Blob, Box, Latents
from kaleido_jax.latents.segments import LIMIT
from kaleido_jax.metrics.placed import blob_iou, box_iou
from kaleido_jax.pictures import Asked


class Bench:
  """Draws under one guidance weight, and keeps the first pairs for a look."""

  def __init__(self, model: api.Kaleido, guidance: float):
    self._model, self._guidance = model, guidance
    self.tiles: list[sheet.Tile] = []

  def draw(self, captions, latents: Sequence[Latents], **options) -> np.ndarray:
    return self._model.render(
      captions, latents, guidance=self._guidance, **options
    )

  def afresh(self, captions: Sequence[str]):
    """Other latents, other noise; and these latents."""
    wanted = [Asked(c, seed=2, index=n) for n, c in enumerate(captions)]
    return self._model.draw(wanted, self._model.asked(guidance=self._guidance))

  def edits(self, edit: Callable, some: Sequence[Start]) -> list[Edit]:
    random = np.random.default_rng(0)
    found = (edit(self._model, start, random) for start in some)
    return [each for each in found if each is not None]

  def before(self, edits: Sequence[Edit]) -> np.ndarray:
    return self.draw(
      [edit.start.caption for edit in edits],
      [edit.start.latents for edit in edits],
    )

  def after(self, edits: Sequence[Edit], **options) -> np.ndarray:
    return self.draw(
      [edit.start.caption for edit in edits],
      [edit.latents for edit in edits],
      **options,
    )

  def look(self, what: str, edits: Sequence[Edit], old, new) -> None:
    for edit, was, now in list(zip(edits, old, new, strict=True))[:4]:
      self.tiles += [
        sheet.Tile(was, edit.start.caption, edit.start.latents),
        sheet.Tile(now, f'{what}: {edit.wanted}', edit.latents),
      ]


def places(bench: Bench, some: Sequence[Start], count: int) -> None:
  edits = bench.edits(edits_of_shapes.moved, some)[:count]
  old, new = bench.before(edits), bench.after(edits)
  bench.look('place', edits, old, new)
  noise = bench.after(edits, seed=1)
  fresh, latents = bench.afresh([edit.start.caption for edit in edits])
  print(
    f'place: {len(edits)} edits, {iou(new, edits)}; background changes by '
    f'{change(old, new, edits):.1f} grey levels, from other noise by '
    f'{change(new, noise, edits):.1f}, a fresh sample is '
    f'{change(old, fresh, edits, latents):.1f} away; unedited '
    f'{iou(old, [e._replace(place=_of(e.start.latents, e)) for e in edits])}',
    flush=True,
  )


def words(bench: Bench, some: Sequence[Start], count: int) -> None:
  edits = bench.edits(edits_of_shapes.recoloured, some)[:count]
  new = bench.after(edits)
  bench.look('text', edits[:4], bench.before(edits[:4]), new[:4])
  hits = [e.wanted in labels(x) for e, x in zip(edits, new, strict=True)]
  tints = [
    any(label.startswith(e.wanted.split()[0]) for label in labels(x))
    for e, x in zip(edits, new, strict=True)
  ]
  print(
    f'text: {len(edits)} new colours of a thing, {np.mean(hits):.1%} with its '
    f'shape, {np.mean(tints):.1%} of any',
    flush=True,
  )


def tones(bench: Bench, name: str, edit: Callable, some, count: int) -> None:
  edits = bench.edits(edit, some)[:count]
  new = bench.after(edits)
  bench.look(name, edits[:4], bench.before(edits[:4]), new[:4])
  hits = [seeing.tone(x) == e.wanted for e, x in zip(edits, new, strict=True)]
  print(
    f'{name}: {len(edits)} new tones of the background, {np.mean(hits):.1%}',
    flush=True,
  )


def noises(bench: Bench, some: Sequence[Start], count: int) -> None:
  share: dict[str, list[float]] = {'one': [], 'eight': []}
  tone: dict[str, list[bool]] = {'one': [], 'eight': []}
  for start in some[:count]:
    first, captions = start.latents, [start.caption] * 8
    one = bench.draw(captions, [first.numbered(3, i) for i in range(8)])
    eight, _ = bench.afresh(captions)
    for name, drawn in (('one', one), ('eight', eight)):
      for picture in drawn:
        there = labels(picture)
        share[name] += [thing.label in there for thing in placed(first)]
        tone[name].append(seeing.tone(picture) == start.told.tone)
  print(
    f'noise: {count} captions; of what their latents name eight noises show '
    f'{np.mean(share["one"]):.1%}, eight latents '
    f'{np.mean(share["eight"]):.1%}; its tone '
    f'{np.mean(tone["one"]):.1%} and {np.mean(tone["eight"]):.1%}',
    flush=True,
  )


def labels(picture: np.ndarray) -> list[str]:
  return [seen.box.label for seen in seeing.things(picture)]


def iou(pictures: np.ndarray, edits: Sequence[Edit]) -> str:
  """Of the wanted place and the largest thing of its colour; 0 without any."""
  found = []
  for picture, edit in zip(pictures, edits, strict=True):
    seen = seeing.largest(picture, edit.wanted.split()[0])
    if isinstance(edit.place, Blob):
      found.append(blob_iou(seen.blob, edit.place) if seen else 0.0)
    else:
      found.append(box_iou(seen.box, edit.place) if seen else 0.0)
  return (
    f'mean IoU {np.mean(found):.3f} (median {np.median(found):.3f}, above .5 '
    f'{np.mean(np.greater(found, 0.5)):.1%})'
  )


def _of(latents: Latents, edit: Edit) -> Box | Blob:
  return next(t for t in placed(latents) if t.label == edit.wanted)


def change(
  a: np.ndarray,
  b: np.ndarray,
  edits: Sequence[Edit],
  others: Sequence[Latents] | None = None,
) -> float:
  """Of what lies out of all boxes: mean, in grey levels.

  others: latents of b, where they are not the edited ones.
  """
  difference = np.abs(a.astype(np.float32) - b).mean(-1)
  found = []
  for n, (levels, edit) in enumerate(zip(difference, edits, strict=True)):
    there = [*placed(edit.start.latents), *placed(edit.latents)]
    there += placed(others[n]) if others else ()
    masks = [_wider(thing).mask(*levels.shape) for thing in there]
    found.append(levels[~np.any(masks, 0)].mean())
  return float(np.nanmean(found))


def _wider(thing: Box | Blob) -> Box | Blob:
  """With the edge, which belongs to the thing as well."""
  line = LIMIT // 32
  if isinstance(thing, Blob):
    # Corners and points of a thing lie out of its ellipse.
    wider = {
      name: min(getattr(thing, name) * 5 // 4 + line, LIMIT)
      for name in ('r_major', 'r_minor')
    }
  else:
    wider = dict(
      x1=max(thing.x1 - line, 0),
      y1=max(thing.y1 - line, 0),
      x2=min(thing.x2 + line, LIMIT),
      y2=min(thing.y2 + line, LIMIT),
    )
  return dataclasses.replace(thing, **wider)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', default='pretrained:shapes')
  parser.add_argument('--count', type=int, default=200)
  parser.add_argument('--guidance', type=float, default=4.0)
  parser.add_argument('--sheet', type=pathlib.Path, help='a PNG to look at')
  args = parser.parse_args()

  model = api.load(args.workdir, batch_size=50)
  bench = Bench(model, args.guidance)
  # Not every start can be edited in every way.
  some = edits_of_shapes.starts(model, 3 * args.count)
  print(f'{model}, guidance {args.guidance:g}', flush=True)
  places(bench, some, args.count)
  words(bench, some, args.count)
  tones(bench, 'text', edits_of_shapes.toned, some, args.count)
  tones(bench, 'colours', edits_of_shapes.swatched, some, args.count)
  noises(bench, some, args.count // 8)
  if args.sheet:
    Image.fromarray(sheet.draw(bench.tiles, columns=4)).save(args.sheet)


if __name__ == '__main__':
  main()
