"""What a run tells while it goes on: a bar, metrics.jsonl, TensorBoard.

A line of metrics.jsonl per report, {"step": 100, "loss": 0.031, ...}. When a
run goes on from a checkpoint, lines after it are taken back: the file is always
that of an undisturbed run.
"""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from absl import logging
from PIL import Image
from tensorboardX import SummaryWriter

from kaleido_jax import flops as operations

METRICS = 'metrics.jsonl'
SHEETS = 'samples'  # a folder
SHOWN = ('loss', 'diffusion_loss', 'prior_loss', 'examples_per_second')
# Depends on the clock, so that a resumed run may differ in it.
TIMED = (
  'examples_per_second',
  'examples_per_second_per_device',
  'data_wait',
  'teraflops_per_device',
  'flop_utilisation',
  'device_memory_gb',
)


class Progress:
  """Reports of one run, of one process."""

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    first: int,
    last: int,
    batch_size: int,
    flops: float = 0.0,
    boards: Sequence[Any] = (),
  ):
    """`flops` are of an example; `boards` take scalars as TensorBoard does."""
    self._folder, self._flops = folder, flops
    self._batch_size, self._done = batch_size, first
    self._started, self._waited = time.perf_counter(), 0.0
    self._file = _rewound(folder / METRICS, first)
    # A queue without end: whoever fills it would wait for a writer that died
    # of a full disk.
    tensorboard = SummaryWriter(str(folder), purge_step=first + 1, max_queue=0)
    self._boards = [tensorboard, *boards]
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
      timed = speed(done * self._batch_size / elapsed, self._flops)
      timed['data_wait'] = self._waited / elapsed
    self.restart_clock(step)
    found = {**metrics, **timed, **memory()}
    self.write(step, found)
    shown = {name: f'{found[name]:.4g}' for name in SHOWN if name in found}
    self._bar.set_postfix(shown, refresh=False)
    if self._bar.disable:
      words = ', '.join(f'{name} {value}' for name, value in shown.items())
      logging.info('step %d: %s', step, words)

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    if not metrics:
      return
    # JSON has no NaN; null says that there is no number.
    line = {n: v if math.isfinite(v) else None for n, v in metrics.items()}
    with _written(self._folder / METRICS):
      self._file.write(json.dumps({'step': step, **line}) + '\n')
      self._file.flush()
    for board in self._boards:
      for name, value in metrics.items():
        board.add_scalar(name, value, step)

  def picture(self, step: int, sheet: np.ndarray) -> None:
    """Keeps a sheet of samples, as samples/000500.png, and on the board."""
    path = self._folder / SHEETS / f'{step:06}.png'
    with _written(path):
      path.parent.mkdir(exist_ok=True)
      Image.fromarray(sheet).save(path)
    for board in self._boards:
      board.add_image(SHEETS, sheet, step, dataformats='HWC')

  def restart_clock(self, step: int) -> None:
    """Compiling, saving and drawing are not training."""
    self._started, self._done = time.perf_counter(), step
    self._waited = 0.0

  def close(self) -> None:
    self._bar.close()
    for file in (self._file, *self._boards):
      try:
        file.close()
      except OSError as error:  # the disk is full, and the run ends of that
        logging.warning('the last reports are lost: %s', error)


def speed(examples_per_second: float, flops: float) -> dict[str, float]:
  """Rates, and how much of what the devices could do the model makes use of."""
  per_device = examples_per_second / jax.device_count()
  found = {
    'examples_per_second': examples_per_second,
    'examples_per_second_per_device': per_device,
  }
  if flops:
    found['teraflops_per_device'] = per_device * flops / 1e12
    if peak := operations.peak(jax.devices()[0]):
      found['flop_utilisation'] = per_device * flops / peak
  return found


def memory() -> dict[str, float]:
  """The most that one of this process's devices held, if they tell."""
  told = [device.memory_stats() or {} for device in jax.local_devices()]
  peaks = [stats.get('peak_bytes_in_use', 0) for stats in told]
  return {'device_memory_gb': max(peaks) / 1e9} if any(peaks) else {}


class Silence:
  """What all processes but the first one tell."""

  def __init__(self, folder: pathlib.Path, **rest: Any):
    del folder, rest

  def advance(self, waited: float) -> None:
    pass

  def report(self, step: int, metrics: Mapping[str, float]) -> None:
    pass

  def write(self, step: int, metrics: Mapping[str, float]) -> None:
    pass

  def picture(self, step: int, sheet: np.ndarray) -> None:
    pass

  def restart_clock(self, step: int) -> None:
    pass

  def close(self) -> None:
    pass


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
  """All reports of a run."""
  lines = (folder / METRICS).read_text().splitlines()
  return [json.loads(line) for line in lines]


def replace(path: pathlib.Path, text: str) -> None:
  """Writes a file whole: what is killed leaves the old one."""
  new = path.with_name(f'{path.name}.new')
  new.write_text(text, encoding='utf-8')
  new.replace(path)


@contextlib.contextmanager
def _written(path: pathlib.Path) -> Iterator[None]:
  """A sentence, if it is not."""
  try:
    yield
  except OSError as error:
    raise OSError(
      f'{path} cannot be written: {error}. Make room, and start the run again: '
      'it goes on from its last checkpoint.'
    ) from error


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
    replace(path, ''.join(kept))
  return path.open('a')
