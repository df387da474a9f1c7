"""Training: one loop for every configuration.

  python -m kaleido_jax.main --config=configs/toy.py

The run lives in its workdir: config.json, checkpoints/, metrics.jsonl and
TensorBoard's events. Started again, it goes on from the last checkpoint, bit
for bit: batches are a function of the step, and so is all randomness.
"""

import contextlib
import json
import pathlib
import sys
import time

import jax
from absl import logging
from ml_collections import ConfigDict

from kaleido_jax import (
  boards,
  bucket,
  checkpoint,
  flops,
  hosts,
  initial,
  objective,
  origins,
  profile,
  progress,
  sharding,
  trials,
)
from kaleido_jax import state as states
from kaleido_jax.data import pipeline, sources, store
from kaleido_jax.data.reading import Tally
from kaleido_jax.models import kaleido
from kaleido_jax.state import State

# A run that was told to stop has saved, and wants to be started again.
TO_BE_CONTINUED = 75

# Fields that say what parameters mean, and may not change within a run; and
# those that say which examples come next.
BINDING = ('model.', 'latents', 'image_shapes', *origins.MEANING)
PLACING = ('seed', 'data.batch_size', 'data.source', 'data.split')

# What a run goes on with, beside its checkpoints.
KEPT = ('config.json', progress.METRICS, boards.WANDB_ID)


def run(config: ConfigDict, *, workdir: str) -> None:
  """Trains up to config.train.num_steps."""
  place = bucket.Folder(workdir, KEPT if hosts.first() else ())
  origins.check(config, fresh=not checkpoint.has_saved(workdir))
  words = sources.check(config)
  mesh = sharding.create_mesh(config.mesh)
  sharding.check_batch(
    config.data.batch_size, mesh, config.optimizer.accumulate
  )
  folder = open_workdir(config, workdir, place.here)
  model = kaleido.from_config(config)
  shapes, where = states.shardings(config, model, mesh)
  params = kaleido.join(shapes.trained, shapes.frozen)
  logging.info('%s', describe(model, params))
  kind = config.model.denoiser.kind
  logging.info('%s', sharding.check(params, mesh, kind))

  with contextlib.ExitStack() as stack:  # closed in reverse, come what may
    told = hosts.Told()
    stack.callback(told.close)
    checkpoints = stack.enter_context(
      checkpoint.Checkpoints(place.checkpoints, keep=config.train.keep)
    )
    saved = hosts.agreed(checkpoints.latest())
    if saved is None:
      state = initial.create(config, model, mesh)
    else:
      state = restore(checkpoints, shapes, where, saved)
    first, end = int(state.counts.step), config.train.num_steps
    if first >= end:
      logging.info('the run is complete: %d steps', first)
      return
    made = progress.Progress if hosts.first() else progress.Silence
    report = made(
      folder,
      first=first,
      last=end,
      batch_size=config.data.batch_size,
      flops=flops.per_example(config),
      boards=boards.chosen(config, folder) if hosts.first() else [],
    )
    stack.callback(place.push)
    stack.callback(report.close)
    window = profile.Window(config, folder)
    stack.callback(window.close)
    encoder = cached_encoder(config, state, words)
    parts, num_parts = sharding.parts(mesh)
    source = sources.batches(
      config,
      first=first,
      parts=parts,
      num_parts=num_parts,
      encoder=encoder,
    )
    stack.callback(source.close)
    tally = Tally(config.data.max_bad_share)
    ahead = pipeline.prefetch(
      pipeline.counted(source, tally),
      lambda arrays: sharding.to_devices(arrays, mesh),
    )
    stack.callback(ahead.close)

    step = states.build_step(config, model, mesh, words.separator)
    trial = trials.Trials(config, model, mesh, words, encoder=encoder)
    pending = None  # what the step before says: fetched while this one runs
    for count in range(first + 1, end + 1):
      window.before(count, state)
      started = time.perf_counter()
      arrays, batch = next(ahead)
      report.advance(time.perf_counter() - started)
      state, metrics = step(state, arrays)
      tell(config, report, pending)
      checkpoints.look()
      pending = count, metrics, batch.keys
      if count == first + 1:
        jax.block_until_ready(metrics)
        report.restart_clock(count)  # the first step compiles
      told_to_stop = told.to_stop(count)
      stop = told_to_stop or count == end
      showing = count == end or _showing(config.train.sample_every, count)
      pauses = config.train.save_every, config.train.measure_every
      if stop or showing or any(_due(every, count) for every in pauses):
        # The numbers of a step are told before it is saved: a run that is
        # killed in between does it again, and one after it has it. A sheet is
        # drawn after that: it may take long, and nothing depends on it.
        tell(config, report, pending, last=count == end)
        pending = None
        if count == end or _due(config.train.measure_every, count):
          report.write(count, trial.losses(state))
        if stop or _due(config.train.save_every, count):
          place.push()
          save(checkpoints, state)
        if showing and trial.captions and not told_to_stop:
          report.picture(count, trial.drawn(state))
          place.push()
        report.restart_clock(count)
      if stop:
        break
    checkpoints.wait()

  logging.info(
    '%d examples read; replaced: %s; too long, and cut: %s',
    tally.read,
    dict(tally.reasons) or 'none',
    dict(tally.cut) or 'none',
  )
  if told_to_stop and count < end:
    logging.info('told to stop: saved step %d', count)
    sys.exit(TO_BE_CONTINUED)


