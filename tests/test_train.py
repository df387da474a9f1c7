"""Runs that are cut off, and go on as if nothing had been."""

import signal

import jax
import numpy as np
import pytest
import small_runs
from small_runs import told

from configs import toy
from kaleido_jax import checkpoint, sharding, train
from kaleido_jax import state as states
from kaleido_jax.models import kaleido

SMALL = {
  'data.batch_size': 16,
  'train.log_every': 1,
  'train.save_every': 4,
  'train.measure_every': 4,
  'train.measure_batches': 1,
  'train.sample_count': 0,
  'train.num_steps': 8,
  'sample.steps': 2,
  'model.denoiser.width': 32,
  'model.denoiser.num_layers': 1,
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


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, last(a), last(b))
  assert told(a) == told(b)


@pytest.fixture(autouse=True)
def nobody_stays():
  yield
  small_runs.end_all()


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
    small_runs.run(
      tmp_path / 'run',
      **{'optimizer.learning_rate': float('inf'), 'train.max_skipped': 2},
    )


def test_a_batch_that_the_mesh_cannot_split_is_refused(tmp_path):
  with pytest.raises(ValueError, match='batch_size=12 .*multiple of 8'):
    run(tmp_path / 'run', **{'data.batch_size': 12})


# Slow enough to be interrupted.
LONG = {'train.num_steps': 120, 'train.save_every': 40}


def start(command: list[str]):
  return small_runs.start(['-m', 'kaleido_jax.main', *command], devices=8)


@pytest.mark.slow  # test_saving kills one in the middle of a save, always
def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
  killed, whole = tmp_path / 'killed', tmp_path / 'whole'
  fields = [f'--config.{name}={v}' for name, v in (SMALL | LONG).items()]
  command = ['--config=configs/toy.py', *fields]
  first = start([*command, f'--workdir={killed}'])
  small_runs.wait_for(lambda: small_runs.reached(killed, 50), first)
  # Written in the background.
  small_runs.wait_for((killed / 'checkpoints/40').exists, first)
  first.kill()
  first.communicate()
  assert small_runs.told(killed)[-1]['step'] < 120
  for folder in (killed, whole):
    process = start([*command, f'--workdir={folder}'])
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert 'restored step 40' in said or folder == whole
  same(killed, whole)


def test_a_run_that_is_told_to_stop_saves_and_says_so(tmp_path):
  run = tmp_path / 'run'
  process = start(small_runs.flags(run, **LONG))
  small_runs.wait_for(lambda: small_runs.reached(run, 20), process)
  process.send_signal(signal.SIGTERM)
  said, _ = process.communicate(timeout=120)
  assert process.returncode == train.TO_BE_CONTINUED, said
  step = checkpoint.Checkpoints(str(run / 'checkpoints')).latest()
  assert 20 <= step < 120 and f'saved step {step}' in said
