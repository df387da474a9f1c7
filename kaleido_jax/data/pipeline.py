"""From a source to batches: prepared, batched, prefetched.

Global batch k is a function of (seed, k) alone: the same examples, in the same
rows, with the same augmentations, however many processes share it. So the
iterator is never saved, and a run may go on with other processes:

  epoch order   a shuffle of the seed, another one each epoch
  batch k       positions k B .. (k + 1) B - 1 of that order
  part p of n   rows p B/n .. (p + 1) B/n - 1 of each batch

A process reads the parts that its devices hold. They need not be neighbours: on
a torus the mesh follows the wires.
"""

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from kaleido_jax.data.example import BadRecord, Source
from kaleido_jax.data.reading import Read, Replacing, Tally
from kaleido_jax.data.recipe import Prepared, Recipe

Arrays = Mapping[str, np.ndarray]


class Batch(NamedTuple):
  """What one process gets of a batch."""

  arrays: Arrays  # for the devices; see `Recipe`
  keys: tuple[str, ...]  # which examples
  bad: tuple[BadRecord, ...] = ()  # which were replaced
  cut: tuple[str, ...] = ()  # captions and kinds that were too long, each time


def batches(
  source: Source,
  recipe: Recipe,
  *,
  batch_size: int,
  seed: int,
  first: int = 0,
  shuffle: bool = True,
  parts: Sequence[int] = (0,),
  num_parts: int = 1,
  num_workers: int = 0,
  num_threads: int = 2,
) -> grain.DatasetIterator:
  """This process's share of batches first, first + 1, ... without end.

  Workers are processes of their own; without any, threads read ahead. Close the
  iterator when done (`it.close()`), or workers live on.
  """
  if batch_size % num_parts:
    raise ValueError(
      f'batch_size={batch_size} is not divisible by {num_parts} parts that '
      f'processes read; use a multiple of {num_parts}.'
    )
  if len(source) < 1:
    raise ValueError('the source is empty.')
  wrong = not parts or min(parts) < 0 or max(parts) >= num_parts
  if wrong or first < 0 or seed < 0:
    raise ValueError(
      f'parts={parts} of {num_parts}, first={first} and seed={seed}: '
      'none may be negative, and parts count from 0.'
    )
  order = grain.MapDataset.source(Replacing(source)).seed(seed)
  order = order.shuffle() if shuffle else order
  examples = order.repeat().random_map(_Prepare(recipe))
  batched = examples.batch(batch_size // num_parts, batch_fn=stack)
  mine = grain.experimental.ZipMapDataset(
    [batched[part::num_parts] for part in parts]
  ).map(join)
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=2 * num_threads
  )
  dataset = mine[first:].to_iter_dataset(options)
  if num_workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # a notebook has none; workers want them
    dataset = dataset.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=2
      ),
      worker_init_fn=settle,
    )
  return iter(dataset)


class _Prepare(grain.transforms.RandomMap):
  """A recipe, as Grain wants it."""

  def __init__(self, recipe: Recipe):
    self._recipe = recipe

  def random_map(
    self, read: Read, rng: np.random.Generator
  ) -> tuple[Prepared, tuple[BadRecord, ...]]:
    return self._recipe(read.example, rng), read.bad


def stack(examples: Sequence[tuple[Prepared, tuple[BadRecord, ...]]]) -> Batch:
  """Examples side by side."""
  prepared = [example for example, _ in examples]
  names = prepared[0].arrays
  return Batch(
    arrays={n: np.stack([one.arrays[n] for one in prepared]) for n in names},
    keys=tuple(one.key for one in prepared),
    bad=tuple(record for _, bad in examples for record in bad),
    cut=tuple(kind for one in prepared for kind in one.cut),
  )


def join(batches: Sequence[Batch]) -> Batch:
  """Parts of a batch below each other."""
  names = batches[0].arrays
  return Batch(
    {n: np.concatenate([one.arrays[n] for one in batches]) for n in names},
    *(sum(parts, ()) for parts in list(zip(*batches, strict=True))[1:]),
  )


def settle(worker: int, num_workers: int) -> None:
  """In a worker: whatever asks jax for devices gets the CPU.

  SIGTERM may reach the whole group of processes: the trainer saves and ends,
  for which it needs batches, and then its workers. One that is killed closes
  nothing, so they watch for its end.
  """
  del worker, num_workers
  if trainer := multiprocessing.parent_process():
    threading.Thread(target=_end_with, args=(trainer,), daemon=True).start()
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  os.environ['JAX_PLATFORMS'] = 'cpu'
  if 'jax' in sys.modules:
    sys.modules['jax'].config.update('jax_platforms', 'cpu')


def _end_with(trainer) -> None:
  trainer.join()
  os._exit(0)


def counted(found: Iterator[Batch], tally: Tally) -> Iterator[Batch]:
  """Keeps count of bad records; ends the run when there are too many."""
  for batch in found:
    tally.add(len(batch.keys), batch.bad, batch.cut)
    yield batch


def prefetch(
  found: Iterator[Batch], put: Callable[[Arrays], Any], *, depth: int = 2
) -> Iterator[tuple[Any, Batch]]:
  """Puts batches on the devices ahead of time, in a thread.

  Yields (what `put` made of the arrays, the batch on the host). Close it when
  done, and the iterator behind it after that.
  """
  ready: queue.Queue = queue.Queue(maxsize=max(1, depth))
  over = threading.Event()

  def offer(item) -> bool:
    while not over.is_set():
      try:
        ready.put(item, timeout=0.1)
        return True
      except queue.Full:
        continue
    return False

  def work():
    try:
      for batch in found:
        if not offer((put(batch.arrays), batch)):
          return
      offer(None)
    except BaseException as error:  # the consumer raises it
      offer(error)

  worker = threading.Thread(target=work, daemon=True, name='prefetch')
  worker.start()
  try:
    while (item := ready.get()) is not None:
      if isinstance(item, BaseException):
        raise item
      yield item
  finally:
    over.set()
    # A thread inside jax when the interpreter ends would abort the process.
    worker.join(timeout=60)
