"""Checkpoints on disk. The only file that knows Orbax.

A state is a dict of trees, each an item of its own, so that sampling reads the
averages without the optimizer's moments. Arrays are restored straight into the
shardings that are asked for, on any number of devices. A checkpoint appears
under its number when it is complete: one that was being written when the
process died is not seen, and is swept away by the next run.
"""

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

Trees = Mapping[str, Any]


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(self, folder: str, *, keep: int | None = None):
    """Keeps the last `keep`, or all."""
    self.folder = epath.Path(folder)
    if not self.folder.is_absolute() and '://' not in str(folder):
      self.folder = self.folder.resolve()
    try:
      self._manager = ocp.CheckpointManager(
        self.folder,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=keep, create=True, cleanup_tmp_directories=True
        ),
      )
    except OSError as error:
      raise OSError(
        f'checkpoints cannot be written to {self.folder}: {error}. Give '
        'another --workdir.'
      ) from error

  def latest(self) -> int | None:
    """The number of the last complete checkpoint."""
    return self._manager.latest_step()

  def all(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def save(self, step: int, trees: Trees) -> None:
    """Copies to the host, then writes in the background.

    What goes wrong with the writing is raised by the next save or `wait`.
    """
    with _explained(self.folder, step, self.latest()):
      items = {
        name: ocp.args.StandardSave(tree)
        for name, tree in trees.items()
        if jax.tree.leaves(tree)  # Orbax refuses to save nothing
      }
      self._manager.save(step, args=ocp.args.Composite(**items), force=True)

  def wait(self) -> None:
    """Returns when everything is on disk."""
    with _explained(self.folder, None, self.latest()):
      self._manager.wait_until_finished()

  def restore(self, wanted: Trees, step: int | None = None) -> dict[str, Any]:
    """Reads trees of ShapeDtypeStructs, each with the sharding it shall have.

    `step` None is the last one.
    """
    step = self.latest() if step is None else step
    if step is None:
      raise FileNotFoundError(
        f'there is no complete checkpoint in {self.folder}. Train first, or '
        'give the --workdir of a run that has saved.'
      )
    if step not in self.all():
      raise FileNotFoundError(
        f'there is no checkpoint {step} in {self.folder}, only {self.all()}.'
      )
    items = {
      name: ocp.args.StandardRestore(tree)
      for name, tree in wanted.items()
      if jax.tree.leaves(tree)
    }
    found = self._manager.restore(step, args=ocp.args.Composite(**items))
    logging.info('restored step %d of %s', step, self.folder)
    return {n: found[n] if n in items else tree for n, tree in wanted.items()}

  def close(self) -> None:
    self._manager.close()


class _explained:
  """Turns what the file system says into a sentence about the run."""

  def __init__(self, folder, step: int | None, last: int | None):
    self._folder, self._step, self._last = folder, step, last

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind, error, trace) -> None:
    if error is None or not _is_storage(error):
      return
    what = 'a checkpoint' if self._step is None else f'checkpoint {self._step}'
    good = 'none' if self._last is None else f'step {self._last}'
    raise OSError(
      f'{what} could not be written to {self._folder}: {error}. Make room or '
      f'check permissions; the last complete checkpoint is {good}, and the run '
      'goes on from there when it is started again.'
    ) from error


def _is_storage(error: BaseException) -> bool:
  """Tensorstore reports a full disk as ValueError with a status in it."""
  text = str(error)
  return isinstance(error, OSError) or any(
    word in text
    for word in ('RESOURCE_EXHAUSTED', 'No space left', 'PERMISSION_DENIED')
  )


def abstract(trees, shardings):
  """What `restore` wants, from trees (of arrays or shapes) and shardings."""
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    trees,
    shardings,
  )
