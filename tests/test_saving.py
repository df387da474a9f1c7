"""Saves that go wrong, and what is left then; states on fewer devices."""

import contextlib
import re
import shutil
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import small_runs

from kaleido_jax import checkpoint, sharding, train
from kaleido_jax import state as states
from kaleido_jax.models import kaleido

# Python imports this first: checkpoint 8 takes a minute to become one.
SLOW = """
import os, pathlib, time

def slowly(move):
  def moved(source, target, **options):
    if 'orbax-checkpoint-tmp' in str(source) and str(target).endswith('/8'):
      pathlib.Path(os.environ['MARK']).touch()
      time.sleep(60)
    return move(source, target, **options)
  return moved

os.rename, os.replace = slowly(os.rename), slowly(os.replace)
"""

# Writes 256 MB, or reads a part of it, and prints the most memory it took.
MEMORY = """
import resource, sys
import jax, jax.numpy as jnp
import numpy as np
from kaleido_jax import checkpoint

folder, what, names = sys.argv[1], sys.argv[2], sys.argv[3].split(',')
device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
shapes = {
  name: [jax.ShapeDtypeStruct((2**20,), jnp.float32, sharding=device)] * 16
  for name in names
}
checkpoints = checkpoint.Checkpoints(folder)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
if what == 'save':
  make = lambda number, shape: jax.device_put(
    np.full(shape.shape, number, np.float32), shape.sharding)
  trees = {n: [make(i, s) for i, s in enumerate(t)] for n, t in shapes.items()}
  checkpoints.save(1, trees)
  checkpoints.wait()
else:
  before = peak()
  found = jax.block_until_ready(checkpoints.restore(shapes))
  assert float(found['ema'][3][7]) == 3
  print(peak() - before)
checkpoints.close()
"""


def on(count: int, **axes: int):
  """A configuration's shapes and shardings on some devices."""
  made = small_runs.config(**{f'mesh.{a}': n for a, n in axes.items()})
  mesh = sharding.create_mesh(made.mesh, jax.devices()[:count])
  return states.shardings(made, kaleido.from_config(made), mesh)


def last(folder) -> states.State:
  checkpoints = checkpoint.Checkpoints(str(folder / 'checkpoints'))
  return train.restore(checkpoints, *on(8))


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, last(a), last(b))
  assert small_runs.told(a) == small_runs.told(b)


@pytest.fixture(autouse=True)
def nobody_stays():
  yield
  small_runs.end_all()


def test_a_run_killed_in_the_middle_of_a_save_goes_on_bit_for_bit(tmp_path):
  run, whole = tmp_path / 'run', tmp_path / 'whole'
  (tmp_path / 'sitecustomize.py').write_text(SLOW)
  command = ['-m', 'kaleido_jax.main', *small_runs.flags(run)]
  process = small_runs.start(
    command,
    devices=8,
    PYTHONPATH=str(tmp_path),
    MARK=str(tmp_path / 'mark'),
  )
  small_runs.wait_for((tmp_path / 'mark').exists, process)
  process.kill()
  process.communicate()
  names = sorted(path.name for path in (run / 'checkpoints').iterdir())
  assert '4' in names and '8' not in names
  assert any(name.startswith('8.orbax-checkpoint-tmp') for name in names)
  for folder in (run, whole):
    process = small_runs.start(
      ['-m', 'kaleido_jax.main', *small_runs.flags(folder)], devices=8
    )
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert 'restored step 4 ' in said or folder == whole
  same(run, whole)


@contextlib.contextmanager
def small_disk(folder, megabytes: int):
  """A file system of a few megabytes; only root may have one."""
  folder.mkdir()
  options = ['-t', 'tmpfs', '-o', f'size={megabytes}m', 'none', str(folder)]
  done = subprocess.run(['mount', *options], capture_output=True, text=True)
  if done.returncode:
    pytest.skip(f'no small file system: {done.stderr}')
  try:
    yield folder
  finally:
    subprocess.run(['umount', '--lazy', str(folder)], check=True)


def remount(folder, options: str):
  subprocess.run(['mount', '-o', f'remount,{options}', folder], check=True)


