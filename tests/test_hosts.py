"""Several real processes: one run, one end."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import small_runs

from kaleido_jax import checkpoint, hosts, main, train

# Adds up over all devices, without end. One may be told to fail, with a code.
TOGETHER = """
import sys, time
from kaleido_jax import hosts
coordinator, process, fails, code = sys.argv[1:]
with hosts.joined(coordinator, 2, int(process), exit_code=lambda _: int(code)):
  from jax.experimental import multihost_utils
  for count in range(10_000):
    multihost_utils.sync_global_devices('again')
    if count == 10:
      print('at work', flush=True)
      if process == fails:
        raise ValueError('the data of this host is missing')
"""

# Devices of both in turn, as on a torus: each holds every other row.
IN_TURN = """
import sys
import numpy as np
from kaleido_jax import hosts, sharding
with hosts.joined(sys.argv[1], 2, int(sys.argv[2])):
  import jax
  from jax.experimental import multihost_utils
  devices = np.array(jax.devices())[[0, 2, 1, 3]].reshape(4, 1, 1)
  mesh = jax.sharding.Mesh(devices, sharding.AXES)
  parts, count = sharding.parts(mesh)
  rows = np.concatenate([np.split(np.arange(8), count)[p] for p in parts])
  batch = sharding.to_devices({'row': rows}, mesh)['row']
  whole = multihost_utils.process_allgather(batch, tiled=True)
  print('read', rows.tolist(), 'whole', whole.tolist())
