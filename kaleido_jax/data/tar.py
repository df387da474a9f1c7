"""Where the members of a tar archive lie, without reading them.

A header of 512 bytes has a name, a size in octal and a checksum; the data come
after it, padded to 512. Longer names come in a member of their own before it:
of type L (GNU), or of type x as records such as '27 path=...' (POSIX, which
Python writes for times with fractions as well, hence for all of img2dataset's).

This takes 5 to 12 us a member, a quarter of what `tarfile` does: for the 36
million members of CC12M, some minutes in place of half an hour.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512


class Member(NamedTuple):
  name: str
  offset: int  # of its data, in the file
  size: int


class DamagedError(Exception):
  """An archive that cannot be read any further; says where, and why."""


def members(
  fd: int, start: int = 0, stop: int | None = None
) -> Iterator[Member]:
  """The regular files of an archive, which may itself lie within a file.

  Raises:
    DamagedError: after the last whole member.
  """
  stop = os.fstat(fd).st_size if stop is None else stop
  position, extended = start, {}
  while True:
    header = os.pread(fd, BLOCK, position)
    if position + BLOCK > stop or len(header) < BLOCK:
      raise DamagedError(f'ends at byte {stop - start} without an end mark')
    if not any(header):
      return
    if not _is_whole(header):
      raise DamagedError(f'has no header at byte {position - start}')
    kind = header[156:157]
    size = int(extended.get('size', 0)) or _number(header[124:136])
    offset = position + BLOCK
    position = offset + -(-size // BLOCK) * BLOCK
    if offset + size > stop:
      raise DamagedError(f'ends at byte {stop - start}, within a member')
    if kind == b'x':
      extended |= _records(os.pread(fd, size, offset))
    elif kind == b'L':
      name = os.pread(fd, size, offset).rstrip(b'\0')
      extended['path'] = os.fsdecode(name)
    elif kind in (b'0', b'\0', b'7'):
      yield Member(extended.get('path') or _name(header), offset, size)
      extended = {}
    elif kind not in b'gK':  # folders, links: what was extended is theirs
      extended = {}


def _is_whole(header: bytes) -> bool:
  """The checksum counts itself as eight blanks."""
  total = sum(header) - sum(header[148:156]) + 8 * ord(' ')
  try:
    return _number(header[148:156]) == total
  except ValueError:
    return False


def _number(field: bytes) -> int:
  """Octal digits, or big-endian bytes where those are too few."""
  if field[0] & 0x80:
    return int.from_bytes(field[1:], 'big')
  return int(field.rstrip(b' \0') or b'0', 8)


def _name(header: bytes) -> str:
  name = header[:100].partition(b'\0')[0]
  if header[257:263] == b'ustar\0':  # GNU's 'ustar ' has no prefix
    prefix = header[345:500].partition(b'\0')[0]
    name = prefix + b'/' + name if prefix else name
  return os.fsdecode(name)


def _records(body: bytes) -> dict[str, str]:
  """Each says its own length in front: '19 path=photo.jpg' and a line feed."""
  found = {}
  while body:
    length, _, rest = body.partition(b' ')
    if not length.isdigit() or int(length) <= len(length) + 1:
      break
    key, _, value = body[len(length) + 1 : int(length) - 1].partition(b'=')
    if key == b'path' or (key == b'size' and value.isdigit()):
      found[key.decode()] = os.fsdecode(value)
    body = body[int(length) :]
  return found
