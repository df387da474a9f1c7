"""Files of weights that others have published, and whether they fit."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file

from kaleido_jax.convert import torch_file

Tensors = Mapping[str, np.ndarray]


def read(
  file: pathlib.Path, convert: Callable[[Tensors], dict[str, Any]], name: str
) -> dict[str, Any]:
  """Parameters by names of ours; `name` is that of the extractor."""
  reading = (
    load_file if file.suffix == '.safetensors' else torch_file.state_dict
  )
  try:
    return convert(reading(file))
  except KeyError as error:
    raise ValueError(f'{file} has no {error}: it is not of {name}.') from error


def check(
  params: Mapping[str, Any],
  network: nn.Module,
  example: jax.Array,
  file: pathlib.Path,
  name: str,
) -> None:
  """Refuses those that the network would not have for such an input."""
  expected = jax.eval_shape(lambda: network.init(jax.random.key(0), example))
  given = traverse_util.flatten_dict(params, sep='/')
  for path, leaf in traverse_util.flatten_dict(
    expected['params'], sep='/'
  ).items():
    if path not in given or given[path].shape != leaf.shape:
      there = list(given[path].shape) if path in given else 'nothing'
      raise ValueError(
        f'{file} has {there} for {path} of {list(leaf.shape)}: it is not of '
        f'{name}.'
      )


def everywhere(params: Any) -> Any:
  """On all devices of this process, which share the pictures."""
  devices = jax.sharding.Mesh(jax.local_devices(), 'rows')
  return jax.device_put(params, jax.sharding.NamedSharding(devices, jax.P()))