"""


def address() -> str:
  with socket.create_server(('localhost', 0)) as server:
    return f'localhost:{server.getsockname()[1]}'


def together(fails: str = 'none', code: int = 1):
  coordinator = address()
  return [
    small_runs.start(
      ['-c', TOGETHER, coordinator, str(p), fails, str(code)], devices=1
    )
    for p in range(2)
  ]


def two(folder, *, devices: int = 4, **changed):
  """A run of two processes."""
  coordinator = address()
  return [
    small_runs.start(
      [
        *('-m', 'kaleido_jax.main', f'--coordinator={coordinator}'),
        *('--num_processes=2', f'--process_id={process}'),
        *small_runs.flags(folder, **changed),
      ],
      devices=devices,
      # Processes that have joined find no compiled programs.
      JAX_DISABLE_MOST_OPTIMIZATIONS='1',
    )
    for process in range(2)
  ]


def losses(folder):
  return [line['loss'] for line in small_runs.told(folder) if 'loss' in line]


@pytest.fixture(autouse=True)
def nobody_stays():
  yield
  small_runs.end_all()


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  """A run of two processes, and what they said."""
  folder = tmp_path_factory.mktemp('runs') / 'two'
  processes = two(folder)
  said = [process.communicate(timeout=300)[0] for process in processes]
  for process, text in zip(processes, said, strict=True):
    assert process.returncode == 0, text
  return folder, said


@pytest.mark.parametrize('lost', [0, 1])
def test_who_is_left_names_the_process_that_was_killed(lost):
  processes = together()
  for process in processes:
    while 'at work' not in process.stdout.readline():
      assert process.poll() is None
  killed, left = processes[lost], processes[1 - lost]
  killed.kill()
  started = time.monotonic()
  said, _ = left.communicate(timeout=60)
  assert time.monotonic() - started < 60
  assert left.returncode == hosts.LOST, said
  assert re.search(rf'process {lost} of 2 \(.*pid {killed.pid}\) is gone', said)
  killed.communicate()


@pytest.mark.parametrize(
  'failed, code, others', [(0, 1, hosts.LOST), (1, 2, main.MISTAKE)]
)
def test_an_error_of_one_process_ends_the_others_with_its_words(
  failed, code, others
):
  processes = together(fails=str(failed), code=code)
  said = [process.communicate(timeout=60)[0] for process in processes]
  assert processes[failed].returncode == code
  assert 'Traceback (most recent' in said[failed]
  assert processes[1 - failed].returncode == others, said
  sentence = rf'process {failed} of 2 .* failed: ValueError: the data of this'
  assert re.search(sentence, said[1 - failed])


def test_a_mistake_of_the_user_is_a_sentence_in_each_process(tmp_path):
  for process in two(tmp_path, devices=1, **{'data.batch_size': 15}):
    told, _ = process.communicate(timeout=120)
    assert process.returncode == main.MISTAKE, told
    assert 'batch_size=15 is not divisible by 2' in told
    assert 'Traceback' not in told


def test_rows_stay_in_order_on_a_mesh_that_is_not():
  coordinator = address()
  processes = [
    small_runs.start(['-c', IN_TURN, coordinator, str(p)], devices=2)
    for p in range(2)
  ]
  said = [process.communicate(timeout=60)[0] for process in processes]
  whole = f'whole {list(range(8))}'
  assert f'read [0, 1, 4, 5] {whole}' in said[0], said
  assert f'read [2, 3, 6, 7] {whole}' in said[1], said


def test_one_process_alone_joins_nobody():
  # In a fresh one: jax has to be asked before it is used.
  code = 'from kaleido_jax import hosts; print(hosts.start(None, None, None))'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout == 'False\n'
  assert not hosts.start('localhost:1', 1, 0)
  assert hosts.agreed(None) is None and hosts.agreed(4) == 4
  with pytest.raises(ValueError, match='--process_id=None: give all three'):
    hosts.start('localhost:1', 2, None)


def test_two_processes_train_as_one_does(undisturbed, tmp_path):
  folder, said = undisturbed
  small_runs.run(tmp_path / 'one')
  assert len(losses(folder)) == 12
  np.testing.assert_allclose(
    losses(folder), losses(tmp_path / 'one'), rtol=1e-5
  )
  # One of them tells.
  assert 'step 12: loss' in said[0] and 'step 12: loss' not in said[1]


@pytest.mark.slow  # in one process: test_state
def test_processes_that_tensor_joins_read_the_same_rows(undisturbed, tmp_path):
  """One device each, and every matrix split over both."""
  folder, _ = undisturbed
  processes = two(
    tmp_path / 'run',
    devices=1,
    **{'mesh.tensor': 2, 'train.num_steps': 3},
  )
  for process in processes:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
  np.testing.assert_allclose(
    losses(tmp_path / 'run'), losses(folder)[:3], rtol=1e-5
  )


@pytest.mark.slow  # of one process: test_train
def test_one_that_is_told_to_stop_stops_both_at_one_step(undisturbed, tmp_path):
  """And one process goes on where two left off."""
  folder, _ = undisturbed
  run = tmp_path / 'run'
  processes = two(run)
  small_runs.wait_for(lambda: small_runs.reached(run, 2), *processes)
  processes[1].send_signal(signal.SIGTERM)
  said = [process.communicate(timeout=120)[0] for process in processes]
  steps = [re.search(r'told to stop: saved step (\d+)', text) for text in said]
  assert all(steps), said
  assert steps[0][1] == steps[1][1]
  for process in processes:
    assert process.returncode == train.TO_BE_CONTINUED
  saved = checkpoint.Checkpoints(str(run / 'checkpoints')).latest()
  assert saved == int(steps[0][1]) < 12
  shutil.copytree(run, tmp_path / 'one')
  small_runs.run(tmp_path / 'one')
  np.testing.assert_allclose(
    losses(tmp_path / 'one'), losses(folder), rtol=1e-5
  )


@pytest.mark.slow
def test_a_run_that_loses_a_process_ends_as_an_undisturbed_one(
  undisturbed, tmp_path
):
  """With the launch script: one of two is killed, both start again."""
  folder, _ = undisturbed
  run = tmp_path / 'run'
  launcher = subprocess.Popen(
    [small_runs.ROOT / 'launch/local.sh', '2', *small_runs.flags(run)],
    env=small_runs.environment(1)
    | {'PYTHON': sys.executable, 'DEVICES': '8', 'XLA_FLAGS': ''},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  pids = [int(launcher.stdout.readline().split()[3][:-1]) for _ in range(2)]
  small_runs.wait_for(lambda: small_runs.reached(run, 6), launcher)
  small_runs.wait_for((run / 'checkpoints/4').exists, launcher)
  os.kill(pids[1], signal.SIGKILL)
  said, _ = launcher.communicate(timeout=300)
  logs = [(run / f'process-{process}.txt').read_text() for process in range(2)]
  assert launcher.returncode == 0, [said, *logs]
  assert f'ended with {hosts.LOST} {128 + signal.SIGKILL}' in said
  assert 'starting again from checkpoint 4' in said
  assert re.search(rf'process 1 of 2 \(.*pid {pids[1]}\) is gone', logs[0])
  assert 'restored step 4 ' in logs[0]
  assert small_runs.told(run) == small_runs.told(folder)
