"""Latents that are lists of ids, `12#511#0`: the grammar of vokens and colours.

The ids are whole tokens of the vocabulary (`<voken_12>`), so `#` is for people
and costs the prior nothing.
"""

import re
from collections.abc import Sequence

from kaleido_jax.latents.words import Problem

Ids = tuple[int, ...]


def freeze(name: str, value: Sequence[int]) -> Ids:
  if isinstance(value, str):
    raise TypeError(f'{name} is a list of ids, not a string.')
  return tuple(int(i) for i in value)


def encode(value: Ids) -> str:
  return '#'.join(map(str, value))


def parse(
  string: str, *, name: str, limit: int, count: int
) -> tuple[Ids, list[Problem]]:
  """Keeps what is an id, reports what is not."""
  found, problems, at = [], [], 0
  for piece in string.split('#') if string else ():
    # int() would take ' 1_2' and other scripts' digits as well.
    if re.fullmatch('[0-9]{1,9}', piece) and int(piece) < limit:
      found.append(int(piece))
    else:
      problems.append(Problem(name, at, piece, f'is no id of 0..{limit - 1}'))
    at += len(piece) + 1
  return tuple(found), problems + miscounted(name, found, count)


def check(value: Ids, *, name: str, limit: int, count: int) -> list[Problem]:
  problems = [
    Problem(name, index, str(i), f'is no id of 0..{limit - 1}')
    for index, i in enumerate(value)
    if not 0 <= i < limit
  ]
  return problems + miscounted(name, value, count)


def miscounted(name: str, value: Sequence, count: int) -> list[Problem]:
  if len(value) == count:
    return []
  return [
    Problem(name, 0, encode(tuple(value)), f'has {len(value)} ids, not {count}')
  ]
