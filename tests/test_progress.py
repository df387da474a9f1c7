"""What a run tells: numbers, traces, boards."""

import contextlib
import json
import sys
import types

import jax
import numpy as np
import pytest
import small_runs

from kaleido_jax import boards, flops, profile, progress


def report(folder, **changed):
  given = dict(first=0, last=10, batch_size=8) | changed
  return progress.Progress(folder, **given)


def test_rates_are_examples_over_time(tmp_path, monkeypatch):
  clock = iter([100.0, 104.0, 104.0, 200.0])
  monkeypatch.setattr(progress.time, 'perf_counter', lambda: next(clock))
  told = report(tmp_path, flops=3e12)
  told.advance(1.0)
  told.report(2, {'loss': 0.5})  # 2 batches of 8 in 4 s
  told.close()
  (line,) = progress.read(tmp_path)
  assert line['step'] == 2 and line['loss'] == 0.5
  assert line['examples_per_second'] == 4.0
  assert line['examples_per_second_per_device'] == 4.0 / jax.device_count()
  assert line['teraflops_per_device'] == 12.0 / jax.device_count()
  assert line['data_wait'] == 0.25
  # Nobody knows what this CPU could do, or what it holds.
  assert not {'flop_utilisation', 'device_memory_gb'} & set(line)


def test_utilisation_is_a_share_of_the_peak(monkeypatch):
  chip = types.SimpleNamespace(
    device_kind='TPU v4', memory_stats=lambda: {'peak_bytes_in_use': 5e9}
  )
  monkeypatch.setattr(progress.jax, 'devices', lambda: [chip] * 4)
  monkeypatch.setattr(progress.jax, 'local_devices', lambda: [chip] * 4)
  monkeypatch.setattr(progress.jax, 'device_count', lambda: 4)
  found = progress.speed(100.0, 5.5e12)  # of 4 x 275e12 a second
  assert found['flop_utilisation'] == pytest.approx(0.5)
  assert flops.peak(chip) == 275e12
  assert progress.memory() == {'device_memory_gb': 5.0}


def test_what_a_run_told_after_its_checkpoint_is_taken_back(tmp_path):
  lines = [{'step': step, 'loss': 1.0} for step in (2, 4, 4, 6)]
  text = ''.join(json.dumps(line) + '\n' for line in lines) + '{"step": 7, "lo'
  (tmp_path / progress.METRICS).write_text(text)
  report(tmp_path, first=4).close()
  assert progress.read(tmp_path) == lines[:3]


def test_numbers_that_are_none_are_null(tmp_path):
  told = report(tmp_path)
  told.write(1, {'loss': float('nan')})
  told.write(2, {})  # nothing to tell
  told.close()
  assert (tmp_path / progress.METRICS).read_text() == (
    '{"step": 1, "loss": null}\n'
  )


def test_a_window_of_steps_is_traced(tmp_path):
  config = small_runs.config(
    **{'train.profile_from': 3, 'train.profile_steps': 2}
  )
  window, x = profile.Window(config, tmp_path), np.zeros(3)
  for step in range(1, 8):
    window.before(step, x)
    x = jax.jit(lambda x: x + 1)(x)
    inside = step in (3, 4)
    assert window._open is inside
  window.close()
  assert list((tmp_path / profile.FOLDER).rglob('*.xplane.pb'))


def test_a_run_that_ends_inside_the_window_keeps_its_trace(tmp_path):
  config = small_runs.config(**{'train.profile_from': 1})
  window = profile.Window(config, tmp_path)
  window.before(1, np.zeros(3))
  window.close()
  assert list((tmp_path / profile.FOLDER).rglob('*.xplane.pb'))


class Fake(types.ModuleType):
  """As much of wandb as is used; remembers what it was told."""

  def __init__(self):
    super().__init__('wandb')
    self.told, self.inits, self.finished = [], [], 0

  def Image(self, picture):
    return picture.shape

  def init(self, **given):
    self.inits.append(given)
    return self

  def log(self, numbers, step):
    self.told.append((step, numbers))

  def finish(self):
    self.finished += 1


def test_weights_and_biases_is_told_the_same(tmp_path, monkeypatch):
  wandb = Fake()
  monkeypatch.setitem(sys.modules, 'wandb', wandb)
  config = small_runs.config(**{'train.wandb': 'mine'})
  for first in (0, 4):  # a run, and the same run gone on
    made = boards.chosen(config, tmp_path)
    told = report(tmp_path, first=first, boards=made)
    told.write(first + 1, {'loss': 0.5})
    told.picture(first + 1, np.zeros((4, 6, 3), np.uint8))
    told.close()
  (name,) = {given['id'] for given in wandb.inits}
  assert len(name) == 8
  assert wandb.inits[0]['project'] == 'mine' and wandb.finished == 2
  assert wandb.told[:2] == [(1, {'loss': 0.5}), (1, {'samples': (4, 6, 3)})]
  assert (tmp_path / progress.SHEETS / '000005.png').exists()


def test_a_board_that_is_not_installed_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(ValueError, match="'mine'.*pip install wandb"):
    boards.chosen(small_runs.config(**{'train.wandb': 'mine'}), tmp_path)
  assert boards.chosen(small_runs.config(), tmp_path) == []


def test_a_sheet_that_cannot_be_written_is_a_sentence(tmp_path):
  with contextlib.closing(report(tmp_path)) as told:
    (tmp_path / progress.SHEETS).write_text('in its place')
    with pytest.raises(
      OSError, match='000007.png cannot be written.*Make room'
    ):
      told.picture(7, np.zeros((4, 6, 3), np.uint8))
