"""Which drawing has which caption: joined by code point, else by name.

Some sets say the code points of their drawings (iconify's chars.json, or file
names), others have only names, in the words of their time: U+1F9D1 U+200D
U+1F680 is 'astronaut', U+1F576 'dark-sunglasses' in one and 'darksunglasses' in
another. A name means, in this order, an emoji's present caption, what a set
with code points calls it, its name in Unicode. All drawings that were joined by
name have been looked at; `CORRECTIONS` are the ones that came out wrong.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

# Groups of emojibase. Letters that make up flags have none.
COMPONENTS, SYMBOLS, FLAGS = 2, 8, 9

# A code point, or None: no emoji at all, or one that cannot be told.
CORRECTIONS: Mapping[tuple[str, str], str | None] = {
  ('fxemoji', 'cat'): '1f431',
  ('fxemoji', 'construction'): '1f3d7',
  ('fxemoji', 'dog'): '1f436',
  ('fxemoji', 'keyboard'): None,  # has black and white keys
  ('fxemoji', 'kiss'): '1f617',
  ('fxemoji', 'mouse'): '1f42d',
  ('fxemoji', 'pig'): '1f437',
  ('fxemoji', 'sunglasses'): '1f60e',
  ('fxemoji', 'tiger'): '1f42f',
  ('fxemoji', 'tramcar'): None,  # a silhouette
  ('fxemoji', 'window'): None,  # on a screen
  ('streamline-emojis', 'turkey'): None,  # the country
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
  """An emoji, whoever draws it."""

  code: str  # '1f408-200d-2b1b'
  caption: str
  tags: tuple[str, ...]
  plain: bool  # no flag, no skin tone, no symbol


class Design(NamedTuple):
  """A drawing of an emoji: the icon's name, and which of several it is."""

  code: str
  icon: str
  number: int = 1


def code(hexcode: str) -> str:
  """Without U+FE0F, which asks for a picture and which sets leave out."""
  return '-'.join(p for p in hexcode.lower().split('-') if p != 'fe0f')


def meanings(data: Sequence[Mapping[str, Any]]) -> dict[str, Meaning]:
  """Emojibase's data.json, by code; skin tones are emoji of their own."""
  found = {}
  for entry in data:
    group = entry.get('group')
    plain = group not in (None, COMPONENTS, SYMBOLS, FLAGS)
    tags = tuple(entry.get('tags', ()))
    for each in (entry, *entry.get('skins', ())):
      found[code(each['hexcode'])] = Meaning(
        code=code(each['hexcode']),
        caption=each['label'],
        tags=tags,
        plain=plain and each is entry,
      )
  return found


def names(
  known: Mapping[str, Meaning],
  sets: Iterable[tuple[Mapping[str, Any], Mapping[str, str]]],
) -> dict[str, str]:
  """What names mean. `sets`: icons.json and chars.json of some packages."""
  found: dict[str, str] = {}
  for meaning in known.values():
    found.setdefault(_plain(meaning.caption), meaning.code)
  for icons, chars in sets:
    others: dict[str, list[str]] = {}
    for alias, target in icons.get('aliases', {}).items():
      if set(target) == {'parent'}:  # not turned or mirrored
        others.setdefault(target['parent'], []).append(alias)
    for hexcode, icon in chars.items():
      if code(hexcode) in known:
        for name in (icon, *others.get(icon, ())):
          found.setdefault(_plain(name), code(hexcode))
  for each in known:
    if '-' not in each:
      name = unicodedata.name(chr(int(each, 16)), '')  # newer than Python: ''
      found.setdefault(_plain(name), each)
  found.pop('', None)
  return found


def _plain(name: str) -> str:
  """Letters and digits alone: sets differ in what they put between."""
  ascii_ = unicodedata.normalize('NFKD', name.lower()).encode('ascii', 'ignore')
  return re.sub('[^a-z0-9]', '', ascii_.decode())


def by_code(
  known: Mapping[str, Meaning], chars: Mapping[str, str]
) -> Iterator[Design]:
  """The designs of a set that says its code points."""
  for hexcode, icon in sorted(chars.items()):
    if code(hexcode) in known:
      yield Design(code(hexcode), icon)


def by_name(
  known: Mapping[str, Meaning],
  meant: Mapping[str, str],
  set_name: str,
  icons: Mapping[str, Any],
) -> Iterator[Design]:
  """The designs of a set that has names alone.

  Of two names for one emoji the first counts, unless they are numbered
  ('baby-1', 'baby-2'): those are different drawings.
  """
  mirrored = [
    alias
    for alias, target in icons.get('aliases', {}).items()
    if set(target) == {'parent', 'hFlip'}
  ]
  seen: set[tuple[str, int]] = set()
  # Withdrawn icons come last: they count where nothing replaced them.
  order = sorted(
    (*icons['icons'], *mirrored),
    key=lambda n: (icons['icons'].get(n, {}).get('hidden', False), n),
  )
  for icon in order:
    number = 1
    found = CORRECTIONS.get((set_name, icon), meant.get(_plain(icon)))
    numbered = re.fullmatch(r'(.+?)-?([1-9])', icon)
    if found is None and numbered and (set_name, icon) not in CORRECTIONS:
      found, number = meant.get(_plain(numbered[1])), int(numbered[2])
    if found in known and (found, number) not in seen:
      seen.add((found, number))
      yield Design(found, icon, number)
