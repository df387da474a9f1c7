"""How far a model is from another one, and a way from none, choice by choice.

Two intervals that overlap say little of a difference: what makes captions hard
makes them hard for both. So each choice gives one difference, or one ratio.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kaleido_jax.metrics.bootstrap import Interval, Resampled

Figures = Mapping[str, Resampled]

# How many times as much; of Vendi, of what it is above 1, where all are alike.
RATIOS = {'recall': 0.0, 'coverage': 0.0, 'vendi': 1.0, 'modes': 0.0}
DIFFERENCES = (
  *('fid', 'sfid', 'frechet', 'kid', 'kernel', 'inception_score'),
  *('precision', 'density', 'mss', 'text_match'),
  *('color_match', 'box_iou', 'blob_iou', 'modes_distance'),
)


class Compared(NamedTuple):
  """One model with another under one setting, or a way with guidance alone."""

  model: str
  other: str  # the model itself, where ways are compared
  way: str
  guidance: float
  differences: Mapping[str, Interval]
  ratios: Mapping[str, Interval]


def of(
  settings: Sequence[tuple[str, str, float, Figures]],
) -> Iterator[Compared]:
  """Of all models with the first, and of all ways with nothing more.

  settings: (model, way, guidance, figures) of each.
  """
  first = settings[0][0]
  known = {(model, way, at): figures for model, way, at, figures in settings}
  for model, way, at, figures in settings:
    if model != first:
      both = _both(figures, known[first, way, at])
      yield Compared(model, first, way, at, *both)
  for model, way, at, figures in settings:
    if way and (model, '', at) in known:
      both = _both(figures, known[model, '', at])
      yield Compared(model, model, way, at, *both)


def _both(a: Figures, b: Figures) -> tuple[dict[str, Any], dict[str, Any]]:
  differences = {
    name: difference(a[name], b[name])
    for name in DIFFERENCES
    if name in a and name in b
  }
  ratios = {
    name: ratio(a[name], b[name], above)
    for name, above in RATIOS.items()
    if name in a and name in b
  }
  return differences, ratios


def difference(a: Resampled, b: Resampled) -> Interval:
  return Resampled(a.value - b.value, a.others - b.others).interval()


def ratio(a: Resampled, b: Resampled, above: float = 0.0) -> Interval:
  """Of what both are above a number: inf if the other is nothing there.

  Its ends are plain quantiles. That a choice with captions twice has less
  diversity than all of them cancels here.
  """
  with np.errstate(divide='ignore', invalid='ignore'):
    each = (a.others - above) / (b.others - above)
    value = np.divide(a.value - above, b.value - above)
  each = each[~np.isnan(each)]  # nothing over nothing says nothing
  if not len(each):
    return Interval(float(value), np.nan, np.nan)
  low, high = np.quantile(each, [0.025, 0.975], method='nearest')
  return Interval(float(value), float(low), float(high))
