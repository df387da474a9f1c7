"""Edits of latents that a model of configs/shapes.py has imagined: the part of
`shapes_edited` that changes something.

Each takes a start and changes one thing in it that the caption leaves open, or
returns None where it cannot.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from benchmarks.shapes_right import placed
from kaleido_jax import api
from kaleido_jax.data.shapes import Shapes, drawing, wording
from kaleido_jax.data.shapes.world import Facts
from kaleido_jax.latents import Blob, Box, Latents, colors
from kaleido_jax.latents.segments import LIMIT
from kaleido_jax.metrics.placed import box_iou
from kaleido_jax.pictures import Asked

FAR = LIMIT // 4  # how far a box is moved at least
TRIES = 20  # times as many captions as starts are wanted
NEAR = 40  # levels: a swatch that differs less from a tone shows it

Random = np.random.Generator


class Start(NamedTuple):
  """A caption, the latents imagined for it, and what both say."""

  caption: str
  said: Facts
  latents: Latents
  told: Facts


class Edit(NamedTuple):
  """A start, what it became, and what should be seen then."""

  start: Start
  latents: Latents
  wanted: str  # the label of a thing, or a tone
  place: Box | Blob | None = None


def starts(model: api.Kaleido, count: int) -> list[Start]:
  """Captions of held-out scenes; texts that nobody can read are left out."""
  source, found = Shapes(split='test', kinds=()), []
  for first in range(0, TRIES * count, count):
    numbers = range(first, first + count)
    said = [source.scene(number).said for number in numbers]
    captions = list(map(wording.caption, said))
    # Each has a number of its own: captions come more than once.
    wanted = [Asked(c, index=n) for n, c in zip(numbers, captions, strict=True)]
    for caption, facts, latents in zip(
      captions, said, model.complete(wanted, model.asked()), strict=True
    ):
      try:
        told = wording.read_text(latents.text)
      except ValueError:
        continue
      found.append(Start(caption, facts, latents, told))
    if len(found) >= count:
      return found[:count]
  raise ValueError(
    f'{model}: of {TRIES * count} texts {len(found)} can be read; train longer.'
  )


def moved(model: api.Kaleido, start: Start, random: Random) -> Edit | None:
  """A thing whose colour no other has lies elsewhere: its box, or its blob."""
  things, lines = placed(start.latents), model.config.data.box_lines
  tints = [thing.label.split()[0] for thing in things]
  alone = [n for n, tint in enumerate(tints) if tints.count(tint) == 1]
  if len(things) != len(start.told.things) or not alone:
    return None
  n = int(random.choice(alone))
  if any(thing.place for thing in start.said.things):
    return None
  free = [
    place
    for place in _places(things[n], lines)
    if math.dist(_middle(place), _middle(things[n])) >= FAR
    and not any(_meet(place, other) for other in things if other != things[n])
  ]
  if not free:
    return None
  place = free[random.integers(len(free))]
  new = [place if m == n else other for m, other in enumerate(things)]
  edit = {'boxes' if isinstance(place, Box) else 'blobs': new}
  latents = model.edit(start.caption, start.latents, imagine_later=True, **edit)
  return Edit(start, latents, place.label, place)


def recoloured(model: api.Kaleido, start: Start, random: Random) -> Edit | None:
  """The first thing has another colour, in words."""
  if start.said.things[0].colour is not None:
    return None
  first, *rest = start.told.things
  used = {thing.colour for thing in start.told.things}
  colour = str(random.choice([c for c in drawing.TINTS if c not in used]))
  first = dataclasses.replace(first, colour=colour)
  facts = dataclasses.replace(start.told, things=(first, *rest))
  return Edit(start, _retold(model, start, facts), wording.label(first))


def toned(model: api.Kaleido, start: Start, random: Random) -> Edit | None:
  """The background has another tone, in words."""
  if start.said.tone is not None:
    return None
  tone = _another(start.told.tone, random)
  facts = dataclasses.replace(start.told, tone=tone)
  return Edit(start, _retold(model, start, facts), tone)


def swatched(model: api.Kaleido, start: Start, random: Random) -> Edit | None:
  """The background has another tone, in its swatches and nowhere else."""
  if start.said.tone is not None:
    return None
  tone = _another(start.told.tone, random)
  old, new = (
    np.mean(drawing.GROUNDS[name], 0) for name in (start.told.tone, tone)
  )
  (new,) = set(colors.of(np.full((4, 4, 3), new, np.uint8)))
  shows = [
    np.abs(np.subtract(colors.rgb(i), old)).max() < NEAR
    for i in start.latents.colors
  ]
  if not any(shows):
    return None
  swatches = [
    new if shown else i
    for shown, i in zip(shows, start.latents.colors, strict=True)
  ]
  latents = model.edit(start.caption, start.latents, colors=swatches)
  return Edit(start, latents, tone)


def _retold(model: api.Kaleido, start: Start, facts: Facts) -> Latents:
  text = wording.text(facts)
  return model.edit(start.caption, start.latents, text=text, imagine_later=True)


def _another(tone: str, random: Random) -> str:
  return str(random.choice([t for t in drawing.GROUNDS if t != tone]))


def _places(thing: Box | Blob, lines: int) -> Iterator[Box | Blob]:
  """A thing of this size, wherever it fits in."""
  for x, y in itertools.product(range(0, LIMIT, LIMIT // lines), repeat=2):
    if isinstance(thing, Blob):
      low, high, there = thing.r_major, LIMIT - thing.r_major, dict(xc=x, yc=y)
      fits = low <= min(x, y) and max(x, y) <= high
    else:
      right, below = x + thing.x2 - thing.x1, y + thing.y2 - thing.y1
      there = dict(x1=x, y1=y, x2=right, y2=below)
      fits = max(right, below) <= LIMIT
    if fits:
      yield dataclasses.replace(thing, **there).snapped(lines)


def _middle(thing: Box | Blob) -> tuple[float, float]:
  if isinstance(thing, Blob):
    return thing.xc, thing.yc
  return (thing.x1 + thing.x2) / 2, (thing.y1 + thing.y2) / 2


def _meet(a: Box | Blob, b: Box | Blob) -> bool:
  """Whether two may overlap."""
  if isinstance(a, Blob):
    return math.dist(_middle(a), _middle(b)) < a.r_major + b.r_major
  return box_iou(a, b) > 0
