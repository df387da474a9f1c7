"""Makes emoji records of npm tarballs: join, draw, split, write.

  OUT/train, OUT/test      records of kind 'emoji' (kaleido_jax.data.records)

One caption in ten is held out, with all its designs, by a hash of the caption:
it stays on its side whatever else is prepared. Records lie caption by caption.
The same tarballs and options give the same bytes.
"""

import collections
import concurrent.futures
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import pathlib
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tqdm

from kaleido_jax.data import (
  emoji_drawing,
  emoji_join,
  emoji_sets,
  emoji_tarballs,
  records,
)
from kaleido_jax.data.emoji_drawing import Drawing, Skipped

REVISION = 1  # of what is made of a package: raise it when that changes
SPLITS = ('train', 'test')
HELD_OUT = 10  # one caption in so many
SUBSETS = ('plain', 'all')
_AHEAD = 256  # drawings in flight, for each worker


class Opened(NamedTuple):
  """What is in the package of a set."""

  about: emoji_sets.EmojiSet
  icons: Mapping[str, Any]  # icons.json; {} if the set is image files
  chars: Mapping[str, str]  # name of the icon or file by code point, if known
  files: Mapping[str, bytes]


Piece = tuple[emoji_join.Meaning, Opened, emoji_join.Design]


def prepare(
  out: pathlib.Path,
  *,
  size: int,
  cache: pathlib.Path,
  tarballs: pathlib.Path | None = None,
  subset: str = 'plain',
  sets: Sequence[emoji_sets.EmojiSet] = emoji_sets.SETS,
  captions: emoji_sets.Package = emoji_sets.CAPTIONS,
  limit: int = 0,
  workers: int = 1,
) -> dict[str, dict[str, Any]]:
  """Writes all or nothing; returns what about.json says of each split.

  `limit`: so many captions, the first ones; 0 for all. What was prepared before
  in the same way is left as it is.
  """
  if subset not in SUBSETS:
    raise ValueError(f'subset={subset!r} is not one of {SUBSETS}.')
  if size < 8:
    raise ValueError(f'size={size} is too small for a picture; try 64.')
  asked = _asked(size, subset, limit, (captions, *(s.package for s in sets)))
  if out.exists():
    return _prepared(out, asked)
  paths = emoji_tarballs.locate(
    (captions, *(s.package for s in sets)), cache=cache, tarballs=tarballs
  )
  data = emoji_tarballs.read_json(paths[captions.name], 'en/data.json')[0]
  opened = [open_set(each, paths[each.package.name]) for each in sets]
  pieces = join(emoji_join.meanings(data), opened, subset, limit)
  unfinished = out.with_name(f'.{out.name}.unfinished')
  shutil.rmtree(unfinished, ignore_errors=True)
  with tqdm.tqdm(
    total=sum(map(len, pieces.values())),
    unit='emoji',
    mininterval=0.2 if sys.stderr.isatty() else 10,  # logs keep every line
  ) as bar:
    abouts = {
      split: _write(unfinished / split, pieces[split], asked, workers, bar)
      for split in SPLITS
    }
  unfinished.rename(out)
  return abouts


def _asked(size, subset, limit, packages) -> dict[str, Any]:
  """What decides the bytes, as JSON gives it back."""
  if importlib.util.find_spec('resvg_py') is None:
    raise ModuleNotFoundError(
      'drawing emoji needs resvg_py, which is not installed. Install it with: '
      "pip install -e '.[emoji]'"
    )
  return {
    'size': size,
    'subset': subset,
    'limit': limit,
    'revision': REVISION,
    'resvg_py': importlib.metadata.version('resvg_py'),
    'pillow': importlib.metadata.version('pillow'),
    'packages': {package.name: package.version for package in packages},
  }


