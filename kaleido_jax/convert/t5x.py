"""T5X's native checkpoints (google-research/t5x), in and out, without T5X.

A folder holds `checkpoint`, a msgpack file whose leaves are arrays or the specs
of zarr stores that lie beside it. Two layouts exist; ours has N layers stacked
along the first axis:

  minimal    decoder/layers_3/self_attention/query/kernel   (d, h*k)
  scalable   decoder/decoder/self_attention/query/kernel    (d, N, h, k)
  ours       decoder/layers/self_attention/query/kernel     (N, d, h*k)

In the scalable layout each layer also has a position bias of its own. T5 shares
one among them, so a checkpoint is refused whose biases differ (as in umT5).
"""

import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tensorstore
from flax import serialization, traverse_util

from kaleido_jax.convert import stream, t5_tensors
from kaleido_jax.models import t5
from kaleido_jax.models.t5_layers import T5Config

LAYOUTS = ('minimal', 'scalable')
VERSION = 3  # of the checkpoint format; what T5X has written since 2021
BIAS = 'relpos_bias/rel_embedding'
# A scalable tensor is read layer by layer, but compressed as a whole.
CACHE = tensorstore.Context({'cache_pool': {'total_bytes_limit': 2 * 10**9}})


def load(
  folder: str | pathlib.Path,
  target: Mapping[str, Any] | None = None,
  *,
  halves: tuple[str, ...] = t5_tensors.HALVES,
  strict: bool = True,
  **overrides,
) -> tuple[t5.T5, dict]:
  """Reads a T5, tensor by tensor, into the target's shardings.

  Args:
    folder: with the file `checkpoint`; either layout.
    target: a tree of `jax.ShapeDtypeStruct`, such as `t5.abstract_params` gives
      it, with the sharding and type of each parameter; float32 on the first
      device if there is none.
    halves: 'encoder', 'decoder' or both; the embedding belongs to either.
    strict: raise if a tensor is missing, extra or mis-shaped; otherwise print
      the report, and leave what does not fit at its initial value.
    **overrides: fields of T5Config that are not in the checkpoint, such as
      dtype.

  Returns:
    (module, params), for `module.apply({'params': params}, ...)`.
  """
  folder = pathlib.Path(folder)
  files = _minimal(str(folder), _open(folder))
  config = _config(str(folder), files, **overrides)
  module = t5.T5(config)
  params = t5_tensors.assemble(
    str(folder), module, files, NAMING, target, halves=halves, strict=strict
  )
  return module, params


def load_config(folder: str | pathlib.Path, **overrides) -> T5Config:
  """The architecture that a checkpoint's shapes tell."""
  folder = pathlib.Path(folder)
  files = _minimal(str(folder), _open(folder))
  return _config(str(folder), files, **overrides)


def save(
  folder: str | pathlib.Path,
  module: t5.T5,
  params: Mapping[str, Any],
  *,
  layout: str = 'minimal',
) -> None:
  """Writes a checkpoint that T5X restores (without optimizer state)."""
  if layout not in LAYOUTS:
    raise ValueError(f'layout={layout!r} is not one of {LAYOUTS}.')
  t5_tensors.check_plain(module, params)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  specs = {}
  for path, leaf in traverse_util.flatten_dict(dict(params), sep='/').items():
    for name, value in _to_t5x(path, leaf, module.config, layout):
      specs[name] = _write_array(folder, name, value)
  tree = traverse_util.unflatten_dict(specs, sep='/')
  state = {'step': np.int32(0)}
  content = {
    'version': VERSION,
    'optimizer': {'target': tree, 'state': state},
  }
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(content))


