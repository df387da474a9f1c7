"""Checkpoints: whole or not there, and restored onto any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kaleido_jax import checkpoint


def on(count: int, *axes) -> NamedSharding:
  devices = np.array(jax.devices()[:count])
  return NamedSharding(
    Mesh(devices, ('x',), axis_types=(AxisType.Auto,)), P(*axes)
  )


def trees(sharding):
  x = jnp.arange(64.0).reshape(8, 8)
  return {
    'params': {'kernel': jax.device_put(x, sharding)},
    'ema': {'kernel': jax.device_put(-x, sharding)},
    'counts': {'step': jax.device_put(jnp.int32(7), on(sharding.num_devices))},
  }


def wanted(found, sharding):
  shardings = jax.tree.map(lambda leaf: sharding, found)
  return checkpoint.abstract(found, shardings)


@pytest.mark.parametrize('count', [8, 4, 1])
def test_it_restores_onto_other_devices_and_shardings(tmp_path, count):
  saved = trees(on(8, 'x'))
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  checkpoints.save(3, saved)
  checkpoints.wait()
  part = {'params': saved['params']}
  found = checkpoints.restore(wanted(part, on(count, None, 'x')))
  kernel = found['params']['kernel']
  np.testing.assert_array_equal(kernel, saved['params']['kernel'])
  assert kernel.sharding.num_devices == count
  assert kernel.addressable_shards[0].data.shape == (8, 8 // count)


def test_one_tree_is_read_without_the_others(tmp_path):
  saved = trees(on(1))
  first = checkpoint.Checkpoints(str(tmp_path))
  first.save(1, saved)
  first.close()
  for name in ('params', 'opt_state'):  # whatever becomes of the rest
    for path in (tmp_path / '1').glob(f'{name}/**/*'):
      if path.is_file():
        path.write_bytes(b'')
  found = checkpoint.Checkpoints(str(tmp_path)).restore(
    wanted({'ema': saved['ema']}, on(1))
  )
  np.testing.assert_array_equal(found['ema']['kernel'], saved['ema']['kernel'])


def test_only_the_last_are_kept(tmp_path):
  checkpoints = checkpoint.Checkpoints(str(tmp_path), keep=2)
  for step in (1, 2, 3):
    checkpoints.save(step, trees(on(1)))
  checkpoints.wait()
  assert checkpoints.all() == [2, 3] and checkpoints.latest() == 3


def test_an_unfinished_checkpoint_is_not_seen(tmp_path):
  first = checkpoint.Checkpoints(str(tmp_path))
  first.save(1, trees(on(1)))
  first.close()
  (tmp_path / '2.orbax-checkpoint-tmp').mkdir()
  (tmp_path / '2.orbax-checkpoint-tmp/params').mkdir()
  assert checkpoint.Checkpoints(str(tmp_path)).latest() == 1


def test_what_is_missing_is_a_sentence(tmp_path):
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  with pytest.raises(FileNotFoundError, match='no complete checkpoint in'):
    checkpoints.restore({})
  checkpoints.save(4, trees(on(1)))
  checkpoints.wait()
  with pytest.raises(FileNotFoundError, match=r'no checkpoint 9 .*\[4\]'):
    checkpoints.restore({}, step=9)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='Give another --workdir'):
    checkpoint.Checkpoints(str(tmp_path / 'file/run'))


def test_a_full_disk_names_the_last_good_checkpoint(tmp_path, monkeypatch):
  checkpoints = checkpoint.Checkpoints(str(tmp_path))
  checkpoints.save(1, trees(on(1)))
  checkpoints.wait()

  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(checkpoints._manager, 'save', full)
  with pytest.raises(OSError, match='checkpoint 2 could not.*complete.*step 1'):
    checkpoints.save(2, trees(on(1)))
