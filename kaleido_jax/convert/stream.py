"""Tensors that stay in their files until a device asks for its part of them.

A T5-XXL is 45 GB. Converters describe where every parameter comes from as a
`Lazy` tensor, and `place` fills the target's shards one by one: at no time is
there more in host memory than the largest shard of one parameter.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from tqdm import tqdm

Window = tuple[slice, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lazy:
  """A tensor in a file: `read` gives the part that a window shows."""

  shape: tuple[int, ...]
  dtype: Any  # as the file names it
  read: Callable[[Window], np.ndarray]

  @property
  def transposed(self) -> 'Lazy':
    return Lazy(
      shape=self.shape[::-1],
      dtype=self.dtype,
      read=lambda window: self.read(window[::-1]).T,
    )

  def whole(self) -> np.ndarray:
    return self.read(tuple(slice(0, n) for n in self.shape))


def in_memory(array: np.ndarray) -> Lazy:
  """An array, or a memory map, as a lazy tensor."""
  return Lazy(shape=array.shape, dtype=array.dtype, read=array.__getitem__)


def stack(parts: Sequence[Lazy]) -> Lazy:
  """Joins the layers of a stack along a new first axis."""

  def read(window: Window) -> np.ndarray:
    layers, inside = window[0], window[1:]
    return np.stack([part.read(inside) for part in parts[layers]])

  first = parts[0]
  return Lazy(shape=(len(parts), *first.shape), dtype=first.dtype, read=read)


def place(leaf: Lazy, target: jax.ShapeDtypeStruct) -> jax.Array:
  """Reads a tensor into the target's sharding and type."""
  sharding = target.sharding or jax.sharding.SingleDeviceSharding(
    jax.devices()[0]
  )

  def read(window: Window) -> np.ndarray:
    window = tuple(
      slice(*part.indices(size)[:2])
      for part, size in zip(window, leaf.shape, strict=True)
    )
    return np.ascontiguousarray(leaf.read(window), target.dtype)

  return jax.make_array_from_callback(leaf.shape, sharding, read)


def place_all(
  leaves: Mapping[str, Lazy], target: Mapping[str, Any], description: str
) -> dict:
  """Fills a tree of abstract arrays; `leaves` has '/'-joined paths."""
  flat = traverse_util.flatten_dict(dict(target), sep='/')
  # disable=None: a bar on a terminal, silence in a log.
  progress = tqdm(
    total=sum(leaf.size for leaf in flat.values()),
    desc=description,
    unit='param',
    unit_scale=True,
    disable=None,
  )
  placed = {}
  with progress:
    for path, abstract in flat.items():
      placed[path] = place(leaves[path], abstract)
      progress.update(abstract.size)
  return traverse_util.unflatten_dict(placed, sep='/')


def check_floating(source: str, name: str, dtype: Any) -> None:
  """Refuses quantised weights, which would load as nonsense."""
  if not (isinstance(dtype, np.dtype) and jnp.issubdtype(dtype, jnp.floating)):
    raise ValueError(
      f'{source}: tensor {name} is {dtype}, where a floating-point type is '
      'needed; take the float32 or bfloat16 weights, not quantised ones.'
    )


def check_target(
  target: Mapping[str, Any], model: Mapping[str, Any], source: str
) -> None:
  """Refuses a target that is not the model which the files describe."""
  wanted = traverse_util.flatten_dict(dict(target), sep='/')
  given = traverse_util.flatten_dict(dict(model), sep='/')
  for path in sorted({*wanted, *given}):
    if path not in wanted or path not in given:
      side = 'the target lacks' if path not in wanted else 'only the target has'
      raise ValueError(
        f'{source}: {side} {path}; build the target with the configuration '
        'that `load_config` reads from the folder.'
      )
    if wanted[path].shape != given[path].shape:
      raise ValueError(
        f'{source}: {path} has shape {given[path].shape} there and '
        f'{wanted[path].shape} in the target; load it as it is and change it '
        'afterwards (a larger vocabulary: adaptation.resize_vocabulary).'
      )
