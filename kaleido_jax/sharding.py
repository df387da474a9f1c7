"""Devices: the mesh that a configuration describes, and who holds what.

Three axes. Examples are split over `data` and `fsdp`; parameters, averages and
optimizer moments over `fsdp` by their shape, and over `tensor` by the table
below. Models say what their examples are, and know nothing else of it: `jit`
moves what has to move.
"""

import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ('data', 'fsdp', 'tensor')

# Tensor parallelism (Shoeybi et al., 2019): a matrix whose outputs are split
# (-1), then one whose inputs are (-2), and only their sum travels. A row is a
# pattern of the path's end, and the dimension that `tensor` splits.
T5 = (
  (r'/(query|key|value|wi|wi_0|wi_1|logits_dense)/kernel', -1),
  (r'/(out|wo)/kernel', -2),
  # By token, as T5X does. By width, beside a head that is split by token, jax
  # 0.10 computed gradients on CPU that were 3 % off: `test_state` would see it.
  (r'token_embedder/embedding', -2),
)
UNET = (
  (r'/(qkv|kv_cond|ffn_in|mlp_in)/kernel', -1),
  (r'/(proj_out|ffn_out|mlp_out)/kernel', -2),
)
# What models call the axes of what travels.
NAMES = (('examples', ('data', 'fsdp')), ('tokens', 'tensor'))
TABLES = {'t5': T5, 'unet': UNET, 'nested_unet': UNET, 'mlp': ()}

SMALL = 2**14  # what has fewer elements is not worth a message
LARGE = 2**20  # what has more must not lie on every device in full


def create_mesh(section, devices=None) -> Mesh:
  """The mesh of `config.mesh`: data, fsdp, tensor, and slices of a cluster.

  -1 takes the devices that the other axes leave, fsdp before data. Several
  slices are joined along `data`: only gradients cross the slower network
  between them, so there fsdp=-1 is a whole slice.
  """
  devices = jax.devices() if devices is None else devices
  sizes = {axis: section[axis] for axis in AXES}
  if sizes['fsdp'] == -1:
    data = section['slices'] if sizes['data'] == -1 else sizes['data']
    sizes['fsdp'] = len(devices) // (data * sizes['tensor'])
  if sizes['data'] == -1:
    sizes['data'] = len(devices) // (sizes['fsdp'] * sizes['tensor'])
  text = ' x '.join(f'{axis}={size}' for axis, size in sizes.items())
  if math.prod(sizes.values()) != len(devices) or min(sizes.values()) < 1:
    raise ValueError(
      f'config.mesh asks for {text} devices, but there are {len(devices)}. '
      'Set config.mesh so that the product is right; data=-1 takes the rest.'
    )
  slices = section['slices']
  shape = tuple(sizes.values())
  if slices == 1:
    grid = mesh_utils.create_device_mesh(shape, devices)
  elif sizes['data'] % slices:
    raise ValueError(
      f'config.mesh.slices={slices} does not divide data={sizes["data"]}.'
    )
  else:
    inside = (sizes['data'] // slices, *shape[1:])
    grid = mesh_utils.create_hybrid_device_mesh(inside, (slices, 1, 1), devices)
  return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def over_batch(mesh: Mesh) -> NamedSharding:
  """For arrays whose first axis is the examples."""
  return NamedSharding(mesh, P(('data', 'fsdp')))


def jit(function: Callable, mesh: Mesh, **options) -> Callable:
  """jax.jit, with models that compute every example where it lies."""

  @functools.wraps(function)
  def placed(*args, **named):
    with (
      jax.sharding.use_abstract_mesh(mesh.abstract_mesh),
      nn.logical_axis_rules(NAMES),
    ):
      return function(*args, **named)

  return jax.jit(placed, **options)


def gather_denoiser(params, mesh: Mesh, kind: str):
  """The denoiser's parameters in full everywhere, but for `tensor`.

  A convolution whose kernel is split becomes a sum of parts, each as large as
  the activations of all examples. The T5s are matrices, many times larger, and
  are put together layer by layer.
  """

  def whole(path, leaf):
    axes = spec(f'denoiser/{path_of(path)}', leaf.shape, mesh, kind)
    axes = P(*(axis if axis == 'tensor' else None for axis in axes))
    return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, axes))

  found = jax.tree_util.tree_map_with_path(whole, params['denoiser'])
  return {**params, 'denoiser': found}


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, P())


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
  """Refuses a batch that cannot be split evenly."""
  parts = mesh.shape['data'] * mesh.shape['fsdp'] * accumulate
  if batch_size % parts:
    times = f' x accumulate={accumulate}' if accumulate > 1 else ''
    raise ValueError(
      f'batch_size={batch_size} is not divisible by {parts} (mesh '
      f'data={mesh.shape["data"]} x fsdp={mesh.shape["fsdp"]}{times}); use a '
      f'multiple of {parts}, or change config.mesh.'
    )


