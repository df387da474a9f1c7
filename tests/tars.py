"""Tar shards in img2dataset's layout."""

import io
import json
import pathlib
import tarfile
from collections.abc import Iterable


def write(
  path: pathlib.Path, samples: Iterable[tuple[str, bytes, str]]
) -> None:
  """Writes (key, picture's file, caption) samples."""
  with tarfile.open(path, 'w') as tar:
    for key, picture, caption in samples:
      for suffix, content in (
        ('jpg', picture),
        ('txt', caption.encode()),
        ('json', json.dumps({'key': key}).encode()),
      ):
        member = tarfile.TarInfo(f'{key}.{suffix}')
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