needs_mount = pytest.mark.skipif(
  sys.platform != 'linux' or not shutil.which('mount'), reason='needs mount'
)


@needs_mount
def test_a_full_disk_is_a_sentence_and_the_run_goes_on(tmp_path):
  with small_disk(tmp_path / 'disk', 6) as disk:
    # Large enough for one checkpoint, and no second one.
    rows = {'model.encoder.vocab_size': 6144}
    flags = small_runs.flags(disk / 'run', **rows)
    command = ['-m', 'kaleido_jax.main', *flags]
    process = small_runs.start(command, devices=8)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    # A report, or a checkpoint: whatever comes first.
    assert re.search(r'\nerror: .* No space left .* Make room', said), said
    complete = sorted((disk / 'run/checkpoints').glob('[0-9]'))
    assert [path.name for path in complete] == ['4']
    assert not re.search('complete checkpoint is step [^4]', said)
    remount(disk, 'size=64m')
    process = small_runs.start(command, devices=8)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and 'restored step 4 ' in said, said
    assert small_runs.reached(disk / 'run', 12)


@needs_mount
def test_a_full_disk_leaves_the_checkpoint_before_whole(tmp_path):
  def tree(megabytes: int):
    x = jax.random.normal(jax.random.key(0), (megabytes, 2**18))
    return {'params': {'x': x}}

  with small_disk(tmp_path / 'disk', 8) as disk:
    checkpoints = checkpoint.Checkpoints(str(disk))
    checkpoints.save(1, tree(2))
    checkpoints.wait()
    with pytest.raises(OSError, match='Make room .* complete .* is step 1'):
      checkpoints.save(2, tree(16))
      for _ in range(300):  # as a run does after every step
        checkpoints.look()
        time.sleep(0.1)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    where = jax.tree.map(lambda leaf: place, tree(2))
    found = checkpoints.restore(checkpoint.abstract(tree(2), where))
    np.testing.assert_array_equal(found['params']['x'], tree(2)['params']['x'])


@needs_mount
def test_a_disk_that_cannot_be_written_is_a_sentence(tmp_path):
  with small_disk(tmp_path / 'disk', 4) as disk:
    remount(disk, 'ro')
    with pytest.raises(OSError, match='cannot be written.*another --workdir'):
      small_runs.run(disk / 'run')


def test_a_state_moves_to_fewer_and_fewer_devices(tmp_path):
  """8, 4, 1: split over all, split over some in another way, whole."""
  first = checkpoint.Checkpoints(str(tmp_path / 'first'))
  shapes, where = on(8, fsdp=8)
  rng = np.random.default_rng(0)
  eight = jax.tree.map(
    lambda leaf, to: jax.device_put(
      rng.integers(0, 99, leaf.shape).astype(leaf.dtype), to
    ),
    *(shapes, where),
  )
  train.save(first, eight)
  first.wait()
  four = train.restore(first, *on(4, fsdp=2, tensor=2))
  second = checkpoint.Checkpoints(str(tmp_path / 'second'))
  train.save(second, four)
  second.wait()
  shapes, where = on(1)
  one = train.restore(second, shapes, where)
  jax.tree.map(np.testing.assert_array_equal, eight, one)
  table = eight.trained['encoder']['token_embedder']['embedding']
  assert table.addressable_shards[0].data.size == table.size // 8
  for name in ('trained', 'ema'):  # alone
    wanted = checkpoint.abstract(
      {name: getattr(shapes, name)}, {name: getattr(where, name)}
    )
    found = first.restore(wanted)
    assert list(found) == [name]
    jax.tree.map(
      np.testing.assert_array_equal, found[name], getattr(eight, name)
    )


def test_a_state_is_restored_without_a_second_copy(tmp_path):
  """In megabytes, of a state of 256."""

  def measured(*args: str) -> str:
    process = small_runs.start(['-c', MEMORY, str(tmp_path), *args], devices=1)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said.splitlines()[-1] if said else ''

  every = 'trained,ema,mu,nu'
  measured('save', every)
  whole, part = (float(measured('restore', names)) for names in (every, 'ema'))
  # What Orbax itself takes is in both.
  assert whole - part < 1.4 * (256 - 64)
  assert part < 64 + 128
