"""Hidden modes as pictures: how often each is drawn, beside the truth."""

import pathlib
from collections.abc import Mapping

import numpy as np

from kaleido_jax.evaluation.scores import Drawn

INK, TRUTH = '#0072b2', '#222222'


def draw(
  path: pathlib.Path, hidden: Mapping[str, Drawn], *, columns: int
) -> None:
  """A panel for each setting; ticks are the real shares."""
  import matplotlib.pyplot as plt

  rows = -(-len(hidden) // columns)
  figure, axes = plt.subplots(
    *(rows, columns),
    figsize=(2.6 * columns + 0.8, 1.7 * rows + 0.9),
    layout='constrained',
    squeeze=False,
    sharex=True,
    sharey=True,
  )
  for ax, (name, drawn) in zip(axes.flat, hidden.items(), strict=True):
    at = np.arange(len(drawn.names))
    ax.bar(at, list(drawn.shares().values()), color=INK, width=0.7)
    ax.hlines(drawn.truth.mean(0), at - 0.45, at + 0.45, color=TRUTH)
    ax.set_title(name, fontsize=8)
    ax.set_xticks(at, drawn.names, rotation=60, ha='right', fontsize=7)
    ax.tick_params(axis='y', labelsize=7)
    ax.spines[['top', 'right']].set_visible(False)
  figure.supylabel('share of pictures (lines: of real ones)', fontsize=8)
  figure.savefig(path, dpi=150)
  plt.close(figure)
