"""Training: one loop for every configuration.

  python -m kaleido_jax.main --config=configs/toy.py

The run lives in its workdir: config.json, checkpoints/, metrics.jsonl and
TensorBoard's events. Started again, it goes on from the last checkpoint, bit
for bit: batches are a function of the step, and so is all randomness.
"""

import contextlib
import json
import pathlib
import signal
import sys
import time

import jax
from absl import logging
from ml_collections import ConfigDict

from kaleido_jax import checkpoint, objective, progress, sharding
from kaleido_jax import state as states
from kaleido_jax.data import pipeline, sources, store
from kaleido_jax.data.reading import Tally
from kaleido_jax.models import kaleido
from kaleido_jax.state import State

# A run that was told to stop has saved, and wants to be started again.
TO_BE_CONTINUED = 75


def run(config: ConfigDict, *, workdir: str) -> None:
  """Trains up to config.train.num_steps."""
  words = sources.check(config)
  folder = open_workdir(config, workdir)
  mesh = sharding.create_mesh(config.mesh)
  sharding.check_batch(
    config.data.batch_size, mesh, config.optimizer.accumulate
  )
  model = kaleido.from_config(config)
  shapes, where = states.shardings(config, model, mesh)
  params = kaleido.join(shapes.trained, shapes.frozen)
  logging.info('%s', describe(model, params))
  kind = config.model.denoiser.kind
  logging.info('%s', sharding.check(params, mesh, kind))

  with contextlib.ExitStack() as stack:  # closed in reverse, come what may
    checkpoints = checkpoint.Checkpoints(
      str(folder / 'checkpoints'), keep=config.train.keep
    )
    stack.callback(checkpoints.close)
    if checkpoints.latest() is None:
      state = states.init(config, model, mesh)
    else:
      state = restore(checkpoints, shapes, where)
    first, end = int(state.counts.step), config.train.num_steps
    if first >= end:
      logging.info('the run is complete: %d steps', first)
      return
    report = progress.Progress(
      folder, first=first, last=end, batch_size=config.data.batch_size
    )
    stack.callback(report.close)
    source = sources.batches(
      config,
      first=first,
      process=jax.process_index(),
      num_processes=jax.process_count(),
      encoder=cached_encoder(config, state, words),
    )
    stack.callback(source.close)
    tally = Tally(config.data.max_bad_share)
    ahead = pipeline.prefetch(
      pipeline.counted(source, tally),
      lambda arrays: sharding.to_devices(arrays, mesh),
    )
    stack.callback(ahead.close)

    step = states.build_step(config, model, mesh, words.separator)
    told = Told()
    stack.callback(told.close)
    pending = None  # what the step before says: fetched while this one runs
    for count in range(first + 1, end + 1):
      started = time.perf_counter()
      arrays, batch = next(ahead)
      report.advance(time.perf_counter() - started)
      state, metrics = step(state, arrays)
      tell(config, report, pending)
      pending = count, metrics, batch.keys
      if count == first + 1:
        jax.block_until_ready(metrics)
        report.restart_clock(count)  # the first step compiles
      if told.to_stop or count == end or count % config.train.save_every == 0:
        check_finite(config, *pending)
        save(checkpoints, state)
        report.restart_clock(count)
      if told.to_stop:
        break
    tell(config, report, pending, last=True)
    checkpoints.wait()

  logging.info(
    '%d examples read; replaced: %s; too long, and cut: %s',
    tally.read,
    dict(tally.reasons) or 'none',
    dict(tally.cut) or 'none',
  )
  if told.to_stop and pending[0] < end:
    logging.info('told to stop: saved step %d', pending[0])
    sys.exit(TO_BE_CONTINUED)


