"""Which drawings there are to draw: packages opened, joined, split by caption.

One caption in ten is held out, with all its designs, by a hash of the caption:
it stays on its side whatever else is prepared.
"""

import collections
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from kaleido_jax.data.emoji import naming, npm, vendors

SPLITS = ('train', 'test')
HELD_OUT = 10  # one caption in so many
SUBSETS = ('plain', 'all')


class Opened(NamedTuple):
  """What is in the package of a set."""

  about: vendors.EmojiSet
  icons: Mapping[str, Any]  # icons.json; {} if the set is image files
  chars: Mapping[str, str]  # name of the icon or file by code point, if known
  files: Mapping[str, bytes]


Piece = tuple[naming.Meaning, Opened, naming.Design]


def open_set(about: vendors.EmojiSet, path: pathlib.Path) -> Opened:
  """Reads a package: iconify's json files, or images named by code point."""
  found = npm.read(
    path,
    lambda name: (
      name in ('icons.json', 'chars.json') or name.startswith('assets/')
    ),
  )
  icons = json.loads(found.pop('icons.json', '{}'))
  chars = json.loads(found.pop('chars.json', '{}'))
  if not icons:
    chars = {pathlib.PurePosixPath(name).stem: name for name in found}
  return Opened(about, icons, chars, found)


def join(
  known: Mapping[str, naming.Meaning],
  opened: Sequence[Opened],
  subset: str = 'all',
  limit: int = 0,
) -> dict[str, list[Piece]]:
  """All designs by split, caption by caption."""
  meant = naming.names(known, [(o.icons, o.chars) for o in opened])
  by_caption = collections.defaultdict(list)
  for each in opened:
    designs = (
      naming.by_code(known, each.chars)
      if each.chars
      else naming.by_name(known, meant, each.about.name, each.icons)
    )
    for design in designs:
      meaning = known[design.code]
      if subset == 'all' or meaning.plain:
        by_caption[meaning.caption].append((meaning, each, design))
  pieces: dict[str, list[Piece]] = {split: [] for split in SPLITS}
  for caption in sorted(by_caption)[: limit or None]:
    pieces[split_of(caption)] += by_caption[caption]
  for split, chosen in pieces.items():
    if not chosen:
      raise ValueError(
        f'of {len(by_caption)} captions (limit={limit}) none falls to the '
        f'split {split}; ask for more.'
      )
  return pieces


def split_of(caption: str) -> str:
  digest = hashlib.blake2b(caption.encode(), digest_size=8).digest()
  held_out = int.from_bytes(digest, 'little') % HELD_OUT == 0
  return 'test' if held_out else 'train'