def _open(folder: pathlib.Path) -> dict[str, stream.Lazy]:
  """All parameters of a checkpoint, under T5X's names; none of them read."""
  file = folder / 'checkpoint'
  if not file.exists():
    raise ValueError(
      f'{folder} has no file named checkpoint; give the folder of one step, '
      'such as t5_1_1_xl/checkpoint_1000000.'
    )
  try:
    tree = serialization.msgpack_restore(file.read_bytes())
    target = dict(tree['optimizer']['target'])
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'{file} is not a T5X checkpoint ({type(error).__name__}: {error}); '
      'Orbax checkpoints of later T5X versions have to be saved again with '
      'its legacy Checkpointer.'
    ) from error
  leaves = traverse_util.flatten_dict(
    target, sep='/', is_leaf=lambda _, value: 'kvstore' in value
  )
  return {name: _lazy(folder, name, leaf) for name, leaf in leaves.items()}


def _lazy(folder: pathlib.Path, name: str, leaf: Any) -> stream.Lazy:
  if not isinstance(leaf, Mapping):  # T5X may keep an array in the file itself
    return stream.in_memory(np.asarray(leaf))
  # Older writers put the path beside the kvstore; those on Google Cloud name a
  # bucket. The store lies beside the file in any case.
  path = leaf['kvstore'].get('path') or leaf['path']
  store = folder / path
  if not (store / '.zarray').exists():
    raise ValueError(
      f'{store} is missing: the checkpoint says that it holds {name}; copy the '
      'whole folder, with its hidden files.'
    )

  def finished(work: tensorstore.Future) -> Any:
    try:
      return work.result()
    except ValueError as error:
      raise ValueError(
        f'{store}, which holds {name}, cannot be read ({error}); copy it again.'
      ) from error

  spec = {
    'driver': 'zarr',
    'kvstore': {'driver': 'file', 'path': str(store)},
    'fill_missing_data_reads': False,  # else a lost file is read as zeros
  }
  array = finished(tensorstore.open(spec, context=CACHE))
  return stream.Lazy(
    shape=tuple(array.shape),
    dtype=array.dtype.numpy_dtype,
    read=lambda window: finished(array[window].read()),
  )


def _minimal(
  source: str, files: Mapping[str, stream.Lazy]
) -> dict[str, stream.Lazy]:
  """The checkpoint under the minimal layout's names, whichever it has."""
  minimal = {}
  for name, leaf in files.items():
    # `encoder/encoder/...`, or `encoder/layers/...` until July 2022.
    match = re.match(r'(encoder|decoder)/(?:\1|layers)/(.*)', name)
    if not match:
      minimal[name] = leaf
    elif match[2] == BIAS:
      minimal[f'{match[1]}/{BIAS}'] = _shared_bias(source, name, leaf)
    else:
      for i in range(leaf.shape[1]):
        layer = _layer(match[2], leaf, i)
        minimal[f'{match[1]}/layers_{i}/{match[2]}'] = layer
  return minimal


def _layer(name: str, stacked: stream.Lazy, index: int) -> stream.Lazy:
  """One layer of a scalable tensor, as the matrix of the minimal layout."""
  shape = (stacked.shape[0], *stacked.shape[2:])
  if len(shape) == 3:  # heads and their size apart: join them
    out = name.endswith('out/kernel')
    joined = (math.prod(shape[:2]), shape[2])
    shape = joined if out else (shape[0], math.prod(shape[1:]))

  def read(window: stream.Window) -> np.ndarray:
    everything = [slice(0, n) for n in stacked.shape]
    everything[1] = slice(index, index + 1)
    return stacked.read(tuple(everything)).squeeze(1).reshape(shape)[window]

  return stream.Lazy(shape=shape, dtype=stacked.dtype, read=read)


def _shared_bias(source: str, name: str, leaf: stream.Lazy) -> stream.Lazy:
  values = leaf.whole()
  if not (values == values[:, :1]).all():
    raise ValueError(
      f'{source}: {name} differs between its {values.shape[1]} layers, each of '
      'which has a position bias of its own, as in umT5; only T5 can be read, '
      'whose layers share one.'
    )
  return stream.in_memory(np.asarray(values[:, 0]))


