"""Launch scripts, with stand-ins for the programs that this machine lacks."""

import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
import small_runs

from kaleido_jax import train

ROOT = pathlib.Path(__file__).parent.parent
LAUNCH = ROOT / 'launch'
SCRIPTS = ('local.sh', 'slurm.sbatch', 'tpu_pod.sh')

# In place of `python -m kaleido_jax.main`: saves a checkpoint at each start
# that PLAN says so, and ends as it says. Other uses of Python are left alone.
FAKE = """#!{python}
import json, os, pathlib, signal, sys, time
if sys.argv[1:3] != ['-m', 'kaleido_jax.main']:
  os.execv({python!r}, [{python!r}, *sys.argv[1:]])
flags = dict(f.removeprefix('--').partition('=')[::2] for f in sys.argv[3:])
folder = pathlib.Path(flags['workdir'])
process = flags.get('process_id', os.environ.get('SLURM_PROCID', '0'))
calls = folder / f'calls-{{process}}'
start = len(calls.read_text().splitlines()) if calls.exists() else 0
with calls.open('a') as file:
  names = 'JAX_NUM_CPU_DEVICES', 'CUDA_VISIBLE_DEVICES'
  seen = {{name: os.environ.get(name) for name in names}}
  file.write(json.dumps([sys.argv[3:], seen, os.getcwd()]) + '\\n')
code, saves = json.loads(os.environ['PLAN'])[start]
if saves and process == '0':
  (folder / 'checkpoints' / str(start + 1)).mkdir(parents=True)
if code == 'wait':
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
  (folder / f'waiting-{{process}}').touch()
  time.sleep(60)
sys.exit(code if process == '1' or code in (0, 75) else 76)
"""


def program(path: pathlib.Path, text: str) -> pathlib.Path:
  path.write_text(text)
  path.chmod(path.stat().st_mode | stat.S_IEXEC)
  return path


@pytest.fixture
def fake(tmp_path):
  """An environment in which Python is the one above."""
  bin_ = tmp_path / 'bin'
  bin_.mkdir()
  python = program(bin_ / 'python', FAKE.format(python=sys.executable))
  path = f'{bin_}:{os.environ["PATH"]}'
  return {**os.environ, 'PYTHON': str(python), 'PATH': path}


