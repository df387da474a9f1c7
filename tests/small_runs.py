"""Runs that are over soon, in this process and in others."""

import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import jax

from configs import toy
from kaleido_jax import progress, train

ROOT = pathlib.Path(__file__).parent.parent
# The baseline: half of the programs to compile. Losses are of every step.
FIELDS = {
  'data.batch_size': 16,
  'train.log_every': 1,
  'train.save_every': 4,
  'train.measure_every': 0,
  'train.sample_every': 0,
  'train.sample_count': 4,
  'train.held_out': '',
  'train.num_steps': 12,
  'sample.steps': 2,
  'model.denoiser.width': 32,
  'model.denoiser.num_layers': 1,
}
ENVIRONMENT = {'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '1'}
# As conftest.py has it, whose compiled programs are found then.
COMPILER = '--xla_backend_optimization_level=1'


def config(**changed: Any):
  made = toy.get_config('mdm')
  made.update_from_flattened_dict(FIELDS | changed)
  return made


def run(folder: pathlib.Path, **changed: Any) -> None:
  train.run(config(**changed), workdir=str(folder))


def flags(folder: pathlib.Path, **changed: Any) -> list[str]:
  fields = [f'--config.{n}={v}' for n, v in (FIELDS | changed).items()]
  return ['--config=configs/toy.py:mdm', f'--workdir={folder}', *fields]


def environment(devices: int, **more: str) -> dict[str, str]:
  count = f'--xla_force_host_platform_device_count={devices}'
  cache = jax.config.jax_compilation_cache_dir
  found = {**os.environ, **ENVIRONMENT, 'JAX_COMPILATION_CACHE_DIR': cache}
  return found | {'XLA_FLAGS': f'{count} {COMPILER}'} | more


STARTED: list[subprocess.Popen[str]] = []


def start(
  command: list[str], *, devices: int, **more: str
) -> subprocess.Popen[str]:
  """A process that says everything on one pipe."""
  process = subprocess.Popen(
    [sys.executable, *command],
    cwd=ROOT,
    env=environment(devices, **more),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  STARTED.append(process)
  return process


def end_all() -> None:
  """After a test, whatever became of it."""
  while STARTED:
    process = STARTED.pop()
    process.kill()
    process.wait()
    process.stdout.close()


def wait_for(condition, *processes: subprocess.Popen, seconds: int = 300):
  """Until it is true, as long as somebody works on it."""
  end = time.monotonic() + seconds
  while not condition():
    for process in processes:
      assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < end, 'it never came'
    time.sleep(0.05)


def reached(folder: pathlib.Path, step: int) -> bool:
  path = folder / progress.METRICS
  return path.exists() and f'"step": {step},' in path.read_text()


def told(folder: pathlib.Path) -> list[dict[str, Any]]:
  """metrics.jsonl without what depends on the clock."""
  return [
    {name: v for name, v in line.items() if name not in progress.TIMED}
    for line in progress.read(folder)
  ]
