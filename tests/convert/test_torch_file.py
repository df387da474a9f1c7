import os
import pathlib
import pickle
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from kaleido_jax.convert import torch_file


@pytest.fixture(scope='module')
def tiny_pth(data) -> pathlib.Path:
  """A checkpoint as ml-mdm writes it, with objects of classes of its own."""
  return data / 'mdm_pth/vis_model_tiny.pth'


def repack(source, path, changes=(), **kwargs) -> None:
  """Copies an archive, with some members replaced, or left out if None."""
  changes = dict(changes)
  with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, 'w') as new:
    for name in old.namelist():
      content = changes.get(name.partition('/')[2], old.read(name))
      if content is not None:
        new.writestr(name, content, **kwargs)


def test_every_kind_of_tensor_is_read_as_pytorch_reads_it(data, tiny_pth):
  """Types, strides, offsets into a shared storage, no dimension, no element."""
  expected = dict(np.load(data / 'mdm_pth/expected.npz'))
  found = torch_file.state_dict(tiny_pth)
  assert sorted(found) == sorted(expected)
  for name, value in expected.items():
    if name == 'bfloat16':  # which .npz files do not have
      assert found[name].dtype == ml_dtypes.bfloat16
    else:
      assert found[name].dtype == value.dtype
    np.testing.assert_array_equal(found[name].astype(value.dtype), value)


def test_what_stands_beside_the_state_dict_is_read_too(tiny_pth):
  content = torch_file.read(tiny_pth)
  assert (content['batch_num'], content['loss']) == (100, 0.5)
  assert list(content['state_dict'])[0] == 'conv_in.weight'


def test_a_tensor_costs_no_memory_until_it_is_used(tmp_path):
  torch_file.write(tmp_path / 'x.pth', {'x': np.ones(5_000_000, np.float32)})
  tracemalloc.start()
  try:
    found = torch_file.state_dict(tmp_path / 'x.pth')['x']
    assert found[1:9].sum() == 8
    assert tracemalloc.get_traced_memory()[1] < 10**6
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize('dtype', torch_file.DTYPES.values(), ids=str)
def test_what_is_written_is_read_back_exactly(dtype, tmp_path):
  rng = np.random.default_rng(0)
  values = rng.integers(0, 2 if dtype.kind == 'b' else 100, (3, 4, 5))
  values = values.astype(dtype)
  tensors = {
    'block.0.weight': values,
    'transposed': values.T,
    'slice': values[1:, ::2],
    'scalar': values[0, 0, 0],
    'empty': values[:0],
    'α': values[0],
  }
  torch_file.write(tmp_path / 'x.pth', tensors)
  found = torch_file.state_dict(tmp_path / 'x.pth')
  assert list(found) == list(tensors)
  for name, value in tensors.items():
    assert found[name].dtype == dtype
    np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_many_and_large_tensors_are_read_back_exactly(tmp_path):
  """Lengths that need more than one byte in the pickle."""
  tensors = {f'{i}': np.full((i,), i, np.int64) for i in range(300)}
  tensors['large'] = np.arange(70_000, dtype=np.int32).reshape(7, -1)
  torch_file.write(tmp_path / 'x.pth', tensors)
  for name, value in torch_file.state_dict(tmp_path / 'x.pth').items():
    np.testing.assert_array_equal(value, tensors[name])


def test_a_type_that_pytorch_lacks_is_not_written(tmp_path):
  with pytest.raises(ValueError, match='type complex64 cannot be written'):
    torch_file.write(tmp_path / 'x.pth', {'x': np.zeros(2, np.complex64)})


