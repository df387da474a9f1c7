"""Objects in running text, the common grammar of boxes and blobs.

  Dog (1, 33, 995, 995) resting head on [owner's lap] (1, 630, 785, 998) while

The numbers follow the label. A label of one word stands plain, as in the paper;
a longer one is put in square brackets, which the paper leaves out: without them
nobody could tell where it begins. A string in the paper's own style is read as
well (there the label is the last word) and written back as it was.
"""

import dataclasses
import operator
import re
from collections.abc import Sequence
from typing import Any

from kaleido_jax.latents import words
from kaleido_jax.latents.words import Problem

LIMIT = 1000  # coordinates are thousandths of the picture

# A label that is there or not, then something in round brackets.
_OBJECT = re.compile(
  # From the beginning of a word: or a long one would be tried from each letter.
  r'(?:(?:\[(?P<long>[^\[\]]*)\]|(?<![^\s\[\]()])(?P<short>[^\s\[\]()]+)) *)?'
  r'\((?P<inside>[^()]*)\)'
)
_CLOSING = tuple('.,;:!?')  # no blank between an object and these
_NUMBER = re.compile(r'[+-]?[0-9]{1,9}')
_BRACKET = re.compile(r'[\[\]()]')

Segments = tuple[Any, ...]  # str, or an object with a label


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
  """A kind whose values are words and objects of one class, in order."""

  name: str
  attribute: str
  thing: type  # a dataclass: label, then its coordinates
  pieces: int = 0
  # Coordinates are written on so many lines; 0: as they are. A small model that
  # reads few numbers sees each of them often, and learns where it is.
  lines: int = 0

  def freeze(self, value: Sequence) -> Segments:
    """A tuple, in which no string is empty and no two are neighbours."""
    if isinstance(value, str):
      raise TypeError(
        f'{self.name} is a list of strings and {self.thing.__name__}s; to read '
        'a string, use Latents.parse.'
      )
    merged = []
    for segment in value:
      if segment == '':
        continue
      if not isinstance(segment, str | self.thing):
        raise TypeError(
          f'{self.name} is made of strings and {self.thing.__name__}s, not '
          f'{type(segment).__name__}.'
        )
      if isinstance(segment, str) and merged and isinstance(merged[-1], str):
        merged[-1] += f' {segment}'
      else:
        merged.append(segment)
    return tuple(merged)

  def encode(self, value: Segments) -> str:
    string = ''
    for segment in value:
      if isinstance(segment, str):
        blank = not segment.startswith(_CLOSING)
        written = words.escape(segment)
      else:
        blank, written = True, self._write(segment)
      string += ' ' * (blank and bool(string)) + written
    return string

  def _write(self, thing) -> str:
    thing = thing.snapped(self.lines) if self.lines else thing
    label = words.escape(thing.label)
    if not label or re.search(r'\s', label):
      label = f'[{label}]'
    return f'{label} ({", ".join(map(str, self._numbers(thing)))})'

  def _numbers(self, thing) -> list[int]:
    return [getattr(thing, name) for name in self._fields()]

  def _fields(self) -> list[str]:
    return [f.name for f in dataclasses.fields(self.thing) if f.name != 'label']

  def parse(self, string: str) -> tuple[Segments, list[Problem]]:
    """What is no object stays as words."""
    segments, problems, done, refused = [], [], 0, []
    for match in _OBJECT.finditer(string):
      thing = self._read(match, problems)
      if thing is None:
        refused.append(match.span())
        continue
      before = string[done : match.start()]
      segments += self._words(before, starts=done == 0)
      problems += self._brackets(before, done, refused)
      segments.append(thing)
      done = match.end()
    segments += self._words(string[done:], starts=done == 0, ends=True)
    problems += self._brackets(string[done:], done, refused)
    return self.freeze(segments), problems

  def _words(self, text: str, *, starts: bool, ends: bool = False) -> list[str]:
    """Takes off the blanks that join words to objects, and no others."""
    text = text if starts else text.removeprefix(' ')
    text = text if ends else text.removesuffix(' ')
    return [words.unescape(text)]

  def _brackets(self, text: str, at: int, refused) -> list[Problem]:
    """Brackets of no object: often of one that lost the other bracket."""
    found = [match.start() + at for match in _BRACKET.finditer(text)]
    why = 'is a bracket of no object; in plain words write %28 %29 %5B %5D'
    return [
      Problem(self.name, place, text[place - at :][:20], why)
      for place in found
      if not any(start <= place < end for start, end in refused)
    ]

  def _read(self, match: re.Match, problems: list[Problem]):
    def refuse(why):
      problems.append(Problem(self.name, match.start(), match[0], why))

    inside = [number.strip() for number in match['inside'].split(',')]
    fields = self._fields()
    if not all(map(_NUMBER.fullmatch, inside)):
      return refuse('is not a list of whole numbers')
    if len(inside) != len(fields):
      return refuse(f'has {len(inside)} numbers, not {", ".join(fields)}')
    label = match['long'] if match['long'] is not None else match['short'] or ''
    try:
      numbers = dict(zip(fields, map(int, inside), strict=True))
      return self.thing(label=words.unescape(label), **numbers)
    except ValueError as error:
      return refuse(str(error))

  def check(self, value: Segments) -> list[Problem]:
    """Nothing to say: an object out of range cannot be made."""
    return []

  def get(self, value: Segments) -> tuple:
    return tuple(item for item in value if isinstance(item, self.thing))

  def put(self, value: Segments | None, new: Sequence) -> Segments:
    """Puts new objects where the old ones stood, in order.

    Those that are too many come last, and old ones that are left over go.
    """
    rest, segments = list(new), []
    for segment in value or ():
      if isinstance(segment, str):
        segments.append(segment)
      elif rest:
        segments.append(rest.pop(0))
    return self.freeze(segments + rest)

  def flip(self, value: Segments) -> Segments:
    return tuple(
      words.mirror(item) if isinstance(item, str) else item.flip()
      for item in value
    )

  def overlay(
    self, draw, value: Segments, width: int, height: int, said: set[str]
  ) -> None:
    """Outlines with their labels; a label that was `said` is not repeated."""
    line, size = max(1, width // 128), max(10, width // 14)
    for index, thing in enumerate(self.get(value)):
      ink = INKS[index % len(INKS)]
      thing.draw(draw, 'white', width, height, line + 2)
      x, y = thing.draw(draw, ink, width, height, line)
      label = ' '.join(thing.label.split())
      if label in said:
        continue
      said.add(label)
      # Not over the edge, where nobody could read it.
      x = min(x, width - draw.textlength(label, font_size=size) - 2)
      draw.text(
        (max(x, 2), min(max(y, 1), height - 1.3 * size)),
        label,
        fill=ink,
        stroke_width=2,
        stroke_fill='white',
        font_size=size,
      )


# Told apart by most eyes (Okabe and Ito), on light and dark pictures.
INKS = ('#d55e00', '#0072b2', '#009e73', '#cc79a7', '#b8860b', '#000000')


def check_range(thing, names: Sequence[str], limit: int = LIMIT) -> None:
  """Refuses coordinates outside 0..limit, and what is no whole number."""
  for name in names:
    value = getattr(thing, name)
    if isinstance(value, bool) or not hasattr(value, '__index__'):
      raise TypeError(f'{name}={value!r} is not a whole number.')
    if not 0 <= value <= limit:
      raise ValueError(f'has {name}={value}, outside 0..{limit}')
    object.__setattr__(thing, name, operator.index(value))  # numpy's become int