def _config(
  source: str, files: Mapping[str, stream.Lazy], **overrides
) -> T5Config:
  """The architecture, which T5X's checkpoints tell only by their shapes."""

  def count(half: str) -> int:
    found = [re.match(rf'{half}/layers_(\d+)/', name) for name in files]
    return 1 + max((int(match[1]) for match in found if match), default=-1)

  # Either half tells all; a folder may hold one only.
  whole = any(name.startswith('encoder/') for name in files)
  half = 'encoder' if whole else 'decoder'
  attention = 'attention' if half == 'encoder' else 'self_attention'
  query = f'{half}/layers_0/{attention}/query/kernel'
  for name in ('token_embedder/embedding', f'{half}/{BIAS}', query):
    if name not in files:
      raise ValueError(
        f'{source} has no {name}, so it is not a T5 encoder-decoder; found '
        f'{len(files)} tensors, such as {next(iter(files), "none")}.'
      )
  vocab_size, width = files['token_embedder/embedding'].shape
  num_heads, num_buckets = files[f'{half}/{BIAS}'].shape
  gated = f'{half}/layers_0/mlp/wi_0/kernel' in files
  up = f'{half}/layers_0/mlp/{"wi_0" if gated else "wi"}/kernel'
  fields = dict(
    vocab_size=vocab_size,
    width=width,
    num_heads=num_heads,
    head_dim=files[query].shape[1] // num_heads,
    mlp_dim=files[up].shape[1],
    num_encoder_layers=count('encoder'),
    num_decoder_layers=count('decoder'),
    mlp='gated-gelu' if gated else 'relu',
    tied_head='decoder/logits_dense/kernel' not in files,
    num_buckets=num_buckets,
  )
  return T5Config(**fields | overrides)


def _names(path: str, num_layers: int) -> list[str]:
  if '/layers/' not in path:
    return [path]
  return [path.replace('/layers/', f'/layers_{i}/') for i in range(num_layers)]


NAMING = t5_tensors.Naming(names=_names)


def _to_t5x(path: str, leaf: jax.Array, config: T5Config, layout: str):
  """Yields the names and arrays that a parameter becomes."""
  half = path.split('/')[0]
  if layout == 'minimal':
    names = _names(path, leaf.shape[0])
    for i, name in enumerate(names):
      yield name, np.asarray(leaf[i] if '/layers/' in path else leaf)
  elif path.endswith(BIAS):
    layers = getattr(config, f'num_{half}_layers')
    value = np.repeat(np.asarray(leaf)[:, None], layers, axis=1)
    yield f'{half}/{half}/{BIAS}', value
  elif '/layers/' in path:
    value = np.moveaxis(np.asarray(leaf), 0, 1)
    heads = (config.num_heads, config.head_dim)
    if re.search(r'attention/(query|key|value)/kernel$', path):
      value = value.reshape(*value.shape[:2], *heads)
    elif re.search(r'attention/out/kernel$', path):
      # (h*k, N, d): the layer axis stands after the heads, not their size.
      value = value.reshape(*heads, *value.shape[1:]).swapaxes(1, 2)
    yield path.replace('/layers/', f'/{half}/'), value
  else:
    yield path, np.asarray(leaf)


def _write_array(folder: pathlib.Path, name: str, value: np.ndarray) -> dict:
  """Writes a zarr store and returns the spec that the checkpoint refers to."""
  path = f'target.{name.replace("/", ".")}/'
  spec = {
    'driver': 'zarr',
    'dtype': value.dtype.name,
    'kvstore': {'driver': 'file', 'path': path},
    'metadata': {
      'chunks': list(value.shape),
      'compressor': {'id': 'gzip', 'level': 1},
      'shape': list(value.shape),
    },
  }
  kvstore = {'driver': 'file', 'path': str(folder / path)}
  tensorstore.open(
    spec | {'kvstore': kvstore}, create=True, delete_existing=True
  ).result().write(value).result()
  return spec
