"""PyTorch's checkpoint files (.pth, .bin), read and written without PyTorch.

The file is an uncompressed zip archive: `data.pkl` is a pickle in which every
tensor is a call of `_rebuild_tensor_v2` on a storage, and `data/KEY` holds the
bytes of storage KEY. Storages are mapped into memory, so that a tensor costs
nothing until it is used. Nothing from the pickle is ever executed: names other
than the few below become inert stand-ins.

Before PyTorch 1.6 a file was five pickles, one after the other, and the bytes
of all storages behind them. Such files are read, too.
"""

import collections
import io
import math
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

OLD = 0x1950A86A20F9469CFC6C  # the first pickle of an old file
DTYPES = {
  'FloatStorage': np.dtype(np.float32),
  'DoubleStorage': np.dtype(np.float64),
  'HalfStorage': np.dtype(np.float16),
  'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
  'LongStorage': np.dtype(np.int64),
  'IntStorage': np.dtype(np.int32),
  'ShortStorage': np.dtype(np.int16),
  'CharStorage': np.dtype(np.int8),
  'ByteStorage': np.dtype(np.uint8),
  'BoolStorage': np.dtype(np.bool_),
}


def read(path: str | pathlib.Path) -> Any:
  """What `torch.load` returns, with numpy arrays in place of tensors."""
  path = pathlib.Path(path)
  if not zipfile.is_zipfile(path):
    return _read_old(path)
  with zipfile.ZipFile(path) as archive:
    pickles = [n for n in archive.namelist() if n.endswith('/data.pkl')]
    if len(pickles) != 1:
      raise ValueError(
        f'{path} has no data.pkl inside, so it is no PyTorch checkpoint.'
      )
    root = pickles[0].removesuffix('data.pkl')
    if f'{root}byteorder' in archive.namelist():
      order = archive.read(f'{root}byteorder').decode()
      if order != 'little':
        raise ValueError(
          f'{path} is {order}-endian; save it again on a common machine.'
        )
    return _unpickle(path, archive, root)


def state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a checkpoint, whether it is a state dict or holds one."""
  content = read(path)
  if isinstance(content, Mapping):
    for key in ('state_dict', 'model'):
      if isinstance(content.get(key), Mapping):
        content = content[key]
        break
  tensors = {}
  if isinstance(content, Mapping):
    tensors = {k: v for k, v in content.items() if isinstance(v, np.ndarray)}
  if not tensors:
    raise ValueError(
      f'{path} holds a {type(content).__name__} without tensors, not a state '
      'dict; expected one at the top level, or under "state_dict" or "model".'
    )
  return tensors


def write(path: str | pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes a state dict that `torch.load(path, weights_only=True)` reads."""
  arrays = {name: np.asarray(array) for name, array in tensors.items()}
  root = pathlib.Path(path).stem
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    archive.writestr(f'{root}/data.pkl', _pickled(arrays))
    archive.writestr(f'{root}/byteorder', 'little')
    for i, array in enumerate(arrays.values()):
      archive.writestr(f'{root}/data/{i}', array.tobytes())
    archive.writestr(f'{root}/version', '3\n')


def _unpickle(path: pathlib.Path, archive: zipfile.ZipFile, root: str) -> Any:
  """Reads data.pkl, whose errors name the file."""
  members = {info.filename: info for info in archive.infolist()}

  def storage(key: str, dtype: np.dtype) -> np.ndarray:
    name = f'{root}data/{key}'
    if name not in members:
      raise ValueError(f'{name} is missing; download or copy the file again.')
    return _map(path, members[name], dtype)

  unpickler = _Unpickler(io.BytesIO(archive.read(f'{root}data.pkl')))
  unpickler.storage = storage
  try:
    return unpickler.load()
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  except Exception as error:  # a broken pickle may raise anything
    raise ValueError(
      f'{path}: data.pkl is broken ({type(error).__name__}: {error}); download '
      'or copy the file again.'
    ) from error


def _read_old(path: pathlib.Path) -> Any:
  """A file from before the archives. Storages are read as they come."""
  storages: dict[str, np.ndarray] = {}
  with path.open('rb') as file:
    try:
      is_old = _Unpickler(file).load() == OLD
    except Exception:  # not even a pickle
      is_old = False
    if not is_old:
      raise ValueError(
        f'{path} is neither a zip archive nor an older checkpoint of PyTorch.'
      )
    try:
      _Unpickler(file).load()  # the version of the protocol
      _Unpickler(file).load()  # the machine
      unpickler = _Unpickler(file)
      unpickler.storage = lambda key, dtype: storages[key]
      unpickler.allocate = storages
      content = unpickler.load()
      keys = _Unpickler(file).load()
      if set(keys) != set(storages):
        raise ValueError('storages are missing')
      for key in keys:
        (count,) = struct.unpack('<q', file.read(8))
        storage = storages[key]
        raw = file.read(storage.nbytes)
        if count != storage.size or len(raw) != storage.nbytes:
          raise ValueError(f'storage {key} is not whole')
        storage[:] = np.frombuffer(raw, storage.dtype)
    except Exception as error:  # a broken pickle may raise anything
      raise ValueError(
        f'{path} is broken ({type(error).__name__}: {error}); download or copy '
        'the file again.'
      ) from error
  return content


