"""Changing a trained T5: a larger vocabulary, or training only a part of it.

The paper names memory as its limit: a T5-XL decoder with Adam and EMA takes 33
GB. Two ways around it, as fields of T5Config: `frozen_layers` holds the first
decoder layers fixed, so that nothing is kept or computed for their gradients;
`lora_rank` adds a low-rank update to each kernel above them and trains that
alone. `adapt` brings plain parameters into such a form, `restore` back.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from kaleido_jax.arrays import Array
from kaleido_jax.models.t5_layers import T5Config

UPDATES = ('lora_down', 'lora_up')


def resize_vocabulary(
  config: T5Config, params: Mapping[str, Any], size: int, key: Array
) -> tuple[T5Config, dict]:
  """Adds rows for new tokens to the embedding and columns to the head.

  Old rows are kept. A new one is drawn from a normal distribution that has, in
  every dimension, the mean and the standard deviation of the old rows: so new
  tokens look like typical old ones, to the layers and to the softmax, yet all
  differ. (Zeros or a tight cluster would make them dominate or never appear.)
  """
  if size < config.vocab_size:
    raise ValueError(
      f'the vocabulary has {config.vocab_size} tokens and cannot shrink to '
      f'{size}: rows that are in use would be lost.'
    )
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  tables = {'token_embedder/embedding': 0, 'decoder/logits_dense/kernel': 1}
  for i, (path, axis) in enumerate(tables.items()):
    if path in flat:
      flat[path] = _extend(jax.random.fold_in(key, i), flat[path], size, axis)
  params = traverse_util.unflatten_dict(flat, sep='/')
  return dataclasses.replace(config, vocab_size=size), params


def _extend(key: Array, table: Array, size: int, axis: int) -> Array:
  rows = jnp.moveaxis(table, axis, 0)
  mean, spread = rows.mean(0), rows.std(0)
  shape = (size - rows.shape[0], rows.shape[1])
  new = mean + spread * jax.random.normal(key, shape, table.dtype)
  return jnp.moveaxis(jnp.concatenate([rows, new]), 0, axis)


def adapt(
  config: T5Config,
  params: Mapping[str, Any],
  key: Array,
  *,
  frozen_layers: int = 0,
  lora_rank: int = 0,
) -> tuple[T5Config, dict]:
  """Splits the decoder's layers and adds low-rank updates, which start at 0."""
  _check(config, frozen_layers=0, lora_rank=0)
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  adapted = {}
  for i, (path, leaf) in enumerate(sorted(flat.items())):
    if not path.startswith('decoder/layers/'):
      adapted[path] = leaf
      continue
    if frozen_layers:
      below = path.replace('/layers/', '/frozen_layers/')
      adapted[below] = leaf[:frozen_layers]
    if frozen_layers == config.num_decoder_layers:
      continue
    adapted[path] = leaf = leaf[frozen_layers:]
    if lora_rank and path.endswith('/kernel'):
      layers, rows, columns = leaf.shape
      down, up = (path.replace('kernel', update) for update in UPDATES)
      shape = (layers, rows, lora_rank)
      adapted[down] = rows**-0.5 * jax.random.normal(
        jax.random.fold_in(key, i), shape
      )
      adapted[up] = jnp.zeros((layers, lora_rank, columns))
  config = dataclasses.replace(
    config, frozen_layers=frozen_layers, lora_rank=lora_rank
  )
  return config, traverse_util.unflatten_dict(adapted, sep='/')


def restore(
  config: T5Config, params: Mapping[str, Any]
) -> tuple[T5Config, dict]:
  """Joins split layers and adds the updates to their kernels."""
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  plain = {}
  for path, leaf in flat.items():
    if path.endswith(UPDATES) or '/frozen_layers/' in path:
      continue
    down, up = (path.replace('kernel', update) for update in UPDATES)
    if path.endswith('/kernel') and down in flat:
      leaf = leaf + flat[down] @ flat[up]
    plain[path] = leaf
  for path, leaf in flat.items():
    if '/frozen_layers/' in path:
      above = path.replace('/frozen_layers/', '/layers/')
      rest = [plain[above]] if above in plain else []
      plain[above] = jnp.concatenate([leaf, *rest])
  config = dataclasses.replace(config, frozen_layers=0, lora_rank=0)
  return config, traverse_util.unflatten_dict(plain, sep='/')


def _check(config: T5Config, **wanted: int) -> None:
  given = {name: getattr(config, name) for name in wanted}
  if given != wanted:
    raise ValueError(
      f'the parameters are adapted already ({given}); call restore first.'
    )
