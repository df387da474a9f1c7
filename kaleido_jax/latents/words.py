"""Free text inside a latent, and what does not parse.

`|` separates kinds, `#` separates ids, brackets enclose labels and coordinates.
In free text these five are written as percent codes, as in a web address:

  50% | a box (left)  ->  50% %7C a box %28left%29

The T5 vocabulary has no backslash, so the usual escape would be lost. A percent
sign is itself escaped only before something that would read as a code.
"""

import re
from typing import NamedTuple

RESERVED = '|#[]()'
_CODES = {f'%{ord(char):02X}': char for char in RESERVED + '%'}
_SPECIAL = re.compile(
  f'[{re.escape(RESERVED)}]|%(?={"|".join(code[1:] for code in _CODES)})'
)
_CODE = re.compile('|'.join(_CODES))
_SIDES = re.compile(r'\b(left|right)(most|hand)?\b', re.IGNORECASE)


class Problem(NamedTuple):
  """A piece of a latent that is not what it should be."""

  kind: str
  at: int  # where in the kind's string (in characters)
  piece: str  # as it stands there
  why: str

  def __str__(self) -> str:
    return f'{self.kind}, character {self.at}: {self.piece!r} {self.why}'


def escape(text: str) -> str:
  return _SPECIAL.sub(lambda match: f'%{ord(match[0]):02X}', text)


def unescape(text: str) -> str:
  return _CODE.sub(lambda match: _CODES[match[0]], text)


def mirror(text: str) -> str:
  """Left becomes right: 'on the Left' -> 'on the Right'.

  Words alone decide: 'the right answer' changes too.
  """

  def swap(match):
    word = match[1]
    other = 'right' if word.lower() == 'left' else 'left'
    if word.isupper():
      other = other.upper()
    elif word[0].isupper():
      other = other.capitalize()
    return other + (match[2] or '')

  return _SIDES.sub(swap, text)