def _map(path: pathlib.Path, info: zipfile.ZipInfo, dtype) -> np.ndarray:
  if info.compress_type != zipfile.ZIP_STORED:
    raise ValueError(
      f'{info.filename} is compressed, which PyTorch never does; '
      'unpack the archive and pack it without compression.'
    )
  if info.file_size == 0:
    return np.zeros(0, dtype)
  # The local header repeats name and extra field, with its own padding.
  with path.open('rb') as file:
    file.seek(info.header_offset + 26)
    name, extra = struct.unpack('<HH', file.read(4))
  return np.memmap(
    path,
    dtype,
    mode='r',
    offset=info.header_offset + 30 + name + extra,
    shape=(info.file_size // dtype.itemsize,),
  )


class _Inert:
  """Stands for any object of a class that we do not need."""

  def __init__(self, *args, **kwargs):
    pass

  def __setstate__(self, state):
    self.state = state

  def __setitem__(self, key, value):
    pass

  def append(self, value):
    pass

  def extend(self, values):
    pass


def _rebuild_tensor(storage, offset, size, stride, *unused):
  # numpy would read whatever stands in memory beyond the storage.
  last = offset + sum(
    (n - 1) * step for n, step in zip(size, stride, strict=True)
  )
  if math.prod(size) and not (
    min(offset, *stride, 0) == 0 and last < storage.size
  ):
    raise ValueError(
      f'a tensor of shape {tuple(size)} reaches beyond the {storage.size} '
      'elements of its storage; download or copy the file again.'
    )
  stride = [step * storage.dtype.itemsize for step in stride]
  return np.lib.stride_tricks.as_strided(
    storage[offset:], size, stride, writeable=False
  )


class _Unpickler(pickle.Unpickler):
  KNOWN = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): lambda data, *unused: data,
    ('torch', 'Size'): tuple,
    ('builtins', 'set'): set,
  }

  allocate = None  # where storages go whose bytes come later

  def find_class(self, module, name):
    if (module, name) in self.KNOWN:
      return self.KNOWN[module, name]
    if module == 'torch' and name in DTYPES:
      return DTYPES[name]
    return type(name, (_Inert,), {'__module__': module})

  def persistent_load(self, pid):
    _, dtype, key, _, num, *view = pid
    if any(view):
      raise ValueError(f'storage {key} is a view of another, as before 0.4.')
    if not isinstance(dtype, np.dtype):
      raise ValueError(
        f'storage {key} has type {dtype.__name__}; only {list(DTYPES)} can be '
        'read.'
      )
    if self.allocate is not None:
      self.allocate.setdefault(key, np.empty(num, dtype))
    storage = self.storage(key, dtype)
    if storage.size < num:
      raise ValueError(
        f'data/{key} has {storage.size} elements where {num} are needed; '
        'download or copy the file again.'
      )
    return storage


def _pickled(arrays: Mapping[str, np.ndarray]) -> bytes:
  """The pickle of an OrderedDict of tensors, opcode by opcode.

  `pickle` itself only names what can be imported, and PyTorch need not be here.
  """
  storages = {dtype: name for name, dtype in DTYPES.items()}

  def text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack('<I', len(encoded)) + encoded

  def integer(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(encoded)]) + encoded

  def group(*items: bytes) -> bytes:
    return pickle.MARK + b''.join(items) + pickle.TUPLE

  def name(module: str, attribute: str) -> bytes:
    return pickle.GLOBAL + f'{module}\n{attribute}\n'.encode()

  ordered = name('collections', 'OrderedDict')
  ordered += pickle.EMPTY_TUPLE + pickle.REDUCE

  def tensor(key: int, array: np.ndarray) -> bytes:
    if array.dtype not in storages:
      raise ValueError(
        f'tensors of type {array.dtype} cannot be written; convert them to one '
        f'of {[str(dtype) for dtype in storages]}.'
      )
    storage = group(
      text('storage'),
      name('torch', storages[array.dtype]),
      text(str(key)),
      text('cpu'),
      integer(array.size),
    )
    stride = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
    arguments = group(
      storage + pickle.BINPERSID,
      integer(0),
      group(*map(integer, array.shape)),
      group(*map(integer, stride)),
      pickle.NEWFALSE,
      ordered,
    )
    return (
      name('torch._utils', '_rebuild_tensor_v2') + arguments + pickle.REDUCE
    )

  items = b''.join(
    text(key) + tensor(i, array)
    for i, (key, array) in enumerate(arrays.items())
  )
  return (
    pickle.PROTO
    + b'\x02'
    + ordered
    + pickle.MARK
    + items
    + pickle.SETITEMS
    + pickle.STOP
  )
