"""Floating point operations of a training step, from the program itself.

The gradient is traced on shapes alone, and its matrix products and convolutions
are counted; a scanned layer counts as often as it runs. So every model, and
every choice of what is trained, is covered by one rule, where a formula for
each would have to follow the code. XLA's own count sees a scanned layer once.

A multiplication with an addition is two operations. Zeros of padding and
stride are not multiplied. What is recomputed to save memory is not counted
again: these are the operations of the model, not of the machine.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kaleido_jax import objective
from kaleido_jax.models import kaleido

# Dense bfloat16 operations per second of one jax device, by the beginning of
# its kind; from the makers' data sheets. Of two that fit, the longer one holds.
PEAKS = {
  'NVIDIA A100': 312e12,
  'NVIDIA H100': 989e12,  # SXM
  'NVIDIA H100 PCIe': 756e12,
  'NVIDIA H100 NVL': 835e12,
  'NVIDIA H200': 989e12,
  'NVIDIA B200': 2250e12,
  'NVIDIA L4': 121e12,
  'NVIDIA L40S': 362e12,
  'TPU v2': 22.5e12,  # half a chip
  'TPU v3': 61.5e12,  # half a chip
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5e': 197e12,
  'TPU v5': 459e12,  # v5p says so
  'TPU v5p': 459e12,
  'TPU v6 lite': 918e12,
  'TPU v6e': 918e12,
  'TPU7x': 1153.5e12,  # half a chip
}


def peak(device: Any) -> float | None:
  """What a device could do at best, if that is known."""
  kind = device.device_kind
  found = [name for name in PEAKS if f'{kind} '.startswith(f'{name} ')]
  # 'NVIDIA A100-SXM4-80GB': the name ends at a hyphen, too.
  found += [name for name in PEAKS if kind.startswith(f'{name}-')]
  return PEAKS[max(found, key=len)] if found else None


def per_example(config: Any) -> float:
  """Forward and backward of one example, as the configuration trains it."""
  return per_step(config) / config.data.batch_size


def per_step(config: Any) -> int:
  """Forward and backward of one batch."""
  config = _without_remat(config)
  model = kaleido.from_config(config)
  key = jax.random.key(0)
  params = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, config.image_shapes), key
  )
  trained, frozen = kaleido.split(model, params)
  drawn = jax.eval_shape(
    lambda key, batch: objective.draw(config, key, batch),
    key,
    objective.batch_shapes(config),
  )

  def loss(trained, frozen, drawn):
    params = kaleido.join(trained, frozen)
    num_tokens = jnp.float32(1)  # scales the loss, and counts for nothing
    return objective.losses(config, model, params, drawn, num_tokens, 0)[0]

  return count(jax.grad(loss), trained, frozen, drawn)


def count(function: Callable[..., Any], *args: Any) -> int:
  """Operations of matrix products and convolutions; `args` may be shapes."""
  return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name in PRODUCTS:
      total += PRODUCTS[name](equation)
      continue
    inside = [_count(inner) for inner in _jaxprs(equation.params)]
    if name == 'while' and any(inside):
      raise ValueError('a while loop has products, and nobody knows how often.')
    if name == 'cond':
      total += max(inside)
    else:
      total += equation.params.get('length', 1) * sum(inside)
  return total


def _jaxprs(params) -> Iterator[Any]:
  """The programs inside of an equation."""
  for value in params.values():
    for entry in value if isinstance(value, tuple | list) else (value,):
      entry = getattr(entry, 'jaxpr', entry)
      if hasattr(entry, 'eqns'):
        yield entry


def _dot(equation) -> int:
  (contracted, _), _ = equation.params['dimension_numbers']
  left, _ = (v.aval.shape for v in equation.invars)
  out = equation.outvars[0].aval.shape
  return 2 * math.prod(out) * math.prod(left[d] for d in contracted)


def _convolution(equation) -> int:
  p = equation.params
  axes = p['dimension_numbers']
  image, kernel = (v.aval.shape for v in equation.invars)
  out = equation.outvars[0].aval.shape
  total = 2 * out[axes.out_spec[0]] * out[axes.out_spec[1]]
  total *= kernel[axes.rhs_spec[1]]  # channels of one group
  for i, (before, _) in enumerate(p['padding']):
    size = image[axes.lhs_spec[2 + i]]
    spread, apart = p['lhs_dilation'][i], p['rhs_dilation'][i]
    outs = np.arange(out[axes.out_spec[2 + i]]) * p['window_strides'][i]
    taps = np.arange(kernel[axes.rhs_spec[2 + i]]) * apart
    at = outs[:, None] + taps - before
    real = (at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)
    total *= int(real.sum())
  return total


PRODUCTS = {'dot_general': _dot, 'conv_general_dilated': _convolution}


def _without_remat(config: Any) -> Any:
  config = config.copy_and_resolve_references()

  def walk(section):
    for name, value in section.items():
      if hasattr(value, 'items'):
        walk(value)
      elif name == 'remat':
        section[name] = 'none'

  walk(config.model)
  return config
