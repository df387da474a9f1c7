"""How far a model is from another one, and a way from none, choice by choice.

Two intervals that overlap say little of a difference: what makes captions hard
makes them hard for both. So each choice gives one difference, or one ratio.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kaleido_jax.metrics.bootstrap import Interval, Resampled
from kaleido_jax.metrics.repeated import Repeated

Figures = Mapping[str, Resampled] | Mapping[str, Repeated]

# How many times as much; of Vendi, of what it is above 1, where all are alike.
RATIOS = {'recall': 0.0, 'coverage': 0.0, 'vendi': 1.0, 'modes': 0.0}
DIFFERENCES = (
  *('fid', 'sfid', 'frechet', 'kid', 'kernel', 'inception_score'),
  *('precision', 'density', 'mss', 'text_match'),
  *('color_match', 'box_iou', 'blob_iou', 'modes_distance'),
)


class Scored(NamedTuple):
  """Figures of one model under one setting: of one training, or of several."""

  model: str
  way: str
  guidance: float
  figures: Figures


class Compared(NamedTuple):
  """One model with another under one setting, or a way with guidance alone."""

  model: str
  other: str  # the model itself, where ways are compared
  way: str
  guidance: float
  differences: Mapping[str, Interval]
  ratios: Mapping[str, Interval]


def of(scored: Sequence[Scored], first: str) -> Iterator[Compared]:
  """Of all models with the first, and of all ways with nothing more."""
  known = {(one.model, one.way, one.guidance): one.figures for one in scored}
  for (model, way, at), figures in known.items():
    if model != first and (first, way, at) in known:
      both = _both(figures, known[first, way, at])
      yield Compared(model, first, way, at, *both)
  for (model, way, at), figures in known.items():
    if way and (model, '', at) in known:
      both = _both(figures, known[model, '', at])
      yield Compared(model, model, way, at, *both)


def _both(a: Figures, b: Figures) -> tuple[dict[str, Any], dict[str, Any]]:
  differences = {
    name: a[name].minus(b[name])
    for name in DIFFERENCES
    if name in a and name in b
  }
  ratios = {
    name: a[name].over(b[name], above)
    for name, above in RATIOS.items()
    if name in a and name in b
  }
  return differences, ratios