def local(fake, tmp_path, plan, *, count: int = 2, **more) -> subprocess.Popen:
  return subprocess.Popen(
    [LAUNCH / 'local.sh', str(count), '--x=1', f'--workdir={tmp_path}'],
    cwd=tmp_path,  # anywhere
    env={**fake, 'PLAN': json.dumps(plan), **more},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def calls(tmp_path, process: int):
  lines = (tmp_path / f'calls-{process}').read_text().splitlines()
  return [json.loads(line) for line in lines]


@pytest.mark.parametrize('name', SCRIPTS)
def test_shellcheck_has_nothing_to_say(name):
  command = shutil.which('shellcheck', path=pathlib.Path(sys.executable).parent)
  done = subprocess.run(
    [command, LAUNCH / name], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('name', SCRIPTS)
def test_scripts_can_be_started(name):
  assert os.access(LAUNCH / name, os.X_OK) or name.endswith('.sbatch')


def test_local_starts_all_again_until_the_run_is_done(fake, tmp_path):
  # A failure, two stops of which one had saved nothing, and the end.
  plan = [(1, True), (75, True), (75, False), (0, False)]
  process = local(fake, tmp_path, plan)
  said, _ = process.communicate(timeout=60)
  assert process.returncode == 0, said
  for index in range(2):
    found = calls(tmp_path, index)
    assert len(found) == 4
    flags, seen, folder = found[0]
    assert {'--x=1', '--num_processes=2', f'--process_id={index}'} <= {*flags}
    assert seen['JAX_NUM_CPU_DEVICES'] == '1' and folder == str(ROOT)
    assert f'process {index}: pid' in said
    assert f'{tmp_path}/process-{index}.txt' in said
  assert 'starting again from checkpoint 2' in said
  meetings = [{f for f in flags if 'coord' in f} for flags, *_ in found]
  assert meetings[0] != meetings[1]  # the old port may still be taken


def test_local_gives_up_after_three_failures_without_progress(fake, tmp_path):
  plan = [(3, False), (3, True), (3, False), (3, False), (3, False)]
  process = local(fake, tmp_path, plan)
  said, _ = process.communicate(timeout=60)
  assert process.returncode == 3  # and not 76, as the others say
  assert len(calls(tmp_path, 0)) == 5 and 'giving up' in said


def test_local_reads_flags_of_one_word(fake):
  done = subprocess.run(
    [LAUNCH / 'local.sh', '2', '--workdir', 'x'], env=fake, capture_output=True
  )
  assert done.returncode == 2 and b'--workdir=... in one word' in done.stderr


def test_local_does_not_repeat_a_mistake(fake, tmp_path):
  process = local(fake, tmp_path, [(2, False), (0, True)])
  said, _ = process.communicate(timeout=60)
  assert process.returncode == 2, said
  assert len(calls(tmp_path, 0)) == 1


@pytest.fixture
def heeded():
  """SIGINT is; a suite that a script starts in the background ignores it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures('heeded')
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_local_passes_signals_on_and_starts_nothing_again(
  fake, tmp_path, number
):
  process = local(fake, tmp_path, [('wait', False)] * 2)
  small_runs.wait_for(
    lambda: all((tmp_path / f'waiting-{p}').exists() for p in range(2)), process
  )
  process.send_signal(number)
  process.communicate(timeout=30)
  assert process.returncode == train.TO_BE_CONTINUED
  assert len(calls(tmp_path, 0)) == 1


def test_local_deals_out_devices(fake, tmp_path):
  process = local(fake, tmp_path, [(0, False)], DEVICES='8')
  process.communicate(timeout=30)
  assert calls(tmp_path, 1)[0][1]['JAX_NUM_CPU_DEVICES'] == '4'
  (tmp_path / 'calls-0').unlink()
  (tmp_path / 'calls-1').unlink()
  program(
    tmp_path / 'bin/nvidia-smi',
    '#!/bin/sh\nfor i in 0 1 2 3; do echo GPU; done',
  )
  process = local(fake, tmp_path, [(0, False)])
  process.communicate(timeout=30)
  seen = [calls(tmp_path, p)[0][1]['CUDA_VISIBLE_DEVICES'] for p in range(2)]
  assert seen == ['0,1', '2,3']
  process = local(fake, tmp_path, [(0, False)], count=3)
  said, _ = process.communicate(timeout=30)
  assert process.returncode == 2 and '4 GPUs cannot be dealt out to 3' in said


def options() -> dict[str, str]:
  """What the script asks of SLURM."""
  lines = (LAUNCH / 'slurm.sbatch').read_text().splitlines()
  before = lines[: lines.index('set -uo pipefail')]  # SLURM stops reading there
  found = [line.split(None, 1)[1] for line in before if line[:8] == '#SBATCH ']
  assert sum('#SBATCH --' in line for line in lines) == len(found)
  return dict(option.partition('=')[::2] for option in found)


def test_slurm_gets_options_that_go_together():
  found = options()
  assert found['--gres'] == f'gpu:{found["--ntasks-per-node"]}'
  assert '--gpus-per-task' not in found
  assert '--requeue' in found and found['--open-mode'] == 'append'
  assert re.fullmatch(r'TERM@\d+', found['--signal'])  # to tasks, not the shell


# srun, as a machine of one node sees it: its tasks, with the variables by which
# jax finds the others. scontrol writes down what it is asked.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
for i in 0 1; do
  SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids+=($!)
done
trap 'kill -TERM "${pids[@]}"' TERM
code=0
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
for pid in "${pids[@]}"; do wait "$pid" || code=$?; done
exit $code
"""


def sbatch(fake, tmp_path, plan, **more):
  """Runs the script as SLURM does: a copy, from where it was submitted."""
  program(tmp_path / 'bin/srun', SRUN)
  note = f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol'
  program(tmp_path / 'bin/scontrol', note)
  copy = shutil.copy(LAUNCH / 'slurm.sbatch', tmp_path / 'slurm_script')
  variables = {
    'SLURM_SUBMIT_DIR': str(ROOT),
    'SLURM_JOB_ID': '17',
    'FAILURES': str(tmp_path / 'slurm-17.failures'),
  }
  return subprocess.Popen(
    ['bash', copy, f'--workdir={tmp_path}'],
    cwd=tmp_path,
    env={**fake, **variables, 'PLAN': json.dumps(plan), **more},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.mark.parametrize(
  'code, failures, again',
  [(0, 0, False), (2, 0, False), (75, 99, True), (1, 3, True), (1, 9, False)],
)
def test_slurm_requeues_what_is_not_done(fake, tmp_path, code, failures, again):
  # However often it was told to stop, or moved.
  log = tmp_path / 'slurm-17.failures'
  log.write_text('earlier\n' * failures)
  process = sbatch(fake, tmp_path, [(code, False)], SLURM_RESTART_COUNT='99')
  said, _ = process.communicate(timeout=60)
  asked = tmp_path / 'scontrol'
  assert asked.exists() is again, said
  if again:
    assert asked.read_text() == 'requeue 17\n'
  else:
    assert process.returncode == code
  assert len(calls(tmp_path, 1)) == 1


def test_slurm_outlives_the_signal_that_its_tasks_get(fake, tmp_path):
  process = sbatch(fake, tmp_path, [('wait', False)])
  small_runs.wait_for(
    lambda: all((tmp_path / f'waiting-{p}').exists() for p in range(2)), process
  )
  process.send_signal(signal.SIGTERM)  # the shell
  time.sleep(0.5)
  assert process.poll() is None
  found = subprocess.run(
    ['pgrep', '-P', str(process.pid)], capture_output=True, text=True
  )
  for pid in found.stdout.split():  # srun
    os.kill(int(pid), signal.SIGTERM)
  process.communicate(timeout=30)
  assert (tmp_path / 'scontrol').exists()


def test_slurm_leaves_alone_what_was_cancelled(fake, tmp_path):
  later = str(int(time.time()) + 3600)
  process = sbatch(fake, tmp_path, [('wait', False)], SLURM_JOB_END_TIME=later)
  small_runs.wait_for(
    lambda: all((tmp_path / f'waiting-{p}').exists() for p in range(2)), process
  )
  found = subprocess.run(
    ['pgrep', '-P', str(process.pid)], capture_output=True, text=True
  )
  for pid in [process.pid, *map(int, found.stdout.split())]:
    os.kill(pid, signal.SIGTERM)
  process.communicate(timeout=30)
  assert process.returncode == train.TO_BE_CONTINUED
  assert not (tmp_path / 'scontrol').exists()


def test_slurm_outside_the_repository_is_a_sentence(fake, tmp_path):
  process = sbatch(fake, tmp_path, [], SLURM_SUBMIT_DIR=str(tmp_path))
  said, _ = process.communicate(timeout=30)
  assert process.returncode == 2 and 'from the root of the repository' in said


def test_a_pod_gets_the_code_and_the_command(fake, tmp_path):
  plan = tmp_path / 'codes'
  plan.write_text('0\n0\n1\n0\n')  # copied, installed, failed once, done
  program(
    tmp_path / 'bin/gcloud',
    f"""#!{sys.executable}
import json, pathlib, sys
with open({str(tmp_path / 'gcloud')!r}, 'a') as file:
  file.write(json.dumps(sys.argv[1:]) + '\\n')
plan = pathlib.Path({str(plan)!r})
code, _, rest = plan.read_text().partition('\\n')
plan.write_text(rest)
sys.exit(int(code))
""",
  )
  done = subprocess.run(
    [
      *(LAUNCH / 'tpu_pod.sh', 'pod', 'zone-a', '--config=configs/toy.py'),
      *('--workdir=/nfs/a run', '--config.latents=()'),
    ],
    cwd=tmp_path,
    env={**fake, 'PAUSE': '0'},
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.returncode == 0, done.stderr
  lines = (tmp_path / 'gcloud').read_text().splitlines()
  copied, installed, *runs = [json.loads(line) for line in lines]
  assert copied[:4] == ['compute', 'tpus', 'tpu-vm', 'scp']
  assert copied[5].startswith('pod:') and '--worker=all' in copied
  assert 'pip install' in installed[-1]
  assert runs[0] == runs[1] and '--worker=all' in runs[0]
  # What the shell over there makes of it.
  command = runs[0][-1].removeprefix('--command=').partition('exec ')[2]
  printed = subprocess.run(
    ['bash', '-c', f'printf "%s\\n" {command}'],
    capture_output=True,
    text=True,
  )
  assert printed.stdout.splitlines() == [
    *('.venv/bin/python', '-m', 'kaleido_jax.main'),
    *('--config=configs/toy.py', '--workdir=/nfs/a run'),
    '--config.latents=()',
  ]
