"""An index over tar shards: where each sample's picture and caption lie.

A sample is the members of one name: 000012345.jpg, .txt, .json. The index is
built once, since it takes a look at every header of terabytes, and is kept in

  FOLDER/.kaleido_index/HASH/samples.npy   a row per sample, memory-mapped: its
                                           pages are shared between workers
                             about.json    what was found, for people as well

or, where nothing can be written, below ~/.cache/kaleido_jax. HASH is of the
shards' names, sizes and times: when a shard changes, the index is another one,
and is built anew. Folders appear whole by being renamed, so that processes may
start together; the first to be done wins.
"""

import glob
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from tqdm import tqdm

from kaleido_jax.data import tar

VERSION = 1
PICTURES = ('jpg', 'jpeg', 'png', 'webp')
WHERE = [
  ('shard', '<u4'),
  ('image', '<u8'),
  ('image_size', '<u4'),
  ('text', '<u8'),
  ('text_size', '<u4'),  # 0: there is none, or an empty one
]


class Index(NamedTuple):
  shards: tuple[str, ...]  # paths
  folder: pathlib.Path
  # {samples, unique: are names, missing: {pictures, captions}, damaged: {...}}
  about: dict[str, Any]

  def samples(self) -> np.ndarray:
    return np.load(self.folder / 'samples.npy', mmap_mode='r')

  @property
  def fingerprint(self) -> str:
    """Of names and sizes alone: a copy elsewhere is the same data."""
    sizes = [(os.path.basename(s), os.path.getsize(s)) for s in self.shards]
    return _digest([VERSION, sizes, self.about['samples']])


def find(where: str | pathlib.Path) -> tuple[str, ...]:
  """The tar files of a folder, or of a pattern, in order of their names."""
  where = os.fspath(where)
  pattern = where
  if os.path.isdir(where):
    pattern = os.path.join(glob.escape(where), '*.tar')
  return tuple(sorted(glob.glob(pattern)))


def index(shards: Sequence[str]) -> Index:
  """The index of these shards, built if need be."""
  stats = [(os.path.abspath(path), os.stat(path)) for path in shards]
  name = _digest(
    [
      VERSION,
      [(os.path.basename(p), s.st_size, s.st_mtime_ns) for p, s in stats],
    ]
  )
  paths = tuple(path for path, _ in stats)
  homes = {pathlib.Path(path).parent for path in paths}
  if len(homes) > 1:  # their names, and hence keys, might be the same
    raise ValueError(
      f'shards of one folder are needed, and these lie in {len(homes)}, as '
      f'{min(homes)} and {max(homes)}. Put links to them into one.'
    )
  home = homes.pop()
  places = [home / '.kaleido_index' / name, _cache(home) / name]
  for place in places:
    if (place / 'about.json').exists():
      return Index(paths, place, json.loads((place / 'about.json').read_text()))
  rows, about = _scan(paths)
  if not about['samples']:
    raise ValueError(
      f'there is no picture ({", ".join(PICTURES)}) in the {len(paths)} tar '
      f'files of {home}; {_damage(about["damaged"]) or "none is damaged"}. '
      'Shards as img2dataset writes them are needed.'
    )
  return Index(paths, _keep(places, rows, about), about)


def _scan(paths: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
  parts, damaged = [], {}
  missing = {'pictures': 0, 'captions': 0}
  for number, path in enumerate(tqdm(paths, 'indexing', disable=None)):
    found, damage = _samples(path)
    if damage:
      damaged[os.path.basename(path)] = damage
    whole = {name: s for name, s in found.items() if 'image' in s}
    missing['pictures'] += len(found) - len(whole)
    missing['captions'] += sum('text' not in s for s in whole.values())
    names = [os.fsencode(name) for name in whole]
    width = max(map(len, names), default=1)
    rows = np.zeros(len(whole), [*WHERE, ('name', f'S{width}')])
    rows['shard'], rows['name'] = number, names
    for part in ('image', 'text'):
      places = [s.get(part, (0, 0)) for s in whole.values()]
      places = np.array(places, np.uint64).reshape(-1, 2)
      rows[part], rows[f'{part}_size'] = places.T
    parts.append(rows)
  rows = np.concatenate(parts)  # as wide as the longest name
  return rows, {
    'samples': len(rows),
    'unique': len(np.unique(rows['name'])) == len(rows),
    'missing': missing,
    'damaged': damaged,
  }


def _samples(path: str) -> tuple[dict[str, dict[str, tuple[int, int]]], str]:
  """{name: {image or text: (offset, size)}} up to the damage, if any."""
  found = defaultdict(dict)
  fd = os.open(path, os.O_RDONLY)
  try:
    for member in tar.members(fd):
      folder, _, base = member.name.removeprefix('./').rpartition('/')
      name, _, suffix = base.partition('.')
      sample = found[f'{folder}/{name}'.lstrip('/')]
      if suffix.lower() in PICTURES:
        sample['image'] = member.offset, member.size
      elif suffix == 'txt':
        sample['text'] = member.offset, member.size
  except tar.DamagedError as error:
    # The damage may stand between a picture and its caption.
    if found and len(found[next(reversed(found))]) < 2:
      found.popitem()
    return found, str(error)
  finally:
    os.close(fd)
  return found, ''


def _keep(
  places: Sequence[pathlib.Path], rows: np.ndarray, about: dict[str, Any]
) -> pathlib.Path:
  """Writes an index to the first place that takes it."""
  for place in places:
    try:
      place.parent.mkdir(parents=True, exist_ok=True)
      made = pathlib.Path(tempfile.mkdtemp(dir=place.parent))
    except OSError:
      continue
    try:
      np.save(made / 'samples.npy', rows)
      (made / 'about.json').write_text(json.dumps(about, indent=1))
      made.chmod(0o755)  # mkdtemp is for its owner alone
      made.rename(place)
    except OSError:
      if not (place / 'about.json').exists():  # or another process was first
        raise
    finally:
      shutil.rmtree(made, ignore_errors=True)
    logging.info('indexed %d samples: %s', about['samples'], place)
    return place
  raise PermissionError(
    f'an index can be written neither to {places[0].parent} nor to '
    f'{places[1].parent}; set XDG_CACHE_HOME to a folder that takes it.'
  )


def _cache(home: pathlib.Path) -> pathlib.Path:
  cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
  return pathlib.Path(cache, 'kaleido_jax', 'shards', _digest(str(home)))


def _damage(damaged: dict[str, str], most: int = 5) -> str:
  """Names the damaged shards, a few of them."""
  named = [f'{name} {what}' for name, what in list(damaged.items())[:most]]
  more = f', and {len(damaged) - most} more' * (len(damaged) > most)
  return '; '.join(named) + more


def warn(about: dict[str, Any]) -> None:
  """Damage is said whenever an index is opened, not only when it is built."""
  if about['damaged']:
    logging.warning(
      'of %d damaged shards, only what stands before the damage is used: %s',
      len(about['damaged']),
      _damage(about['damaged']),
    )


def _digest(what: Any) -> str:
  return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
