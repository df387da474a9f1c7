"""Which modes are drawn, and how often, where the truth is known."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Coverage(NamedTuple):
  """What was drawn, beside what there is."""

  shares: dict[str, float]  # of each mode, among pictures that show one
  distance: float  # total variation: 0 is the truth, 1 nothing in common
  none: float  # pictures that show no known mode, of all


def coverage(
  drawn: Iterable[str | None], truth: Mapping[str, float]
) -> Coverage:
  """drawn: a mode for each picture, or None where there is none of these."""
  drawn = list(drawn)
  counts = {mode: drawn.count(mode) for mode in truth}
  shown = sum(counts.values())
  if not shown:
    raise ValueError(
      f'none of {len(drawn)} pictures shows one of {sorted(truth)}.'
    )
  shares = {mode: number / shown for mode, number in counts.items()}
  distance = sum(abs(shares[mode] - truth[mode]) for mode in truth) / 2
  return Coverage(shares, distance, 1 - shown / len(drawn))


def distinct(shares: Iterable[float], count: int) -> float:
  """How many modes `count` pictures show on average, drawn by these shares."""
  return float(sum(1 - (1 - share) ** count for share in shares))