def _due(every: int, count: int) -> bool:
  """Whether it is time for what is done every so many steps; 0 is never."""
  return every > 0 and count % every == 0


def _showing(every: int, count: int) -> bool:
  """Whether a sheet is due. The first ones are early: somebody is waiting."""
  halves = [every // n for n in (16, 8, 4, 2) if every % n == 0]
  return _due(every, count) or count in halves


def open_workdir(
  config: ConfigDict, workdir: str, here: pathlib.Path | None = None
) -> pathlib.Path:
  """The run's folder, with its configuration; refuses another model's.

  `here` is where its small files are, if not in it.
  """
  folder = here or pathlib.Path(workdir)
  path = folder / 'config.json'
  text = config.to_json(indent=2) + '\n'
  # A run that never saved a step binds nobody.
  if hosts.first() and path.exists() and checkpoint.has_saved(workdir):
    changed = differences(json.loads(path.read_text()), json.loads(text))
    if other := [line for line in changed if line.startswith(BINDING)]:
      raise ValueError(
        f'{workdir} holds a run of another model: {"; ".join(other)}. Go on '
        'with its configuration, or give another --workdir.'
      )
    if moved := [line for line in changed if line.startswith(PLACING)]:
      logging.warning('the data do not go on where they were: %s', moved)
  if hosts.first():
    try:
      folder.mkdir(parents=True, exist_ok=True)
      progress.replace(path, text)
    except OSError as error:
      raise OSError(
        f'{folder} cannot be written to: {error}. Give another --workdir.'
      ) from error
  return folder


def differences(before, now, path: str = '') -> list[str]:
  """Fields that differ, as 'model.denoiser.width was 32 and is 64'.

  What there was not is a field that is younger than the run.
  """
  if isinstance(before, dict) and isinstance(now, dict):
    return [
      line
      for name in {**before, **now}
      if name not in origins.FREE
      for line in differences(
        before.get(name), now.get(name), f'{path}.{name}'.strip('.')
      )
    ]
  return [] if before in (None, now) else [f'{path} was {before} and is {now}']


def restore(
  checkpoints, shapes: State, where: State, step: int | None = None
) -> State:
  """The last state, onto this mesh, whatever mesh it was saved from."""
  wanted = checkpoint.abstract(shapes._asdict(), where._asdict())
  return State(**checkpoints.restore(wanted, step))


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
  params = jax.tree.map(hosts.whole, state.frozen['encoder'])
  return store.encoder_name(params, dtype, words, length)


def tell(config: ConfigDict, report, pending, last: bool = False) -> None:
  """Looks at a step that is done; reports it every now and then."""
  if pending is None:
    return
  count, metrics, _ = pending
  check_finite(config, *pending)
  # The first too: somebody is watching.
  if last or count == 1 or _due(config.train.log_every, count):
    report.report(count, objective.readable(jax.device_get(metrics)))


def check_finite(config: ConfigDict, count: int, metrics, keys) -> None:
  """Stops a run that only skips."""
  in_a_row = int(metrics['skipped_in_a_row'])
  if in_a_row:
    logging.warning(
      'step %d was not finite and is skipped; its examples: %s ...',
      *(count, ', '.join(keys[:8])),
    )
  if in_a_row >= config.train.max_skipped:
    raise FloatingPointError(
      f'{in_a_row} steps in a row were not finite, the last of them step '
      f'{count}, with examples {", ".join(keys[:8])} ... Lower '
      'config.optimizer.learning_rate, or look at these examples.'
    )


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
