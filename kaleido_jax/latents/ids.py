"""Latents that are lists of ids, `12#511#0`: the grammar of vokens and colours.

The ids are whole tokens of the vocabulary (`<voken_12>`), so `#` is for people
and costs the prior nothing.
"""

import dataclasses
import operator
import re
from collections.abc import Sequence

from kaleido_jax.latents.words import Problem

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
  """A kind whose values are `count` ids below `pieces`."""

  name: str
  attribute: str
  pieces: int
  count: int

  def freeze(self, value: Sequence[int]) -> Ids:
    if isinstance(value, str):
      raise TypeError(f'{self.name} is a list of ids, not a string.')
    return tuple(map(operator.index, value))

  def encode(self, value: Ids) -> str:
    return '#'.join(map(str, value))

  def parse(self, string: str) -> tuple[Ids, list[Problem]]:
    """Keeps what is an id, reports what is not."""
    found, problems, at = [], [], 0
    for piece in string.split('#') if string else ():
      # int() would take ' 1_2' and other scripts' digits as well.
      if re.fullmatch('[0-9]{1,9}', piece) and int(piece) < self.pieces:
        found.append(int(piece))
      else:
        problems.append(self._unknown(at, piece))
      at += len(piece) + 1
    return tuple(found), problems + self._miscounted(tuple(found))

  def check(self, value: Ids) -> list[Problem]:
    problems, at = [], 0
    for i in value:
      if not 0 <= i < self.pieces:
        problems.append(self._unknown(at, str(i)))
      at += len(f'{i}#')
    return problems + self._miscounted(value)

  def _unknown(self, at: int, piece: str) -> Problem:
    return Problem(self.name, at, piece, f'is no id of 0..{self.pieces - 1}')

  def _miscounted(self, value: Ids) -> list[Problem]:
    if len(value) == self.count:
      return []
    why = f'has {len(value)} ids, not {self.count}'
    return [Problem(self.name, 0, self.encode(value), why)]

  def get(self, value: Ids) -> Ids:
    return value

  def put(self, value: Ids | None, new: Sequence[int]) -> Ids:
    return self.freeze(new)
