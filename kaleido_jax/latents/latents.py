"""What the prior writes before the picture is drawn, as objects and as strings.

A value per kind, in order. Wherever a person sees latents they are one string:

  a pug on a book | [pug] (320, 275, 591, 730) | 1872#680#2888

A new kind is a file with a class like those here, and a line in `KINDS`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from kaleido_jax.latents.blobs import BLOBS
from kaleido_jax.latents.boxes import BOXES
from kaleido_jax.latents.colors import Colors
from kaleido_jax.latents.layout import Layout
from kaleido_jax.latents.text import Text
from kaleido_jax.latents.vokens import Vokens
from kaleido_jax.latents.words import Problem

# Where a codebook differs, hand in Vokens(pieces=1024, count=16) for the name.
KINDS = {
  'text': Text(),
  'bbox': BOXES,
  'blob': BLOBS,
  'voken': Vokens(),
  'color': Colors(),
  'layout': Layout(),
}

Kind = Any  # a value of KINDS
Kinds = Sequence[str | Kind]

SEPARATOR = ' | '


def named(kind: str | Kind) -> Kind:
  """The kind of a name; a kind stays itself."""
  if not isinstance(kind, str):
    return kind
  if kind not in KINDS:
    raise ValueError(f'{kind!r} is no kind of latent; there are {list(KINDS)}.')
  return KINDS[kind]


class Latents(Mapping[str, Any]):
  """Values of some kinds, in order; a mapping that never changes.

  By kind, latents['bbox'] is all of it; by attribute, latents.boxes is what can
  be edited in it: `.text .boxes .blobs .vokens .colors .layout`.

  Those that a model has imagined know their `number`, (seed, index): edited
  copies keep it, and so they are drawn from the same noise.
  """

  def __init__(self, **values: Any):
    frozen = {name: named(name).freeze(v) for name, v in values.items()}
    object.__setattr__(self, '_values', frozen)
    object.__setattr__(self, 'number', None)

  def __setattr__(self, name: str, value: Any) -> None:
    raise AttributeError(
      f'latents do not change; latents.replace({name}=...) gives edited ones.'
    )

  def __getitem__(self, name: str) -> Any:
    return self._values[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)

  def __hash__(self) -> int:
    return hash(frozenset(self._values.items()))

  def __getattr__(self, attribute: str) -> Any:
    for kind in KINDS.values():
      if kind.attribute == attribute:
        if kind.name in self._values:
          return kind.get(self._values[kind.name])
        raise AttributeError(
          f'there is no {kind.name} in these latents, only {list(self)}.'
        )
    raise AttributeError(attribute)

  def __repr__(self) -> str:
    values = ', '.join(f'{name}={value!r}' for name, value in self.items())
    return f'Latents({values})'

  def __str__(self) -> str:
    strings = self.to_strings()
    width = max(map(len, strings), default=0)
    return '\n'.join(f'{name:<{width}}  {s}' for name, s in strings.items())

  def numbered(self, seed: int, index: int) -> 'Latents':
    """A copy that is number `index` of what a seed gives."""
    return self._numbered((int(seed), int(index)))

  def _numbered(self, number: tuple[int, int] | None) -> 'Latents':
    copy = Latents(**self._values)
    object.__setattr__(copy, 'number', number)
    return copy

  def to_strings(self) -> dict[str, str]:
    """Every kind by itself, as files keep it."""
    return {name: named(name).encode(value) for name, value in self.items()}

  def to_string(self, kinds: Kinds | None = None) -> str:
    """Kinds as the prior writes them, in the given order."""
    chosen = [named(kind) for kind in (tuple(self) if kinds is None else kinds)]
    missing = [kind.name for kind in chosen if kind.name not in self]
    if missing:
      raise ValueError(f'there is no {missing[0]} in latents of {list(self)}.')
    return SEPARATOR.join(kind.encode(self[kind.name]) for kind in chosen)

  @staticmethod
  def parse(string: str, kinds: Kinds) -> tuple['Latents', list[Problem]]:
    """Makes of a string what can be made of it; never raises.

    Whatever the prior wrote gives latents of all kinds; what does not parse is
    kept as words where the kind has words, and is always reported.
    """
    parts = _split(string, len(kinds))
    values, problems = {}, []
    for index, kind in enumerate(map(named, kinds)):
      if index >= len(parts):
        problems.append(Problem(kind.name, 0, '', 'is missing'))
      part = parts[index] if index < len(parts) else ''
      values[kind.name], found = kind.parse(part)
      problems += found
    if len(parts) > len(kinds):
      last = list(values)[-1] if values else 'latents'
      at = len(SEPARATOR.join(parts[max(len(kinds) - 1, 0) : len(kinds)]))
      rest = SEPARATOR.join(parts[len(kinds) :])
      why = f'is more than {list(map(_name, kinds))} can hold'
      problems.append(Problem(last, at, rest, why))
    return Latents(**values), problems

  @staticmethod
  def from_string(string: str, kinds: Kinds) -> 'Latents':
    """Strict: for what a person wrote. Says everything that is wrong."""
    latents, problems = Latents.parse(string, kinds)
    _refuse(problems)
    return latents

  @staticmethod
  def from_strings(
    strings: Mapping[str, Any], kinds: Kinds | None = None
  ) -> 'Latents':
    """Undoes `to_strings`; strict."""
    values, problems = {}, []
    chosen = {_name(k): named(k) for k in (strings if kinds is None else kinds)}
    for name, kind in chosen.items():
      if name not in strings:
        raise ValueError(f'there is no {name} in latents of {list(strings)}.')
      if not isinstance(strings[name], str):
        raise ValueError(f'{name} is {strings[name]!r}, which is no string.')
      values[name], found = kind.parse(strings[name])
      problems += found
    _refuse(problems)
    return Latents(**values)

  def validate(self, kinds: Kinds | None = None) -> 'Latents':
    """Refuses values that the kinds do not allow, and returns the rest."""
    problems = []
    for kind in map(named, tuple(self) if kinds is None else kinds):
      if kind.name not in self:
        problems.append(Problem(kind.name, 0, '', 'is missing'))
      else:
        problems += kind.check(self[kind.name])
    _refuse(problems)
    return self

  def replace(self, **edits: Any) -> 'Latents':
    """An edited copy: whole kinds (bbox=...), or what is in them (boxes=...).

    New boxes and blobs take the places of the old ones in the running text.
    """
    by_attribute = {kind.attribute: kind for kind in KINDS.values()}
    values = dict(self._values)
    for name, new in edits.items():
      if name in KINDS:
        values[name] = new
      elif name in by_attribute:
        kind = by_attribute[name]
        values[kind.name] = kind.put(values.get(kind.name), new)
      else:
        raise TypeError(
          f'latents have no {name!r}; edit {list(by_attribute)}, or whole '
          f'kinds, {list(KINDS)}.'
        )
    return Latents(**values)._numbered(self.number)

  def upto(self, kind: str) -> 'Latents':
    """This kind and those before it."""
    if kind not in self:
      raise ValueError(f'there is no {kind} in latents of {list(self)}.')
    names = list(self)
    kept = {n: self[n] for n in names[: names.index(kind) + 1]}
    return Latents(**kept)._numbered(self.number)

  def flip(self) -> 'Latents':
    """What the mirrored picture has. Vokens refuse."""
    return Latents(**{n: named(n).flip(value) for n, value in self.items()})

  def overlay(
    self, image: UInt8[np.ndarray, 'h w 3'], *, enlarge: int | None = None
  ) -> UInt8[np.ndarray, '_ _ 3']:
    """Draws what can be drawn onto a copy of the picture.

    Small pictures are enlarged, to 256 pixels or more, so that lines are thin.
    """
    height, width = image.shape[:2]
    if enlarge is None:
      fits = max(1, 2048 // max(height, width))
      enlarge = min(max(1, -(-256 // min(height, width))), fits)
    width, height = width * enlarge, height * enlarge
    canvas = Image.fromarray(image).resize((width, height), Image.NEAREST)
    draw = ImageDraw.Draw(canvas)
    said: set[str] = set()
    for name, value in self.items():
      named(name).overlay(draw, value, width, height, said)
    return np.asarray(canvas)


def _name(kind: str | Kind) -> str:
  return named(kind).name


def _split(string: str, count: int) -> list[str]:
  """Splits into kinds; exact for what `to_string` wrote, tolerant otherwise."""
  if not count:
    return [string] if string else []
  pieces = string.split('|')
  # Exactly one blank on either side belongs to the separator.
  last = len(pieces) - 1
  return [
    (piece if i == 0 else piece.removeprefix(' ')).removesuffix(
      ' ' if i < last else ''
    )
    for i, piece in enumerate(pieces)
  ]


def _refuse(problems: list[Problem]) -> None:
  if problems:
    raise ValueError('; '.join(map(str, problems)) + '.')
