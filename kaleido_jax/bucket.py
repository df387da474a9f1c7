"""Folders that are not on this machine: gs://BUCKET/NAME.

Orbax reads and writes checkpoints there itself. Everything else is small, and
wants files that can be appended to, or mapped: it lies in a folder here, and is
copied. (`pip install 'kaleido_jax[gcs]'`; elsewhere etils knows more schemes.)
"""

import atexit
import pathlib
import shutil
import tempfile
from collections.abc import Sequence

from etils import epath


def is_url(folder: str) -> bool:
  return '://' in folder


def at(url: str) -> epath.Path:
  """The place, or a sentence about what is needed to reach it."""
  there = epath.Path(url)
  try:
    there.exists()
  except ImportError as error:
    raise ValueError(f'{url} cannot be reached: {error}.') from error
  return there


def fetch(url: str, names: Sequence[str]) -> pathlib.Path:
  """Those files that there are, in a folder that goes with this process."""
  there, here = at(url), pathlib.Path(tempfile.mkdtemp(prefix='kaleido_jax-'))
  atexit.register(shutil.rmtree, here, ignore_errors=True)
  for name in names:
    if (there / name).exists():
      (here / name).write_bytes((there / name).read_bytes())
  return here


class Folder:
  """What a run writes beside its checkpoints, and how it gets there.

  `here` is a folder of this machine: the run's own, or one that is copied.
  """

  def __init__(self, workdir: str, kept: Sequence[str] = ()):
    """`kept` are files that a run that goes on reads, and appends to."""
    self._there = at(workdir) if is_url(workdir) else None
    self.here = fetch(workdir, kept) if self._there else pathlib.Path(workdir)
    self.checkpoints = f'{workdir}/checkpoints'
    self._copied: dict[pathlib.Path, tuple[int, int]] = {}

  def push(self) -> None:
    """Copies what has changed: before a checkpoint that is to go with it."""
    if self._there is None:
      return
    for path in sorted(self.here.rglob('*')):
      stat = path.stat()
      stamp = stat.st_mtime_ns, stat.st_size
      if path.is_file() and self._copied.get(path) != stamp:
        there = self._there / path.relative_to(self.here).as_posix()
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
        self._copied[path] = stamp
