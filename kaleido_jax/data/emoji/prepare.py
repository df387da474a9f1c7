"""Makes emoji records of npm tarballs: join, draw, split, write.

  OUT/train, OUT/test      records of kind 'emoji' (kaleido_jax.data.records)

Records lie caption by caption. No picture of `test` is in `train`, whatever its
caption. The same tarballs and options give the same bytes.
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
from typing import Any

import tqdm

from kaleido_jax.data import records
from kaleido_jax.data.emoji import joining, naming, npm, rendering, vendors
from kaleido_jax.data.emoji.rendering import Drawing, Skipped

REVISION = 1  # of what is made of a package: raise it when that changes
_AHEAD = 256  # drawings in flight, for each worker


def prepare(
  out: pathlib.Path,
  *,
  size: int,
  cache: pathlib.Path,
  tarballs: pathlib.Path | None = None,
  subset: str = 'plain',
  sets: Sequence[vendors.EmojiSet] = vendors.SETS,
  captions: vendors.Package = vendors.CAPTIONS,
  limit: int = 0,
  workers: int = 1,
) -> dict[str, dict[str, Any]]:
  """Writes all or nothing; returns what about.json says of each split.

  `limit`: so many captions, the first ones; 0 for all. What was prepared before
  in the same way is left as it is.
  """
  if subset not in joining.SUBSETS:
    raise ValueError(f'subset={subset!r} is not one of {joining.SUBSETS}.')
  if size < 8:
    raise ValueError(f'size={size} is too small for a picture; try 64.')
  asked = _asked(size, subset, limit, (captions, *(s.package for s in sets)))
  if out.exists():
    return _prepared(out, asked)
  paths = npm.locate(
    (captions, *(s.package for s in sets)), cache=cache, tarballs=tarballs
  )
  data = npm.read_json(paths[captions.name], 'en/data.json')[0]
  opened = [joining.open_set(each, paths[each.package.name]) for each in sets]
  pieces = joining.join(naming.meanings(data), opened, subset, limit)
  unfinished = out.with_name(f'.{out.name}.unfinished')
  shutil.rmtree(unfinished, ignore_errors=True)
  abouts = _write_splits(unfinished, pieces, asked, workers)
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
  for split in joining.SPLITS:
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


def _write_splits(
  folder: pathlib.Path,
  pieces: Mapping[str, Sequence[joining.Piece]],
  asked: Mapping[str, Any],
  workers: int,
) -> dict[str, dict[str, Any]]:
  held_out: set[bytes] = set()
  with tqdm.tqdm(
    total=sum(map(len, pieces.values())),
    unit='emoji',
    mininterval=0.2 if sys.stderr.isatty() else 10,  # logs keep every line
  ) as bar:
    return {
      split: _write(
        folder / split, pieces[split], asked, workers, bar, held_out
      )
      for split in ('test', 'train')  # what is held out must be known first
    }


def _write(
  folder: pathlib.Path,
  pieces: Sequence[joining.Piece],
  asked: Mapping[str, Any],
  workers: int,
  bar: tqdm.tqdm,
  held_out: set[bytes],
) -> dict[str, Any]:
  """Writes a split; held-out pictures are noted first, then kept from train."""
  about = {**asked, 'split': folder.name}
  drawings = (drawing(piece, asked['size']) for piece in pieces)
  drawn = _kept(draw_all(drawings, workers), about, bar, held_out)
  # It reads `about` when all is written, with the counts in it.
  records.write(folder, drawn, kind='emoji', about=about)
  return json.loads((folder / records.ABOUT).read_text())


def drawing(piece: joining.Piece, size: int) -> Drawing:
  """The order to draw one design."""
  meaning, opened, design = piece
  art, mirrored = (
    rendering.svg(opened.icons, design.icon)
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
    yield from map(rendering.draw, drawings)
    return
  # Unlike multiprocessing's pool, this one says so when a worker dies.
  with concurrent.futures.ProcessPoolExecutor(
    workers, mp_context=multiprocessing.get_context('spawn')
  ) as pool:
    while ahead := list(itertools.islice(drawings, _AHEAD * workers)):
      yield from pool.map(rendering.draw, ahead, chunksize=16)


def _kept(
  drawn: Iterator[dict[str, Any] | Skipped],
  about: dict[str, Any],
  bar: tqdm.tqdm,
  held_out: set[bytes],
) -> Iterator[dict[str, Any]]:
  """Leaves out what failed and what is there already; counts into `about`."""
  designs = collections.Counter()
  sets, skipped = {}, collections.defaultdict(list)
  seen: set[bytes] = set()
  digest = hashlib.sha256()
  for made in drawn:
    bar.update()
    if isinstance(made, Skipped):
      skipped[made.reason].append(made.key)
      continue
    caption, image = made['caption'], made['image']
    if caption not in designs:
      seen.clear()  # they come caption by caption
    if image in seen:  # two sets may share one, or a set have two names for it
      skipped['same picture'].append(made['key'])
      continue
    if about['split'] == 'test':
      held_out.add(image)
    elif image in held_out:  # a man and a person may look the same
      skipped['picture held out'].append(made['key'])
      continue
    seen.add(image)
    designs[caption] += 1
    each = sets.setdefault(made['set'], _credit(made))
    each['images'] += 1
    digest.update(repr(sorted(made.items())).encode())
    yield made
  about['captions'] = len(designs)
  about['designs'] = sorted(designs.values())
  about['sets'] = dict(sorted(sets.items()))
  about['skipped'] = dict(sorted(skipped.items()))
  about['content'] = digest.hexdigest()  # so that the fingerprint knows it


def _credit(record: Mapping[str, Any]) -> dict[str, Any]:
  return {k: record[k] for k in ('licence', 'attribution')} | {'images': 0}


def summary(abouts: Mapping[str, Mapping[str, Any]]) -> str:
  """What there is, for a person."""
  train, test = (abouts[split] for split in joining.SPLITS)
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
