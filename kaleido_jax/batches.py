"""Pictures that are asked for, in batches of few sizes.

A batch is padded to a power of two, so that few programs are compiled; rows of
one batch have captions of one length, so that none depends on another.
"""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from kaleido_jax.generate import FILLING
from kaleido_jax.latents import Latents


@dataclasses.dataclass(frozen=True)
class Row:
  """One picture that is asked for."""

  prompt: str
  ids: np.ndarray
  latents: Latents | None
  number: tuple[int, int]  # (seed, index)


def of(
  rows: Sequence[Row], parts: int, batch_size: int, *, apart: bool = False
) -> Iterator[tuple[list[int], list[Row]]]:
  """Yields (places among the rows, these rows and what fills the batch up).

  Args:
    rows: in any order.
    parts: devices that a batch is split over.
    batch_size: of a device, at most.
    apart: rows of different prompts see nothing of each other, and there is no
      filling but what several devices ask for.
  """
  groups = collections.defaultdict(list)
  for place, row in enumerate(rows):
    groups[len(row.ids), row.prompt if apart else ''].append(place)
  most = batch_size * parts
  for places in groups.values():
    for start in range(0, len(places), most):
      some = places[start : start + most]
      each = -(-len(some) // parts)
      if not apart:
        each = min(1 << (each - 1).bit_length(), batch_size)
      chunk = [rows[place] for place in some]
      last = chunk[-1]
      # With numbers that nobody asks for: filling is no copy of a picture.
      filling = [
        dataclasses.replace(last, number=(last.number[0], FILLING + i))
        for i in range(parts * each - len(some))
      ]
      yield some, chunk + filling
