"""How a T5's parameters are made of another format's tensors.

Formats differ in names and in whether matrices are transposed; what they share
is here: which tensors there must be, and how layers are stacked.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from kaleido_jax.convert import report as reports
from kaleido_jax.convert import stream
from kaleido_jax.models import t5

HALVES = ('encoder', 'decoder')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Naming:
  """What a format calls its tensors."""

  # (our path, number of layers) -> one name, or one per layer.
  names: Callable[[str, int], list[str]]
  transposed: Callable[[str], bool] = lambda path: False
  unused: re.Pattern = re.compile('(?!)')  # stored, and read by none

  def tensors(self, params: Mapping[str, Any]):
    """Yields (name, our path, layer) for every tensor of a model."""
    for path, leaf in traverse_util.flatten_dict(dict(params), sep='/').items():
      for layer, name in enumerate(self.names(path, leaf.shape[0])):
        yield name, path, layer

  def shapes(self, model: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a model is made of."""
    flat = traverse_util.flatten_dict(dict(model), sep='/')
    shapes = {}
    for name, path, _ in self.tensors(model):
      shape = flat[path].shape[1 if _is_stacked(path) else 0 :]
      shapes[name] = shape[::-1] if self.transposed(path) else shape
    return shapes

  def leaf(
    self, path: str, num_layers: int, files: Mapping[str, stream.Lazy]
  ) -> stream.Lazy:
    """One of our parameters, from its tensors."""
    parts = [files[name] for name in self.names(path, num_layers)]
    if self.transposed(path):
      parts = [part.transposed for part in parts]
    return stream.stack(parts) if _is_stacked(path) else parts[0]

  def array(self, path: str, leaf: jax.Array, layer: int) -> np.ndarray:
    """The way back: one of the format's tensors, from our parameter."""
    value = np.asarray(leaf[layer] if _is_stacked(path) else leaf)
    return np.ascontiguousarray(value.T) if self.transposed(path) else value


def assemble(
  source: str,
  module: t5.T5,
  files: Mapping[str, stream.Lazy],
  naming: Naming,
  target: Mapping[str, Any] | None,
  *,
  halves: tuple[str, ...],
  strict: bool,
) -> dict:
  """Compares the files with the model, then reads them into the target."""
  if not halves or set(halves) - set(HALVES):
    raise ValueError(f'halves={halves} is not made of {HALVES}.')
  model = t5.abstract_params(module, halves)
  wanted = naming.shapes(model)
  whole = naming.shapes(t5.abstract_params(module))
  found = {
    name: leaf.shape
    for name, leaf in files.items()
    if name in wanted or not (name in whole or naming.unused.fullmatch(name))
  }
  report = reports.compare(source, wanted, found).check(strict=strict)
  for name in wanted:
    if name in files:
      stream.check_floating(source, name, files[name].dtype)
  target = model if target is None else target
  stream.check_target(target, model, source)
  if not report.clean:
    print(report)
    files = _with_initial(module, files, naming, report, halves)
  leaves = {
    path: naming.leaf(path, leaf.shape[0], files)
    for path, leaf in traverse_util.flatten_dict(model, sep='/').items()
  }
  return stream.place_all(leaves, target, f'reading {source}')


def check_plain(module: t5.T5, params: Mapping[str, Any]) -> None:
  """Refuses to save what no other program would understand."""
  config = module.config
  if config.frozen_layers or config.lora_rank:
    raise ValueError(
      f'frozen_layers={config.frozen_layers} and lora_rank={config.lora_rank} '
      'exist only while training; join them to plain weights first, with '
      'adaptation.restore.'
    )
  halves = tuple(half for half in HALVES if half in params)
  wanted = traverse_util.flatten_dict(
    t5.abstract_params(module, halves), sep='/'
  )
  given = traverse_util.flatten_dict(dict(params), sep='/')
  reports.compare(
    'the parameters',
    {path: leaf.shape for path, leaf in wanted.items()},
    {path: leaf.shape for path, leaf in given.items()},
  ).check(strict=True)


def _is_stacked(path: str) -> bool:
  return '/layers/' in path


def _with_initial(module, files, naming: Naming, report, halves):
  """Puts initial values where the files have nothing that fits."""
  unfit = {*report.missing, *(name for name, *_ in report.mismatched)}
  initial = jax.jit(lambda key: t5.init_params(module, key, halves))(
    jax.random.key(0)
  )
  flat = traverse_util.flatten_dict(initial, sep='/')
  return dict(files) | {
    name: stream.in_memory(naming.array(path, flat[path], layer))
    for name, path, layer in naming.tensors(initial)
    if name in unfit
  }