class Bomb:
  """What a malicious file may hold: a call, made while it is unpickled."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_nothing_in_a_file_is_executed(tiny_pth, tmp_path, protocol):
  marker = tmp_path / 'executed'
  code = f'import pathlib; pathlib.Path({str(marker)!r}).touch()'
  bombs = [
    Bomb(os.system, f'touch {marker}'),
    Bomb(exec, code),
    Bomb(os.makedirs, str(marker), 0o777, True),
  ]
  content = pickle.dumps({'bombs': bombs, 'x': 3}, protocol)
  for bomb in bombs[:2]:  # with Python's own unpickler each goes off
    pickle.loads(pickle.dumps(bomb, protocol))
    marker.unlink()
  repack(tiny_pth, tmp_path / 'x.pth', {'data.pkl': content})
  assert torch_file.read(tmp_path / 'x.pth')['x'] == 3
  assert not marker.exists()


def test_names_of_imported_modules_are_inert_too(tiny_pth, tmp_path):
  content = b'cnumpy\nsave\n.'
  repack(tiny_pth, tmp_path / 'x.pth', {'data.pkl': content})
  assert torch_file.read(tmp_path / 'x.pth') is not np.save


def test_a_file_that_is_no_archive_is_refused(tmp_path):
  path = tmp_path / 'x.pth'
  path.write_bytes(pickle.dumps({'some': 'pickle'}))
  with pytest.raises(ValueError, match='x.pth is neither a zip archive nor'):
    torch_file.read(path)


def test_half_a_file_is_refused(tiny_pth, tmp_path):
  path = tmp_path / 'x.pth'
  path.write_bytes(tiny_pth.read_bytes()[:5000])
  with pytest.raises(ValueError, match='x.pth is neither a zip archive nor'):
    torch_file.read(path)


def test_another_archive_is_refused(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.pth', 'w') as archive:
    archive.writestr('readme.txt', 'hello')
  with pytest.raises(ValueError, match='x.pth has no data.pkl inside'):
    torch_file.read(tmp_path / 'x.pth')


def test_a_compressed_archive_is_refused(tiny_pth, tmp_path):
  path = tmp_path / 'x.pth'
  repack(tiny_pth, path, compress_type=zipfile.ZIP_DEFLATED)
  with pytest.raises(ValueError, match='x.pth: .*/data/0 is compressed'):
    torch_file.read(path)


def test_a_big_endian_archive_is_refused(tiny_pth, tmp_path):
  repack(tiny_pth, tmp_path / 'x.pth', {'byteorder': b'big'})
  with pytest.raises(ValueError, match='x.pth is big-endian'):
    torch_file.read(tmp_path / 'x.pth')


@pytest.mark.parametrize(
  'content, kind', [([1, 2], 'list'), ({'a': 1}, 'dict'), (7, 'int')]
)
def test_a_file_without_tensors_is_refused(tiny_pth, tmp_path, content, kind):
  path = tmp_path / 'x.pth'
  repack(tiny_pth, path, {'data.pkl': pickle.dumps(content)})
  with pytest.raises(ValueError, match=f'x.pth holds a {kind} without tensors'):
    torch_file.state_dict(path)


def test_a_missing_storage_is_named(tmp_path):
  torch_file.write(tmp_path / 'x.pth', {'x': np.ones((3, 4), np.float32)})
  repack(tmp_path / 'x.pth', tmp_path / 'y.pth', {'data/0': None})
  with pytest.raises(ValueError, match='y.pth: x/data/0 is missing'):
    torch_file.read(tmp_path / 'y.pth')


def test_a_short_storage_is_named(tmp_path):
  torch_file.write(tmp_path / 'x.pth', {'x': np.ones((3, 4), np.float32)})
  repack(tmp_path / 'x.pth', tmp_path / 'y.pth', {'data/0': b'\0' * 8})
  with pytest.raises(ValueError, match='y.pth: data/0 has 2 .* 12 are needed'):
    torch_file.read(tmp_path / 'y.pth')


def number(value: int) -> bytes:
  return pickle.LONG1 + b'\1' + value.to_bytes(1, signed=True)


@pytest.mark.parametrize(
  'old, new',
  [
    (number(3) + number(4), number(3) + number(100)),  # the shape
    (number(4) + number(1), number(5) + number(1)),  # the strides
    (number(4) + number(1), number(4) + number(-1)),
    (b'Q' + pickle.LONG1 + b'\0', b'Q' + number(1)),  # the offset
    (b'Q' + pickle.LONG1 + b'\0', b'Q' + number(-1)),
  ],
)
def test_memory_beyond_a_storage_is_never_read(tmp_path, old, new):
  torch_file.write(tmp_path / 'x.pth', {'x': np.ones((3, 4), np.float32)})
  with zipfile.ZipFile(tmp_path / 'x.pth') as archive:
    content = archive.read('x/data.pkl')
  assert content.count(old) == 1
  content = content.replace(old, new)
  repack(tmp_path / 'x.pth', tmp_path / 'y.pth', {'data.pkl': content})
  with pytest.raises(ValueError, match='y.pth: a tensor .* beyond the 12 elem'):
    torch_file.read(tmp_path / 'y.pth')


def test_garbage_in_place_of_the_pickle_is_refused(tiny_pth, tmp_path):
  repack(tiny_pth, tmp_path / 'x.pth', {'data.pkl': b'garbage'})
  with pytest.raises(ValueError, match='x.pth: data.pkl is broken'):
    torch_file.read(tmp_path / 'x.pth')


def test_files_from_before_the_archives_are_read(data):
  """As torch.save wrote them until 1.5: see the shared storage, the strides."""
  found = torch_file.state_dict(data / 'mdm_pth/before_1_6.pth')
  rows = np.arange(12, dtype=np.float32).reshape(3, 4)
  expected = {
    'a': rows,
    'shared': rows[1],
    'turned': rows.T,
    'half': np.float16([1.5, -2]),
    'count': np.int64(7),
    'none': np.zeros((0, 3), np.float32),
    'bytes': np.uint8([1, 255]),
  }
  assert list(found) == list(expected)
  for name, value in expected.items():
    assert found[name].dtype == value.dtype
    np.testing.assert_array_equal(found[name], value)


def test_half_an_old_file_is_a_sentence(data, tmp_path):
  whole = (data / 'mdm_pth/before_1_6.pth').read_bytes()
  # In a header, in the midst of a storage, one element before the end.
  for missing in (200, 20, 1):
    (tmp_path / 'half.pth').write_bytes(whole[: len(whole) - missing])
    with pytest.raises(ValueError, match='half.pth is broken'):
      torch_file.read(tmp_path / 'half.pth')
