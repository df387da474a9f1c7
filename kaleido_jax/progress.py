"""What a run tells while it goes on: a bar, metrics.jsonl, TensorBoard.

A line of metrics.jsonl per report, {"step": 100, "loss": 0.031, ...}. When a
run goes on from a checkpoint, lines after it are taken back: the file is always
that of an undisturbed run.
"""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import tqdm
from absl import logging
from tensorboardX import SummaryWriter

METRICS = 'metrics.jsonl'
SHOWN = ('loss', 'diffusion_loss', 'prior_loss', 'examples_per_second')
# Depends on the clock, so that a resumed run may differ in it.
TIMED = ('examples_per_second', 'data_wait')


class Progress:
  """Reports of one run, of one process."""

  def __init__(
    self, folder: pathlib.Path, *, first: int, last: int, batch_size: int
  ):
    self._batch_size, self._done = batch_size, first
    self._started, self._waited = time.perf_counter(), 0.0
    self._file = _rewound(folder / METRICS, first)
    self._board = SummaryWriter(str(folder), purge_step=first + 1)
    self._bar = tqdm.tqdm(
      total=last,
      initial=first,
      unit='step',
      dynamic_ncols=True,
      disable=not sys.stderr.isatty(),
    )

  def advance(self, waited: float) -> None:
    """One step was dispatched, after waiting for data."""
    self._bar.update()
    self._waited += waited

  def report(self, step: int, metrics: Mapping[str, float]) -> None:
    """Writes metrics of a step, with the rate since the last report."""
    elapsed, done = time.perf_counter() - self._started, step - self._done
    timed = {}
    if done > 0:  # or the clock has just been set back
      timed['examples_per_second'] = done * self._batch_size / elapsed
      timed['data_wait'] = self._waited / elapsed
    self.restart_clock(step)
    found = {**metrics, **timed}
    self.write(step, found)
    shown = {name: f'{found[name]:.4g}' for name in SHOWN if name in found}
    self._bar.set_postfix(shown, refresh=False)
    if self._bar.disable:
      words = ', '.join(f'{name} {value}' for name, value in shown.items())
      logging.info('step %d: %s', step, words)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    # JSON has no NaN; null says that there is no number.
    line = {n: v if math.isfinite(v) else None for n, v in metrics.items()}
    self._file.write(json.dumps({'step': step, **line}) + '\n')
    self._file.flush()
    for name, value in metrics.items():
      self._board.add_scalar(name, value, step)

  def restart_clock(self, step: int) -> None:
    """Compiling, saving and drawing are not training."""
    self._started, self._done = time.perf_counter(), step
    self._waited = 0.0

  def close(self) -> None:
    self._bar.close()
    self._file.close()
    self._board.close()


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
  """All reports of a run."""
  lines = (folder / METRICS).read_text().splitlines()
  return [json.loads(line) for line in lines]


def _rewound(path: pathlib.Path, step: int):
  """The file, open at its end, without what came after a step."""
  if path.exists():
    kept = []
    for line in path.read_text().splitlines():
      try:
        if json.loads(line)['step'] <= step:
          kept.append(line + '\n')
      except (ValueError, KeyError):  # the last line of a run that was killed
        break
    path.write_text(''.join(kept))
  return path.open('a')
