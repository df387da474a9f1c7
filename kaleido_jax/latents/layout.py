"""A coarse segmentation, the sixth kind: which object covers which cell.

Eight rows of eight letters, `.` for the background, `a` for the first object in
the order of its boxes, up to nine:

  ......../..aaa.../..aaabb./...aabb./......../......../......../........

Words say what is there, boxes how far it reaches; this says what lies in front.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from kaleido_jax.latents import areas
from kaleido_jax.latents.segments import INKS
from kaleido_jax.latents.words import Problem

GRID = 8
OBJECTS = 'abcdefghi'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """Eight strings of eight letters."""

  name: str = 'layout'
  attribute: str = 'layout'
  pieces: int = 0

  def freeze(self, value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str):
      raise TypeError(f'{self.name} is a list of rows, not a string.')
    return tuple(value)

  def encode(self, value: tuple[str, ...]) -> str:
    return '/'.join(value)

  def parse(self, string: str) -> tuple[tuple[str, ...], list[Problem]]:
    """Keeps the rows that are rows; there are eight, whatever is written."""
    rows, problems, at = [], [], 0
    for row in string.split('/'):
      why = _wrong(row)
      if why:
        problems.append(Problem(self.name, at, row, why))
      else:
        rows.append(row)
      at += len(row) + 1
    problems += self._miscounted(rows)
    rows += ['.' * GRID] * GRID
    return tuple(rows[:GRID]), problems

  def check(self, value: tuple[str, ...]) -> list[Problem]:
    problems = [
      Problem(self.name, index * (GRID + 1), row, _wrong(row))
      for index, row in enumerate(value)
      if _wrong(row)
    ]
    return problems + self._miscounted(value)

  def _miscounted(self, rows: Sequence[str]) -> list[Problem]:
    if len(rows) == GRID:
      return []
    why = f'has {len(rows)} rows, not {GRID}'
    return [Problem(self.name, 0, '/'.join(rows), why)]

  def get(self, value: tuple[str, ...]) -> tuple[str, ...]:
    return value

  def put(self, value, new: Sequence[str]) -> tuple[str, ...]:
    return self.freeze(new)

  def flip(self, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(row[::-1] for row in value)

  def overlay(self, draw, value, width: int, height: int, said) -> None:
    """A dot in every cell that an object covers, in the object's ink."""
    x_side, y_side = width / GRID, height / GRID
    for row, letters in enumerate(value[:GRID]):
      for column, letter in enumerate(letters[:GRID]):
        if letter in OBJECTS:
          x, y = (column + 0.5) * x_side, (row + 0.5) * y_side
          reach, ink = x_side / 10, INKS[OBJECTS.index(letter) % len(INKS)]
          draw.ellipse(
            (x - reach, y - reach, x + reach, y + reach),
            fill=ink,
            outline='white',
          )


def _wrong(row: str) -> str:
  """Why this is no row; '' if it is one."""
  if len(row) != GRID:
    return f'is {len(row)} cells long, not {GRID}'
  if set(row) - set(OBJECTS + '.'):
    return f'has letters other than . and {OBJECTS[0]}..{OBJECTS[-1]}'
  return ''


def of(masks: Sequence[Bool[np.ndarray, 'h w']]) -> tuple[str, ...]:
  """A cell belongs to the object that covers most of it, if half is covered.

  Masks are of what is seen: no pixel belongs to two.
  """
  if not masks:
    return ('.' * GRID,) * GRID
  shares = [areas.average(mask, GRID) for mask in masks[: len(OBJECTS)]]
  covered = np.stack(shares)
  # Half, but for rounding. -1 is the last letter.
  largest = np.where(covered.sum(0) > 0.4999, covered.argmax(0), -1)
  letters = np.array([*OBJECTS, '.'])[largest]
  return tuple(''.join(row) for row in letters)