def _prepared(
  out: pathlib.Path, asked: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """What is there, if it is what would be made."""
  abouts = {}
  for split in SPLITS:
    path = out / split / records.ABOUT
    abouts[split] = json.loads(path.read_text()) if path.is_file() else {}
    for name, value in asked.items():
      if abouts[split].get(name) != value:
        raise ValueError(
          f'{out} exists, and in its {split} split {name} is '
          f'{abouts[split].get(name)}, not {value}; remove it, or give '
          'another folder.'
        )
  return abouts


def open_set(about: emoji_sets.EmojiSet, path: pathlib.Path) -> Opened:
  """Reads a package: iconify's json files, or images named by code point."""
  found = emoji_tarballs.read(
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
  known: Mapping[str, emoji_join.Meaning],
  opened: Sequence[Opened],
  subset: str = 'all',
  limit: int = 0,
) -> dict[str, list[Piece]]:
  """All designs by split, caption by caption."""
  meant = emoji_join.names(known, [(o.icons, o.chars) for o in opened])
  by_caption = collections.defaultdict(list)
  for each in opened:
    designs = (
      emoji_join.by_code(known, each.chars)
      if each.chars
      else emoji_join.by_name(known, meant, each.about.name, each.icons)
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


def _write(
  folder: pathlib.Path,
  pieces: Sequence[Piece],
  asked: Mapping[str, Any],
  workers: int,
  bar: tqdm.tqdm,
) -> dict[str, Any]:
  about = {**asked, 'split': folder.name}
  drawings = (drawing(piece, asked['size']) for piece in pieces)
  drawn = _kept(draw_all(drawings, workers), about, bar)
  # It reads `about` when all is written, with the counts in it.
  records.write(folder, drawn, kind='emoji', about=about)
  return json.loads((folder / records.ABOUT).read_text())


def drawing(piece: Piece, size: int) -> Drawing:
  """The order to draw one design."""
  meaning, opened, design = piece
  art, mirrored = (
    emoji_drawing.svg(opened.icons, design.icon)
    if opened.icons
    else (opened.files[design.icon], False)
  )
  number = f'-{design.number}' if design.number > 1 else ''
  return Drawing(
    key=f'{opened.about.name}-{meaning.code}{number}',
    art=art,
    mirrored=mirrored,
    size=size,
    caption=meaning.caption,
    tags=meaning.tags,
    style=opened.about.style,
    fields={
      'set': opened.about.name,
      'licence': opened.about.licence,
      'attribution': opened.about.attribution,
    },
  )


def draw_all(
  drawings: Iterator[Drawing], workers: int
) -> Iterator[dict[str, Any] | Skipped]:
  """Draws in order; in this process, or in others that know no accelerator."""
  if workers < 2:
    yield from map(emoji_drawing.draw, drawings)
    return
  # Unlike multiprocessing's pool, this one says so when a worker dies.
  with concurrent.futures.ProcessPoolExecutor(
    workers, mp_context=multiprocessing.get_context('spawn')
  ) as pool:
    while ahead := list(itertools.islice(drawings, _AHEAD * workers)):
      yield from pool.map(emoji_drawing.draw, ahead, chunksize=16)


def _kept(
  drawn: Iterator[dict[str, Any] | Skipped],
  about: dict[str, Any],
  bar: tqdm.tqdm,
) -> Iterator[dict[str, Any]]:
  """Leaves out what failed and what a caption has already; counts into about.

  Two sets may share a drawing, and one set may have it under two names.
  """
  designs = collections.Counter()
  sets, skipped = {}, collections.defaultdict(list)
  pictures, digest = set(), hashlib.sha256()
  for made in drawn:
    bar.update()
    if isinstance(made, Skipped):
      skipped[made.reason].append(made.key)
      continue
    if (made['caption'], made['image']) in pictures:
      skipped['same picture'].append(made['key'])
      continue
    if made['caption'] not in designs:
      pictures.clear()  # they come caption by caption
    pictures.add((made['caption'], made['image']))
    designs[made['caption']] += 1
    each = sets.setdefault(
      made['set'],
      {k: made[k] for k in ('licence', 'attribution')} | {'images': 0},
    )
    each['images'] += 1
    digest.update(repr(sorted(made.items())).encode())
    yield made
  about['captions'] = len(designs)
  about['designs'] = sorted(designs.values())
  about['sets'] = dict(sorted(sets.items()))
  about['skipped'] = dict(sorted(skipped.items()))
  about['content'] = digest.hexdigest()  # so that the fingerprint knows it


def summary(abouts: Mapping[str, Mapping[str, Any]]) -> str:
  """What there is, for a person."""
  train, test = (abouts[split] for split in SPLITS)
  designs = [n for about in (train, test) for n in about['designs']]
  lines = [
    f'{train["count"] + test["count"]} images of {len(designs)} captions, '
    f'{statistics.median(designs):g} designs each (median); held out: '
    f'{test["count"]} images of {test["captions"]} captions.'
  ]
  for name in sorted({*train['sets'], *test['sets']}):
    found = [a['sets'][name] for a in (train, test) if name in a['sets']]
    images = sum(each['images'] for each in found)
    lines.append(
      f'  {images:6}  {name:18} {found[0]["licence"]:13} '
      f'{found[0]["attribution"]}'
    )
  licences = collections.Counter()
  for about in (train, test):
    for each in about['sets'].values():
      licences[each['licence']] += each['images']
  counted = ', '.join(f'{n} {name}' for name, n in licences.most_common())
  lines.append(f'By licence: {counted}.')
  for reason in sorted({*train['skipped'], *test['skipped']}):
    keys = [k for a in (train, test) for k in a['skipped'].get(reason, ())]
    named = ', '.join(keys[:5]) + (', ...' if len(keys) > 5 else '')
    lines.append(f'Skipped, {reason}: {len(keys)} ({named}).')
  return '\n'.join(lines)