def open_workdir(config: ConfigDict, workdir: str) -> pathlib.Path:
  """The run's folder, with its configuration; refuses another model's."""
  if '://' in workdir:
    raise ValueError(
      f'workdir={workdir} is not on this machine; give a local folder.'
    )
  folder = pathlib.Path(workdir)
  path = folder / 'config.json'
  text = config.to_json(indent=2) + '\n'
  # A run that never saved a step binds nobody.
  if path.exists() and any((folder / 'checkpoints').glob('[0-9]*')):
    before, now = json.loads(path.read_text()), json.loads(text)
    changed = [
      line
      for part in ('model', 'latents', 'image_shapes')
      for line in differences(before.get(part), now[part], part)
    ]
    if changed:
      raise ValueError(
        f'{folder} holds a run of another model: {"; ".join(changed)}. Go on '
        'with its configuration, or give another --workdir.'
      )
  folder.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return folder


def differences(before, now, path: str) -> list[str]:
  """Fields that differ, as 'model.denoiser.width was 32 and is 64'."""
  if isinstance(before, dict) and isinstance(now, dict):
    return [
      line
      for name in {**before, **now}
      for line in differences(before.get(name), now.get(name), f'{path}.{name}')
    ]
  return [] if before == now else [f'{path} was {before} and is {now}']


def restore(checkpoints, shapes: State, where: State) -> State:
  """The last state, onto this mesh, whatever mesh it was saved from."""
  wanted = checkpoint.abstract(shapes._asdict(), where._asdict())
  return State(**checkpoints.restore(wanted))


def save(checkpoints, state: State) -> None:
  checkpoints.save(int(state.counts.step), state._asdict())


def cached_encoder(config: ConfigDict, state: State, words) -> str:
  """Whose states of captions the store must have; '' if the encoder runs."""
  if not config.data.cached_memory:
    return ''
  if not config.model.freeze_encoder:
    raise ValueError(
      'config.data.cached_memory=True, but the encoder is trained: its states '
      'change. Set config.model.freeze_encoder=True, or do not cache.'
    )
  dtype, length = config.model.encoder.dtype, config.data.caption_length
  return store.encoder_name(state.frozen['encoder'], dtype, words, length)


def tell(config: ConfigDict, report, pending, last: bool = False) -> None:
  """Looks at a step that is done; reports it every now and then."""
  if pending is None:
    return
  count, metrics, _ = pending
  check_finite(config, *pending)
  # The first too: somebody is watching.
  if last or count == 1 or count % config.train.log_every == 0:
    report.report(count, objective.readable(jax.device_get(metrics)))


def check_finite(config: ConfigDict, count: int, metrics, keys) -> None:
  """Stops a run that only skips."""
  in_a_row = int(metrics['skipped_in_a_row'])
  if in_a_row:
    logging.warning('step %d was not finite and is skipped', count)
  if in_a_row >= config.train.max_skipped:
    raise FloatingPointError(
      f'{in_a_row} steps in a row were not finite, the last of them step '
      f'{count}, with examples {", ".join(keys[:8])} ... Lower '
      'config.optimizer.learning_rate, or look at these examples.'
    )


class Told:
  """Whether somebody asked the run to stop: SIGTERM, as clusters send it."""

  def __init__(self):
    self.to_stop = False
    self._before = signal.signal(signal.SIGTERM, self._stop)

  def close(self) -> None:
    signal.signal(signal.SIGTERM, self._before)

  def _stop(self, number, frame) -> None:
    del number, frame
    self.to_stop = True


def describe(model: kaleido.Kaleido, params) -> str:
  """A table of the parts: how many parameters, how many of them trained."""

  def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

  trained, _ = jax.eval_shape(lambda p: kaleido.split(model, p), params)
  rows = [
    f'  {part:<10}{count(tree):>16,}{count(trained.get(part, {})):>16,}'
    for part, tree in params.items()
  ]
  total = f'  {"total":<10}{count(params):>16,}{count(trained):>16,}'
  head = f'  {"part":<10}{"parameters":>16}{"trained":>16}'
  return '\n'.join(['the model', head, *rows, total])
