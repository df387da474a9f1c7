"""Where the record of a key stands: sorted hashes, sixteen bytes a key.

Two keys may share a hash, so whoever looks one up compares the key itself.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Integer, UInt64

Index = tuple[UInt64[np.ndarray, ' n'], Integer[np.ndarray, ' n']]


def hash_of(key: str) -> np.uint64:
  digest = hashlib.blake2b(
    key.encode(errors='surrogatepass'), digest_size=8
  ).digest()
  return np.uint64(int.from_bytes(digest, 'little'))


def build(
  hashes: Sequence[np.uint64] | UInt64[np.ndarray, ' n'],
  places: Sequence[int] | Integer[np.ndarray, ' n'],
) -> Index:
  """(hashes in order, the place of each)."""
  hashes = np.asarray(hashes, np.uint64)
  order = np.argsort(hashes, kind='stable')
  return hashes[order], np.asarray(places, np.int64)[order]


def places(index: Index, key: str) -> Iterator[int]:
  """Where the key may stand: usually one place or none."""
  hashes, found = index
  wanted = hash_of(key)
  for at in range(int(np.searchsorted(hashes, wanted)), len(hashes)):
    if hashes[at] != wanted:
      return
    yield int(found[at])
