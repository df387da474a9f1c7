"""Fetches pinned npm tarballs through the npm client, and reads them.

The client, because it knows about proxies, mirrors and credentials. Every
tarball is checked, wherever it comes from, and the fetched ones are kept.
"""

import base64
import hashlib
import json
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from absl import logging

from kaleido_jax.data.emoji.vendors import Package


def locate(
  packages: Sequence[Package],
  *,
  cache: pathlib.Path,
  tarballs: pathlib.Path | None = None,
) -> dict[str, pathlib.Path]:
  """Where the tarball of each package is, by name; fetches what is missing.

  With `tarballs`, a folder that a person filled, nothing is fetched.
  """
  folder = cache if tarballs is None else tarballs
  missing = [p for p in packages if not (folder / p.file).is_file()]
  if missing and tarballs is not None:
    raise FileNotFoundError(f'{tarballs} lacks tarballs; {_by_hand(missing)}')
  if missing and shutil.which('npm') is None:
    raise FileNotFoundError(
      f'npm is not installed. Install Node.js, or {_by_hand(missing)}'
    )
  for package in missing:
    _pack(package, cache, missing)
  for package in packages:
    check(package, folder / package.file)
  return {package.name: folder / package.file for package in packages}


def check(package: Package, path: pathlib.Path) -> None:
  """Refuses a tarball other than the pinned one."""
  digest = hashlib.sha512(path.read_bytes()).digest()
  found = f'sha512-{base64.b64encode(digest).decode()}'
  if found != package.integrity:
    raise ValueError(
      f'{path} is not {package.name} {package.version}: its checksum is '
      f'{found}, not {package.integrity}. Remove it, and fetch it from '
      f'{package.address} again.'
    )


def _pack(
  package: Package, cache: pathlib.Path, missing: Sequence[Package]
) -> None:
  logging.info('fetching %s %s', package.name, package.version)
  cache.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=cache) as folder:
    command = ['npm', 'pack', f'{package.name}@{package.version}']
    # Here, and not where the user is: npm reads a project's own settings.
    done = subprocess.run(
      [*command, '--ignore-scripts'], cwd=folder, capture_output=True, text=True
    )
    fetched = pathlib.Path(folder) / package.file
    if done.returncode or not fetched.is_file():
      said = ' '.join(done.stderr.split())[-300:] or 'nothing'
      raise FileNotFoundError(
        f'`{" ".join(command)}` failed and said: {said}. Try again, or '
        f'{_by_hand(missing)}'
      )
    check(package, fetched)
    fetched.replace(cache / package.file)  # whole or not at all


def _by_hand(packages: Sequence[Package]) -> str:
  addresses = ', '.join(package.address for package in packages)
  return (
    f'download {addresses} into a folder, under the names '
    f'{", ".join(package.file for package in packages)}, and give that folder '
    'as --tarballs=FOLDER.'
  )


def read(path: pathlib.Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
  """The wanted files of a package, in one pass: gzip cannot jump."""
  found = {}
  with tarfile.open(path) as tar:
    for member in tar:
      name = member.name.partition('/')[2]  # the first folder is any
      file = tar.extractfile(member) if wanted(name) else None
      if file is not None:
        found[name] = file.read()
  return found


def read_json(path: pathlib.Path, *names: str) -> list[Any]:
  """Parsed files of a package; one that is not there is empty."""
  found = read(path, set(names).__contains__)
  return [json.loads(found.get(name, '{}')) for name in names]