def parts(mesh: Mesh) -> tuple[tuple[int, ...], int]:
  """(Which, of how many) equal parts of a batch this process's devices hold.

  Processes that `tensor` joins hold the same ones.
  """
  count = mesh.shape['data'] * mesh.shape['fsdp']
  held = over_batch(mesh).addressable_devices_indices_map((count,))
  mine = sorted({index.indices(count)[0] for (index,) in held.values()})
  # As few as may be: neighbours are one part.
  run = len(mine)
  if mine[0] % run == 0 and mine[-1] - mine[0] == run - 1 and count % run == 0:
    return (mine[0] // run,), count // run
  return tuple(mine), count


def to_devices(arrays: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
  """This process's rows of a batch, as global arrays."""
  sharding = over_batch(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, array)
    for name, array in arrays.items()
  }


def shardings(tree, mesh: Mesh, kind: str):
  """A sharding for every leaf: of parameters, averages or a whole state.

  `kind` is of the denoiser. Paths are matched by their ends, so moments and
  averages lie as their parameters do.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: NamedSharding(
      mesh, spec(path_of(path), leaf.shape, mesh, kind)
    ),
    tree,
  )


def spec(path: str, shape: tuple[int, ...], mesh: Mesh, kind: str) -> P:
  """Where one array is split."""
  axes: list[str | None] = [None] * len(shape)
  tensor, fsdp = mesh.shape['tensor'], mesh.shape['fsdp']
  for pattern, dimension in _table(path, kind):
    if re.search(f'{pattern}$', path):
      if tensor > 1 and shape[dimension] % tensor == 0:
        axes[dimension] = 'tensor'
      break
  if fsdp > 1 and math.prod(shape) >= SMALL:
    # Not the stack of scanned layers: one layer at a time is gathered.
    start = 1 if re.search('/(frozen_)?layers/', path) else 0
    free = [
      d
      for d in range(start, len(shape))
      if axes[d] is None and shape[d] % fsdp == 0
    ]
    if free:
      axes[max(free, key=lambda d: shape[d])] = 'fsdp'
  return P(*axes)


def check(params, mesh: Mesh, kind: str) -> str:
  """A table of who holds what; refuses what would be ignored in silence."""
  leaves = list(_leaves(params))
  used = set()
  for path, leaf in leaves:
    for row, _ in _table(path, kind):
      if re.search(f'{row}$', path):
        used.add((path.partition('/')[0], row))
    found = spec(path, leaf.shape, mesh, kind)
    split = math.prod(mesh.shape[a] for a in found if a is not None)
    if (
      leaf.size >= LARGE
      and split == 1 < mesh.shape['fsdp'] * mesh.shape['tensor']
    ):
      raise ValueError(
        f'{path} {leaf.shape} would lie on every device in full: no dimension '
        f'is divisible by config.mesh.fsdp={mesh.shape["fsdp"]}. Choose a '
        'divisor of its dimensions, or give it a row in sharding.py.'
      )
  for part in params:
    for row, _ in _table(f'{part}/', kind):
      if (part, row) not in used:
        raise ValueError(
          f'the row {row!r} of sharding.py matches nothing in {part}: a '
          'renamed parameter would be replicated in silence. Mend the row.'
        )
  return describe(leaves, mesh, kind)


def describe(leaves, mesh: Mesh, kind: str) -> str:
  """Parts and how they are split, largest first."""
  groups: dict[tuple[str, str], np.ndarray] = {}
  for path, leaf in leaves:
    names = [a for a in spec(path, leaf.shape, mesh, kind) if a is not None]
    key = (path.partition('/')[0], ' x '.join(names) or 'replicated')
    held = leaf.size // math.prod(mesh.shape[axis] for axis in names)
    numbers = np.array([1, leaf.size, held])
    groups[key] = groups.get(key, 0) + numbers
  rows = sorted(groups.items(), key=lambda group: -group[1][1])
  shape = ' x '.join(f'{axis}={n}' for axis, n in mesh.shape.items())
  row = '  {:<10}{:<18}{:>8,}{:>16,}{:>16,}'
  head = row.replace(',', '').format(
    'part', 'split over', 'arrays', 'numbers', 'per device'
  )
  lines = [row.format(*key, *numbers) for key, numbers in rows]
  return '\n'.join([f'sharding on {shape}', head, *lines])


def path_of(path) -> str:
  """A tree path as 'decoder/layers/wi/kernel'."""
  return '/'.join(
    str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key))))
    for key in path
  )


def _leaves(tree) -> Iterator[tuple[str, Any]]:
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    yield path_of(path), leaf


def _table(path: str, kind: str):
  """The rows that hold for a path: T5's, or the denoiser's."""
  return TABLES[kind] if re.search(r'(^|/)denoiser/', path) else TABLES['t5']
