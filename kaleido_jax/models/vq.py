"""A small image tokenizer: 16 visual tokens for a picture (van den Oord, 2017).

  picture -> 32 x 32 -> 16 patches of 8 x 8 -> mixer -> nearest of 512 codes
  codes -> mixer -> patches -> 32 x 32

Mixers (Tolstikhin et al., 2021) let every token see the whole picture. All of
it is matrix products, written so that numpy runs them as well as jax: data
workers measure vokens without asking for a device.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from kaleido_jax.arrays import Array
from kaleido_jax.latents import areas

SIZE, PATCH = 32, 8
TOKENS = (SIZE // PATCH) ** 2
CODES, CODE_WIDTH = 512, 16
WIDTH, BLOCKS = 192, 3
EMBEDDED = pathlib.Path(__file__).parent / 'vokens.npz'

Params = Mapping[str, Any]


def init(seed: int) -> dict[str, Any]:
  """Parameters to start from."""
  rng = np.random.default_rng(seed)

  def linear(inside, outside):
    scale = inside**-0.5
    return {
      'w': rng.normal(0, scale, (inside, outside)).astype(np.float32),
      'b': np.zeros(outside, np.float32),
    }

  def mixer(inside, outside):
    blocks = [
      {
        'tokens': [linear(TOKENS, 2 * TOKENS), linear(2 * TOKENS, TOKENS)],
        'channels': [linear(WIDTH, 2 * WIDTH), linear(2 * WIDTH, WIDTH)],
      }
      for _ in range(BLOCKS)
    ]
    place = rng.normal(0, 0.02, (TOKENS, WIDTH)).astype(np.float32)
    return {
      'first': linear(inside, WIDTH),
      'place': place,
      'blocks': blocks,
      'last': linear(WIDTH, outside),
    }

  patch = PATCH**2 * 3
  return {
    'encoder': mixer(patch, CODE_WIDTH),
    'codes': rng.normal(0, 1, (CODES, CODE_WIDTH)).astype(np.float32),
    'decoder': mixer(CODE_WIDTH, patch),
  }


def features(
  params: Params, images: Float[Array, 'b 32 32 3']
) -> Float[Array, 'b 16 d']:
  """What is then rounded to a code; of unit length times sqrt(d)."""
  return _norm(_mix(params['encoder'], patches(images)))


def nearest(params: Params, found: Float[Array, 'b n d']) -> Int[Array, 'b n']:
  """The closest code of every token."""
  codes = params['codes']
  # |f - c|^2 without |f|^2, which is the same for all codes.
  return ((codes**2).sum(-1) - 2 * found @ codes.T).argmin(-1)


def decode(
  params: Params, codes: Float[Array, 'b 16 d']
) -> Float[Array, 'b 32 32 3']:
  """The picture of some codes, on -1..1."""
  return joined(_mix(params['decoder'], codes))


def patches(
  images: Float[Array, 'b 32 32 3'],
) -> Float[Array, 'b 16 192']:
  """Squares of 8 x 8, row by row."""
  grid = SIZE // PATCH
  split = images.reshape(-1, grid, PATCH, grid, PATCH, 3).swapaxes(2, 3)
  return split.reshape(-1, TOKENS, PATCH**2 * 3)


def joined(found: Float[Array, 'b 16 192']) -> Float[Array, 'b 32 32 3']:
  """Undoes `patches`."""
  grid = SIZE // PATCH
  split = found.reshape(-1, grid, grid, PATCH, PATCH, 3).swapaxes(2, 3)
  return split.reshape(-1, SIZE, SIZE, 3)


def shrink(image: UInt8[np.ndarray, 'h w 3']) -> Float[np.ndarray, '32 32 3']:
  """A picture as the tokenizer sees it, on -1..1."""
  return areas.average(image, SIZE) / np.float32(127.5) - 1


def of(image: UInt8[np.ndarray, 'h w 3']) -> tuple[int, ...]:
  """The vokens of a picture, by the tokenizer in this package."""
  params = embedded()
  found = features(params, shrink(image)[None])
  return tuple(nearest(params, found)[0].tolist())


def picture(vokens: tuple[int, ...]) -> UInt8[np.ndarray, '32 32 3']:
  """What vokens look like."""
  if len(vokens) != TOKENS or not all(0 <= i < CODES for i in vokens):
    raise ValueError(
      f'a picture has {TOKENS} vokens of 0..{CODES - 1}, not {vokens}.'
    )
  params = embedded()
  x = decode(params, params['codes'][None, list(vokens)])[0]
  return np.clip(x * 127.5 + 128, 0, 255).astype(np.uint8)


@functools.cache
def embedded() -> dict[str, Any]:
  """The parameters in this package, trained by `data.train_vokens`."""
  return load(EMBEDDED)


def save(path: str | pathlib.Path, params: Params) -> None:
  """Half precision: the codes of a picture hardly ever differ by it."""
  leaves = {
    name: np.asarray(leaf, np.float16) for name, leaf in _flat(params).items()
  }
  np.savez_compressed(path, **leaves)


def load(path: str | pathlib.Path) -> dict[str, Any]:
  with np.load(path) as leaves:
    flat = {name: leaves[name].astype(np.float32) for name in leaves.files}
  return _filled(init(0), flat, '')


def _flat(tree, path: str = '') -> dict[str, Any]:
  if not isinstance(tree, dict | list):
    return {path: tree}
  pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
  found = {}
  for name, branch in pairs:
    found |= _flat(branch, f'{path}/{name}')
  return found


def _filled(tree, flat: Mapping[str, Any], path: str):
  if isinstance(tree, dict):
    return {k: _filled(v, flat, f'{path}/{k}') for k, v in tree.items()}
  if isinstance(tree, list):
    return [_filled(v, flat, f'{path}/{k}') for k, v in enumerate(tree)]
  return flat[path]


def _mix(params, x):
  x = _linear(params['first'], x) + params['place']
  for block in params['blocks']:
    x = x + _mlp(block['tokens'], _norm(x).swapaxes(1, 2)).swapaxes(1, 2)
    x = x + _mlp(block['channels'], _norm(x))
  return _linear(params['last'], _norm(x))


def _linear(params, x):
  return x @ params['w'] + params['b']


def _mlp(layers, x):
  hidden = _linear(layers[0], x)
  return _linear(layers[1], hidden * (hidden > 0))


def _norm(x):
  return x / ((x**2).mean(-1, keepdims=True) + 1e-6) ** 0.5
