"""Checkpoints on disk. The only file that knows Orbax.

A state is a dict of trees, each an item of its own, so that sampling reads the
averages without the optimizer's moments. Arrays are restored straight into the
shardings that are asked for, on any number of devices. A checkpoint appears
under its number when it is complete: one that was being written when the
process died is not seen, and is swept away by the next run.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

Trees = Mapping[str, Any]


class Checkpoints:
  """The checkpoints of one run."""

  def __init__(
    self, folder: str, *, keep: int | None = None, read_only: bool = False
  ):
    """Keeps the last `keep`, or all; of another's run, read only."""
    self.folder, self._writing = epath.Path(folder), False
    if not self.folder.is_absolute() and '://' not in str(folder):
      self.folder = self.folder.resolve()
    if not read_only:
      _cut_only_what_is_large()
    try:
      self._manager = ocp.CheckpointManager(
        self.folder,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=keep or None,
          create=not read_only,
          cleanup_tmp_directories=not read_only,
          read_only=read_only,
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

    What goes wrong with the writing is raised by `look`, by the next save, or
    by `wait`.
    """
    with self._explained(step):
      items = {
        name: ocp.args.StandardSave(tree)
        for name, tree in trees.items()
        if jax.tree.leaves(tree)  # Orbax refuses to save nothing
      }
      self._manager.save(step, args=ocp.args.Composite(**items), force=True)
      self._writing = True

  def look(self) -> None:
    """Raises what went wrong in the background; does not wait for it."""
    if self._writing and not self._manager.is_saving_in_progress():
      self._writing = False
      self.wait()

  def wait(self) -> None:
    """Returns when everything is on disk."""
    with self._explained(None):
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
    if step not in self.all():  # as when it was opened: a shared disk is late
      self._manager.reload()
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

  @contextlib.contextmanager
  def _explained(self, step: int | None) -> Iterator[None]:
    """Turns what the file system says into a sentence about the run."""
    try:
      yield
    except Exception as error:
      if not _is_storage(error):
        raise
      what = 'a checkpoint' if step is None else f'checkpoint {step}'
      # From the disk: the manager counts what it has begun to write.
      complete = self._manager.all_steps(read=True)
      good = f'step {max(complete)}' if complete else 'none'
      raise OSError(
        f'{what} could not be written to {self.folder}: {error}. Make room or '
        f'check permissions; the last complete checkpoint is {good}, and the '
        'run goes on from there when it is started again.'
      ) from error

  def close(self) -> None:
    self._manager.close()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind, error, trace) -> None:
    if error is None:
      self.close()
    # To close is to wait until all processes have written; after an error the
    # others may never come.
    elif jax.process_count() == 1:
      try:
        self.close()
      except Exception as another:  # not in place of the first one
        logging.warning('the last checkpoint was not written: %s', another)


def has_saved(workdir: str) -> bool:
  """Whether a run has a checkpoint; what a kill has left of one is none."""
  folder = epath.Path(workdir) / 'checkpoints'
  if not folder.exists():
    return False
  # In a bucket nothing can be renamed: one that is not complete has its name.
  return any(
    path.name.isdigit() and ocp.utils.is_checkpoint_finalized(path)
    for path in folder.iterdir()
  )


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


@functools.cache  # once
def _cut_only_what_is_large() -> None:
  """Devices that hold the same array share the writing of it, if it pays.

  Else a first save compiles a program for each shape, to cut that. (Orbax has
  this for the whole process, and its own handler keeps a second list of shapes
  beside the arrays', which nothing here reads.)
  """
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)  # it warns of what is meant here
  try:
    ocp.type_handlers.register_type_handler(
      jax.Array,
      ocp.type_handlers.ArrayHandler(
        min_slice_bytes_for_replica_parallel=2**20
      ),
      override=True,
    )
  finally:
    logging.set_verbosity(verbosity)
