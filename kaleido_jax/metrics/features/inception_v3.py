"""Inception-v3 as TensorFlow published it in 2015: what FID is made of.

Its weights are not ours to ship: give the path of the public PyTorch port,
pt_inception-2015-12-05-6726825d.pth (or torch-fidelity's
weights-inception-2015-12-05-6726825d.pth, the same). Pictures are resized as
TensorFlow 1 did it, whose corners lie elsewhere than anybody else's; averages
leave the padding out; the last block takes a maximum where the paper averages.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from kaleido_jax.arrays import Array

SIZE = 299
RESIZE = 'bilinear as in TensorFlow 1, to 299'
EPSILON = 1e-3  # of the normalisations
PUBLIC, DISTANCES = '6726825d', {'features': 'fid', 'spatial': 'sfid'}
SPATIAL = 7  # channels that sFID takes of one map
WEIGHTS = (
  'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/'
  'weights-inception-2015-12-05-6726825d.pth'
)

average = partial(
  nn.avg_pool, window_shape=(3, 3), padding='SAME', count_include_pad=False
)
shrink = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))


class Conv(nn.Module):
  """A convolution, normalised by what training has seen."""

  channels: int
  kernel: tuple[int, int] = (1, 1)
  stride: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(
      *(self.channels, self.kernel, self.stride, self.padding),
      use_bias=False,
      name='conv',
    )(x)
    scale = self.param('scale', nn.initializers.ones, (self.channels,))
    bias = self.param('bias', nn.initializers.zeros, (self.channels,))
    return nn.relu(x * scale + bias)


def _in_a_row(x, *convs):
  for conv in convs:
    x = conv(x)
  return x


class BlockA(nn.Module):
  """35 x 35."""

  pooled: int

  @nn.compact
  def __call__(self, x):
    one = Conv(64, name='branch1x1')(x)
    five = _in_a_row(
      x,
      Conv(48, name='branch5x5_1'),
      Conv(64, (5, 5), name='branch5x5_2'),
    )
    three = _in_a_row(
      x,
      Conv(64, name='branch3x3dbl_1'),
      Conv(96, (3, 3), name='branch3x3dbl_2'),
      Conv(96, (3, 3), name='branch3x3dbl_3'),
    )
    pool = Conv(self.pooled, name='branch_pool')(average(x))
    return jnp.concatenate([one, five, three, pool], -1)


class BlockB(nn.Module):
  """From 35 x 35 to 17 x 17."""

  @nn.compact
  def __call__(self, x):
    three = Conv(384, (3, 3), 2, 'VALID', name='branch3x3')(x)
    twice = _in_a_row(
      x,
      Conv(64, name='branch3x3dbl_1'),
      Conv(96, (3, 3), name='branch3x3dbl_2'),
      Conv(96, (3, 3), 2, 'VALID', name='branch3x3dbl_3'),
    )
    return jnp.concatenate([three, twice, shrink(x)], -1)


class BlockC(nn.Module):
  """17 x 17; also returns what its first branch gives."""

  inside: int

  @nn.compact
  def __call__(self, x):
    c = self.inside
    one = Conv(192, name='branch1x1')(x)
    seven = _in_a_row(
      x,
      Conv(c, name='branch7x7_1'),
      Conv(c, (1, 7), name='branch7x7_2'),
      Conv(192, (7, 1), name='branch7x7_3'),
    )
    twice = _in_a_row(
      x,
      Conv(c, name='branch7x7dbl_1'),
      Conv(c, (7, 1), name='branch7x7dbl_2'),
      Conv(c, (1, 7), name='branch7x7dbl_3'),
      Conv(c, (7, 1), name='branch7x7dbl_4'),
      Conv(192, (1, 7), name='branch7x7dbl_5'),
    )
    pool = Conv(192, name='branch_pool')(average(x))
    return jnp.concatenate([one, seven, twice, pool], -1), one


class BlockD(nn.Module):
  """From 17 x 17 to 8 x 8."""

  @nn.compact
  def __call__(self, x):
    three = _in_a_row(
      x,
      Conv(192, name='branch3x3_1'),
      Conv(320, (3, 3), 2, 'VALID', name='branch3x3_2'),
    )
    seven = _in_a_row(
      x,
      Conv(192, name='branch7x7x3_1'),
      Conv(192, (1, 7), name='branch7x7x3_2'),
      Conv(192, (7, 1), name='branch7x7x3_3'),
      Conv(192, (3, 3), 2, 'VALID', name='branch7x7x3_4'),
    )
    return jnp.concatenate([three, seven, shrink(x)], -1)


class BlockE(nn.Module):
  """8 x 8."""

  takes_maximum: bool

  @nn.compact
  def __call__(self, x):
    one = Conv(320, name='branch1x1')(x)
    three = Conv(384, name='branch3x3_1')(x)
    twice = _in_a_row(
      x,
      Conv(448, name='branch3x3dbl_1'),
      Conv(384, (3, 3), name='branch3x3dbl_2'),
    )
    if self.takes_maximum:
      pool = nn.max_pool(x, (3, 3), padding='SAME')
    else:
      pool = average(x)
    return jnp.concatenate(
      [
        one,
        Conv(384, (1, 3), name='branch3x3_2a')(three),
        Conv(384, (3, 1), name='branch3x3_2b')(three),
        Conv(384, (1, 3), name='branch3x3dbl_3a')(twice),
        Conv(384, (3, 1), name='branch3x3dbl_3b')(twice),
        Conv(192, name='branch_pool')(pool),
      ],
      -1,
    )


class InceptionV3(nn.Module):
  """pool3, logits without their bias, and the map that sFID takes."""

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w 3']) -> dict[str, Array]:
    x = Conv(32, (3, 3), 2, 'VALID', name='Conv2d_1a_3x3')(x)
    x = Conv(32, (3, 3), 1, 'VALID', name='Conv2d_2a_3x3')(x)
    x = shrink(Conv(64, (3, 3), name='Conv2d_2b_3x3')(x))
    x = Conv(80, name='Conv2d_3b_1x1')(x)
    x = shrink(Conv(192, (3, 3), 1, 'VALID', name='Conv2d_4a_3x3')(x))
    for letter, pooled in zip('bcd', (32, 64, 64), strict=True):
      x = BlockA(pooled, name=f'Mixed_5{letter}')(x)
    x = BlockB(name='Mixed_6a')(x)
    for letter, inside in zip('bcde', (128, 160, 160, 192), strict=True):
      x, one = BlockC(inside, name=f'Mixed_6{letter}')(x)
      if letter == 'd':  # TensorFlow's mixed_6/conv
        spatial = one[..., :SPATIAL].reshape(one.shape[0], -1)
    x = BlockD(name='Mixed_7a')(x)
    x = BlockE(False, name='Mixed_7b')(x)
    x = BlockE(True, name='Mixed_7c')(x)
    features = x.mean((1, 2))
    logits = nn.Dense(1008, use_bias=False, name='fc')(features)
    return {'features': features, 'logits': logits, 'spatial': spatial}


def network(params: Mapping[str, Any]) -> InceptionV3:
  """There is but one."""
  del params
  return InceptionV3()


def prepare(images: UInt8[Array, 'b h w 3']) -> Float[Array, 'b _ _ 3']:
  return (resize(images.astype(jnp.float32)) - 128) / 128


def resize(x: Float[Array, 'b h w c']) -> Float[Array, 'b _ _ c']:
  """Bilinear; pixel i of the result lies at i * old / new of the old one."""
  for axis in (1, 2):
    old = x.shape[axis]
    at = np.arange(SIZE, dtype=np.float32) * np.float32(old / SIZE)
    low = at.astype(np.int32)
    share = (at - low).reshape((-1, 1, 1) if axis == 1 else (-1, 1))
    high = np.minimum(low + 1, old - 1)
    x = jnp.take(x, low, axis) * (1 - share) + jnp.take(x, high, axis) * share
  return x


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Weights of the PyTorch port, by the same names."""
  params: dict[str, Any] = {
    'fc': {'kernel': np.asarray(tensors['fc.weight'], np.float32).T}
  }
  for name, kernel in tensors.items():
    if not name.endswith('.conv.weight'):
      continue
    path = name.removesuffix('.conv.weight')
    scale, bias, mean, variance = (
      np.asarray(tensors[f'{path}.bn.{part}'], np.float64)
      for part in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scale = scale / np.sqrt(variance + EPSILON)
    where = params
    for part in path.split('.'):
      where = where.setdefault(part, {})
    where |= {
      'conv': {'kernel': np.asarray(kernel, np.float32).transpose(2, 3, 1, 0)},
      'scale': scale.astype(np.float32),
      'bias': (bias - mean * scale).astype(np.float32),
    }
  return params
