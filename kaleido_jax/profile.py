"""A window of steps under jax's profiler.

  --config.train.profile_from=20

writes the trace of a few steps to the folder `profile` of the workdir, for
TensorBoard's profile page or xprof. The first steps compile: leave them out.
"""

import pathlib
from typing import Any

import jax
from absl import logging

FOLDER = 'profile'


class Window:
  """Traces from one step to another; each process traces itself."""

  def __init__(self, config: Any, folder: pathlib.Path):
    self._first = config.train.profile_from
    self._end = self._first + config.train.profile_steps
    self._folder = folder / FOLDER
    self._open = False

  def before(self, step: int, state: Any) -> None:
    """To be called before each step, with what it begins with."""
    if 0 < self._first <= step < self._end and not self._open:
      jax.block_until_ready(state)  # earlier steps are not in the picture
      jax.profiler.start_trace(str(self._folder))
      self._open = True
    elif step >= self._end and self._open:
      jax.block_until_ready(state)
      self.close()

  def close(self) -> None:
    if self._open:
      jax.profiler.stop_trace()
      self._open = False
      logging.info('a trace of some steps is in %s', self._folder)
