"""Pictures beside each other: a grid of settings, strips of one caption."""

import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

ROWS = 6  # captions of which pictures are shown
SHOWN = 8  # pictures of each


def grid(
  path: pathlib.Path,
  drawn: Mapping[str, np.ndarray],
  captions: Sequence[str],
) -> None:
  """A row for each of a few captions, a column for each setting (figure 7)."""
  import matplotlib.pyplot as plt

  rows = min(ROWS, len(captions))
  figure, axes = plt.subplots(
    *(rows, len(drawn)),
    figsize=(len(drawn) + 1, rows + 0.5),
    layout='constrained',
    squeeze=False,
  )
  for column, (name, images) in zip(axes.T, drawn.items(), strict=True):
    model, _, setting = name.rpartition(', ')
    # A path of several folders is wider than a picture.
    model = textwrap.fill(model.replace('/', '/ '), 16).replace('/ ', '/')
    column[0].set_title(f'{model}\n{setting}', fontsize=7)
    for ax, some in zip(column, images, strict=False):
      _show(ax, some[0])
  _name(axes[:, 0], captions)
  figure.savefig(path, dpi=150)
  plt.close(figure)


def strips(
  path: pathlib.Path,
  drawn: Mapping[str, np.ndarray],
  captions: Sequence[str],
) -> None:
  """What was drawn of a few captions, setting by setting, in two columns."""
  import matplotlib.pyplot as plt

  columns, rows = min(2, len(drawn)), min(ROWS, *map(len, drawn.values()))
  figure = plt.figure(
    figsize=(6 * columns, (0.7 * rows + 0.3) * -(-len(drawn) // columns)),
    layout='constrained',
  )
  blocks = figure.subfigures(-(-len(drawn) // columns), columns, squeeze=False)
  for block, (name, images) in zip(blocks.flat, drawn.items(), strict=False):
    block.suptitle(name, fontsize=9)
    axes = block.subplots(rows, 1, squeeze=False)[:, 0]
    for ax, some in zip(axes, images, strict=False):
      _show(ax, np.concatenate(some[:SHOWN], axis=1))
    _name(axes, captions)
  # Tight, or long captions leave the picture on the left.
  figure.savefig(path, dpi=150, bbox_inches='tight', pad_inches=0.05)
  plt.close(figure)


def _show(ax: Any, image: UInt8[np.ndarray, 'h w 3']) -> None:
  ax.imshow(image, interpolation='nearest')
  ax.set(xticks=[], yticks=[])
  ax.spines[:].set_visible(False)


def _name(axes: np.ndarray, captions: Sequence[str]) -> None:
  """Of each row, on its left."""
  for ax, caption in zip(axes, captions, strict=False):
    ax.set_ylabel(
      textwrap.fill(caption, 12),
      **dict(fontsize=8, rotation=0, ha='right', va='center'),
    )
