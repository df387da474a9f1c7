"""Free text inside a latent, and what does not parse.

`|` separates kinds, `#` separates ids, brackets enclose labels and coordinates.
In free text these are written as percent codes, as in a web address:

  50% | a box (left)  ->  50% %7C a box %28left%29

The T5 vocabulary has no backslash, so the usual escape would be lost. T5 also
turns wide and circled forms into plain ones, '｜' into '|', and SentencePiece
takes '▁' for a blank: they are coded too. A percent sign is itself coded only
before something that would read as a code.
"""

import functools
import re
import unicodedata
from typing import NamedTuple

RESERVED = '|#[]()'
_CODE_OF_CHARACTER = re.compile(  # one character in UTF-8
  '%[0-7][0-9A-F]|%[CD][0-9A-F]%[89AB][0-9A-F]'
  '|%E[0-9A-F](?:%[89AB][0-9A-F]){2}|%F[0-7](?:%[89AB][0-9A-F]){3}'
)
_PLAIN = re.compile(r'[|#\[\]()]|%(?=[0-9A-F]{2})|[^\x00-\x7f]')
_SIDES = re.compile(r'\b(left|Left|LEFT|right|Right|RIGHT)(most|hand)?\b')
_OTHER = {
  form(a): form(b)
  for a, b in (('left', 'right'), ('right', 'left'))
  for form in (str.lower, str.capitalize, str.upper)
}


class Problem(NamedTuple):
  """A piece of a latent that is not what it should be."""

  kind: str
  at: int  # where in the kind's string (in characters)
  piece: str  # as it stands there
  why: str

  def __str__(self) -> str:
    return f'{self.kind}, character {self.at}: {self.piece!r} {self.why}'


def escape(text: str) -> str:
  return _PLAIN.sub(_coded, text)


def unescape(text: str) -> str:
  return _CODE_OF_CHARACTER.sub(_decoded, text)


def _coded(match: re.Match) -> str:
  character = match[0]
  if character != '%' and not _is_special(character):
    return character
  return ''.join(f'%{byte:02X}' for byte in character.encode())


def _decoded(match: re.Match) -> str:
  try:
    character = bytes.fromhex(match[0].replace('%', '')).decode()
  except UnicodeDecodeError:
    return match[0]
  # Other codes are somebody's text: "50%20off" stays as it is.
  return character if character == '%' or _is_special(character) else match[0]


@functools.lru_cache(4096)
def _is_special(character: str) -> bool:
  """Whether it is reserved, or might be taken for something that is."""
  plain = unicodedata.normalize('NFKC', character)
  return character == '▁' or any(c in RESERVED + '%' for c in plain)


def mirror(text: str) -> str:
  """Left becomes right: 'on the Left' -> 'on the Right'.

  Words alone decide: 'the right answer' changes too.
  """
  return _SIDES.sub(lambda m: _OTHER[m[1]] + (m[2] or ''), text)
