"""Runs that are cut off, and go on as if nothing had been."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import toy
from kaleido_jax import checkpoint, progress, sharding, train
from kaleido_jax import state as states
from kaleido_jax.models import kaleido

ROOT = pathlib.Path(__file__).parent.parent
SMALL = {
  'data.batch_size': 16,
  'train.log_every': 1,
  'train.save_every': 4,
  'train.measure_every': 4,
  'train.measure_batches': 1,
  'train.sample_every': 4,
  'train.num_steps': 8,
  'sample.steps': 2,
  'model.denoiser.width': 32,
}


def config(**changed):
  made = toy.get_config()
  made.update_from_flattened_dict(SMALL | changed)
  return made


def run(folder, **changed):
  train.run(config(**changed), workdir=str(folder))


def last(folder) -> states.State:
  """The last checkpoint, on one device."""
  made = config()
  mesh = sharding.create_mesh(made.mesh, jax.devices()[:1])
  shapes, where = states.shardings(made, kaleido.from_config(made), mesh)
  checkpoints = checkpoint.Checkpoints(str(folder / 'checkpoints'))
  return train.restore(checkpoints, shapes, where)


def told(folder) -> list[dict]:
  """metrics.jsonl without what depends on the clock."""
  return [
    {name: v for name, v in line.items() if name not in progress.TIMED}
    for line in progress.read(folder)
  ]


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, last(a), last(b))
  assert told(a) == told(b)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs') / 'undisturbed'
  run(folder)
  return folder


def test_a_run_in_two_halves_is_the_run_bit_for_bit(undisturbed, tmp_path):
  run(tmp_path / 'halves', **{'train.num_steps': 4})
  run(tmp_path / 'halves')
  same(undisturbed, tmp_path / 'halves')


def test_a_complete_run_is_left_alone(undisturbed, caplog):
  before = told(undisturbed)
  run(undisturbed)
  assert told(undisturbed) == before


def test_losses_fall(undisturbed):
  found = [line for line in told(undisturbed) if 'loss' in line]
  assert found[-1]['prior_loss'] < found[0]['prior_loss']
  assert [line['step'] for line in found] == list(range(1, 9))
  assert {'diffusion_loss/2', 'accuracy/text', 'perplexity/text'} <= set(
    found[0]
  )


def test_another_model_in_the_same_workdir_is_refused(undisturbed):
  with pytest.raises(ValueError, match='denoiser.width was 32 and is 64'):
    run(undisturbed, **{'model.denoiser.width': 64})
  run(undisturbed, **{'train.log_every': 3})  # but this is the same model


def test_too_many_steps_that_are_not_finite_end_the_run(tmp_path):
  with pytest.raises(FloatingPointError, match='2 steps in a row.* toy-'):
    run(
      tmp_path / 'run',
      **{'optimizer.learning_rate': float('inf'), 'train.max_skipped': 2},
    )


def test_a_batch_that_the_mesh_cannot_split_is_refused(tmp_path):
  with pytest.raises(ValueError, match='batch_size=12 .*multiple of 8'):
    run(tmp_path / 'run', **{'data.batch_size': 12})


def start(folder, *flags) -> subprocess.Popen:
  """A run of its own, slow enough to be interrupted."""
  overrides = [f'--config.{name}={value}' for name, value in SMALL.items()]
  command = ['-m', 'kaleido_jax.main', '--config=configs/toy.py']
  return subprocess.Popen(
    [sys.executable, *command, f'--workdir={folder}', *overrides, *flags],
    cwd=ROOT,
    env={
      **os.environ,
      'XLA_FLAGS': '',
      'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
    },
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for(folder, step: int, process):
  path = folder / progress.METRICS
  for _ in range(1200):
    if path.exists() and f'"step": {step},' in path.read_text():
      return
    assert process.poll() is None, process.stderr.read()
    time.sleep(0.05)
  raise AssertionError(f'step {step} never came')


LONG = ('--config.train.num_steps=120', '--config.train.save_every=40')


@pytest.mark.slow  # test_saving kills one in the middle of a save, always
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
  killed, whole = tmp_path / 'killed', tmp_path / 'whole'
  first = start(killed, *LONG)
  wait_for(killed, 50, first)
  while not (killed / 'checkpoints/40').exists():  # written in the background
    time.sleep(0.02)
  first.kill()
  first.communicate()
  line = (killed / progress.METRICS).read_text().splitlines()[-1]
  assert json.loads(line)['step'] < 120
  for folder in (killed, whole):
    process = start(folder, *LONG)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert 'restored step 40' in said or folder == whole
  same(killed, whole)


def test_a_run_that_is_told_to_stop_saves_and_says_so(tmp_path):
  process = start(tmp_path / 'run', *LONG)
  wait_for(tmp_path / 'run', 20, process)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=120)
  assert process.returncode == train.TO_BE_CONTINUED, said
  step = int(last(tmp_path / 'run').counts.step)
  assert 20 <= step < 120 and f'saved step {step}' in said
