"""Reading on when a record cannot be read.

The record is replaced by another, always by the same one, so that batches stay
a function of seed and step. It is counted and named, and past a share of such
records the run ends.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from absl import logging

from kaleido_jax.data.example import BadRecord, Example, Source

ATTEMPTS = 100
PATIENCE = (
  1000  # as if so many were read: one bad record of three is no verdict
)
NAMED = 20  # so many of each reason are named in the log


class Read(NamedTuple):
  example: Example
  bad: tuple[BadRecord, ...]  # what it stands in for


class Replacing:
  """A source in which every index has a usable example."""

  def __init__(self, source: Source):
    self._source = source

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Read:
    bad = []
    for attempt in range(ATTEMPTS):
      try:
        return Read(
          self._source[stand_in(index, attempt, len(self))], tuple(bad)
        )
      except BadRecord as error:
        bad.append(error)
    raise RuntimeError(
      f'{ATTEMPTS} records were tried and none could be read; the first was '
      f'{bad[0]}. Is the data what the configuration says?'
    )


def stand_in(index: int, attempt: int, length: int) -> int:
  """Far away from the index: damage comes in runs, such as a lost shard."""
  if not attempt:
    return index
  # A multiplicative hash (Knuth), so that neighbours part.
  return (index * 2654435761 + attempt * 2246822519 + 12345) % length


class Tally:
  """Counts what was read, what could not be, and latents that were cut."""

  def __init__(self, max_share: float):
    self._max_share = max_share
    self.read = 0
    self.reasons: Counter[str] = Counter()
    self.cut: Counter[str] = Counter()  # by kind

  def add(
    self, read: int, bad: Iterable[BadRecord], cut: Iterable[str] = ()
  ) -> None:
    """Stops the run when too much of the data is bad."""
    self.read += read
    self.cut.update(cut)
    for record in bad:
      self.reasons[record.reason] += 1
      seen = self.reasons[record.reason]
      if seen <= NAMED:
        logging.warning('cannot use %s', record)
      if seen == NAMED:
        logging.warning('further records are counted only: %s', record.reason)
    total = self.reasons.total()
    if total > self._max_share * max(self.read + total, PATIENCE):
      counts = ', '.join(f'{n} {name}' for name, n in self.reasons.items())
      raise RuntimeError(
        f'{total} of {self.read + total} records could not be used ({counts}), '
        f'more than max_bad_share={self._max_share} allows. Mend '
        'the data, or raise the share.'
      )
