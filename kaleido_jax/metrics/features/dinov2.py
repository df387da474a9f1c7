"""DINOv2 (Oquab et al., 2023): a vision transformer that saw no labels.

Its weights are not ours to ship: give the path of dinov2_vits14_pretrain.pth,
or of vitb14 or vitl14. What is returned is the class token after the last
normalisation, as studies of generated pictures take it (arXiv:2306.04675).
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from kaleido_jax.arrays import Array
from kaleido_jax.metrics.features import resizing

SIZE, PATCH, HEAD_DIM = 224, 14, 64
RESIZE = 'bicubic, antialiased, to 224'
PUBLIC, DISTANCES = '', {'features': 'frechet'}
EPSILON = 1e-6
OFFSET = 0.1  # their grid of positions is stretched by so much of a patch
WEIGHTS = (
  'https://dl.fbaipublicfiles.com/dinov2/dinov2_vitb14/'
  'dinov2_vitb14_pretrain.pth'
)


class Block(nn.Module):
  """Attention and a wide layer; what each adds is scaled by channel."""

  width: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b n d']:
    b, n, d = x.shape
    h = nn.LayerNorm(EPSILON, name='norm1')(x)
    qkv = nn.Dense(3 * d, name='qkv')(h).reshape(b, n, 3, -1, HEAD_DIM)
    h = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0))
    h = nn.Dense(d, name='proj')(h.reshape(b, n, d))
    x += h * self.param('ls1', nn.initializers.ones, (d,))
    h = nn.Dense(self.width, name='fc1')(nn.LayerNorm(EPSILON, name='norm2')(x))
    h = nn.Dense(d, name='fc2')(nn.gelu(h, approximate=False))
    return x + h * self.param('ls2', nn.initializers.ones, (d,))


class DinoV2(nn.Module):
  """Of pictures of SIZE, normalised as ImageNet's."""

  channels: int
  depth: int

  @nn.compact
  def __call__(self, x: Float[Array, 'b h w 3']) -> dict[str, Array]:
    patch, d = (PATCH, PATCH), self.channels
    x = nn.Conv(d, patch, patch, 'VALID', name='patches')(x)
    x = x.reshape(x.shape[0], -1, d)
    first = self.param('first', nn.initializers.zeros, (d,))
    first = jnp.broadcast_to(first, (len(x), 1, d))
    x = jnp.concatenate([first, x], axis=1)
    x += self.param('places', nn.initializers.zeros, x.shape[1:])
    for number in range(self.depth):
      x = Block(4 * d, name=f'blocks_{number}')(x)
    x = nn.LayerNorm(EPSILON, name='norm')(x[:, 0])
    return {'features': x}


def network(params: Mapping[str, Any]) -> DinoV2:
  """As wide and as deep as the weights."""
  depth = sum(name.startswith('blocks_') for name in params)
  return DinoV2(len(params['first']), depth)


def prepare(images: UInt8[Array, 'b h w 3']) -> Float[Array, 'b _ _ 3']:
  return resizing.as_imagenet(resizing.resized(images, SIZE, 'bicubic'))


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Weights as they are published, by names of ours."""

  def dense(name: str) -> dict[str, np.ndarray]:
    return {
      'kernel': tensors[f'{name}.weight'].T,
      'bias': tensors[f'{name}.bias'],
    }

  def norm(name: str) -> dict[str, np.ndarray]:
    return {'scale': tensors[f'{name}.weight'], 'bias': tensors[f'{name}.bias']}

  places = tensors['pos_embed'][0]
  grid = resized(places[1:], SIZE // PATCH)
  params = {
    'patches': {
      'kernel': tensors['patch_embed.proj.weight'].transpose(2, 3, 1, 0),
      'bias': tensors['patch_embed.proj.bias'],
    },
    'first': tensors['cls_token'][0, 0],
    'places': np.concatenate([places[:1], grid]),
    'norm': norm('norm'),
  }
  numbers = {
    int(n) for n in re.findall(r'\bblocks\.(\d+)\.', ' '.join(tensors))
  }
  for number in sorted(numbers):
    at = f'blocks.{number}'
    params[f'blocks_{number}'] = {
      'norm1': norm(f'{at}.norm1'),
      'norm2': norm(f'{at}.norm2'),
      'qkv': dense(f'{at}.attn.qkv'),
      'proj': dense(f'{at}.attn.proj'),
      'fc1': dense(f'{at}.mlp.fc1'),
      'fc2': dense(f'{at}.mlp.fc2'),
      'ls1': tensors[f'{at}.ls1.gamma'],
      'ls2': tensors[f'{at}.ls2.gamma'],
    }
  return jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def resized(
  places: Float[np.ndarray, 'old2 d'], new: int
) -> Float[np.ndarray, 'new2 d']:
  """A grid of positions at another size, by PyTorch's cubic curves."""
  old = math.isqrt(len(places))
  if old == new:
    return places
  weights = _cubic(old, new, (new + OFFSET) / old)
  grid = places.reshape(old, old, -1)
  found = np.einsum('io,jp,opd->ijd', weights, weights, grid)
  return found.reshape(new * new, -1)


def _cubic(old: int, new: int, scale: float) -> Float[np.ndarray, 'new old']:
  """Each new place as a sum of the four next to it, those at the edge again."""
  found = np.zeros((new, old))
  for row in range(new):
    at = (row + 0.5) / scale - 0.5
    for place in range(math.floor(at) - 1, math.floor(at) + 3):
      found[row, min(max(place, 0), old - 1)] += _weight(abs(at - place))
  return found


def _weight(x: float, a: float = -0.75) -> float:
  """Keys (1981), with PyTorch's a."""
  if x <= 1:
    return (a + 2) * x**3 - (a + 3) * x**2 + 1
  return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0
