"""A trained model as two files that need no Orbax: config.json, weights.

  folder/config.json            what the run was configured as
  folder/weights.safetensors    averaged parameters by path, decoder/layers/...
  folder/spiece.model           the vocabulary, unless it ships with the package

Written in bfloat16, a quarter of a checkpoint's averages and moments; read back
as float32. What ships in the package as `pretrained:NAME` is such a folder.
"""

import functools
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.flax import save_file

from kaleido_jax import bucket, progress

WEIGHTS, CONFIG = 'weights.safetensors', 'config.json'
VOCABULARY = 'spiece.model'  # where it is no part of this package
PRETRAINED = pathlib.Path(__file__).parent / 'pretrained'


def folder_of(workdir: str) -> str:
  """Where `pretrained:NAME` is; any other workdir is where it says.

  Of gs://BUCKET/NAME an export is fetched, since safetensors reads local files.
  """
  if bucket.is_url(workdir):
    return _fetched(workdir)
  scheme, _, name = workdir.partition(':')
  if scheme != 'pretrained':
    return workdir
  known = sorted(path.parent.name for path in PRETRAINED.glob(f'*/{WEIGHTS}'))
  if name not in known:
    raise FileNotFoundError(
      f'{workdir} does not ship with this version; there '
      f'{"is" if len(known) == 1 else "are"} {", ".join(known) or "none"}.'
    )
  return str(PRETRAINED / name)


@functools.cache
def _fetched(url: str) -> str:
  if not (bucket.at(url) / WEIGHTS).exists():
    return url  # a run, if anything
  return str(bucket.fetch(url, (CONFIG, VOCABULARY, WEIGHTS)))


def home(workdir: str) -> pathlib.Path:
  """Where results go: in a run, unless that is in the package or elsewhere."""
  if not bucket.is_url(workdir) and workdir.partition(':')[0] != 'pretrained':
    return pathlib.Path(workdir)
  return pathlib.Path('runs') / re.sub('[^a-zA-Z0-9]+', '-', workdir)


def is_export(folder: str) -> bool:
  return (pathlib.Path(folder) / WEIGHTS).is_file()


def write(
  folder: str, config: Any, params: Mapping[str, Any], step: int, dtype=None
) -> None:
  """Writes both files; `dtype` None is bfloat16."""
  path = pathlib.Path(folder)
  path.mkdir(parents=True, exist_ok=True)
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  dtype = dtype or jnp.bfloat16
  # Row-major and on the host: safetensors writes memory as it lies.
  arrays = {
    name: jnp.asarray(np.asarray(jax.device_get(leaf)), dtype)
    for name, leaf in flat.items()
  }
  new = path / f'{WEIGHTS}.new'
  save_file(arrays, new, metadata={'step': str(step)})
  # Weights make it an export: they come last.
  progress.replace(path / CONFIG, config.to_json(indent=2) + '\n')
  new.replace(path / WEIGHTS)


def read(folder: str, wanted: Any) -> tuple[dict[str, Any], int]:
  """(parameters, step); each array born in the sharding that `wanted` says."""
  path = pathlib.Path(folder) / WEIGHTS
  wanted = traverse_util.flatten_dict(dict(wanted), sep='/')
  try:
    with safe_open(path, framework='flax') as file:
      there = {name: file.get_slice(name).get_shape() for name in file.keys()}
      _compare(path, there, wanted)
      step = int(file.metadata()['step'])
      found = {
        name: jax.device_put(
          file.get_tensor(name).astype(leaf.dtype), leaf.sharding
        )
        for name, leaf in wanted.items()
      }
  except SafetensorError as error:
    raise ValueError(f'{path} cannot be read: {error}.') from error
  return traverse_util.unflatten_dict(found, sep='/'), step


def _compare(path, there, wanted) -> None:
  different = [
    f'{name} is {there.get(name, "missing")} and not {list(leaf.shape)}'
    for name, leaf in wanted.items()
    if list(there.get(name, ())) != list(leaf.shape) or name not in there
  ]
  if different:
    raise ValueError(
      f'{path} does not fit its {CONFIG}: {"; ".join(different[:4])}.'
    )
