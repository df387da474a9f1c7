"""CLIP (Radford et al., 2021): sees pictures, and reads what they should show.

Its weights are not ours to ship: give the path of model.safetensors (or of
pytorch_model.bin) in a folder of Hugging Face, where config.json and
tokenizer.json lie beside it. The latter needs `pip install tokenizers`.
"""

import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from kaleido_jax.arrays import Array
from kaleido_jax.metrics.features import resizing, weights

NAME = 'clip'
RESIZE = 'bicubic, antialiased, to its own size'
PUBLIC, DISTANCES = '', {'features': 'frechet'}
WEIGHTS = 'https://huggingface.co/openai/clip-vit-base-patch32'
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of its pictures
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
ROWS = 32  # captions that are read together
HEADS = {'vision': 12, 'text': 8}
ACTIVATIONS = {
  'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
}


class Tower(nn.Module):
  """Blocks of attention and a wide layer, the same for pictures and words."""

  depth: int
  width: int  # of the wide layer
  heads: int
  activation: str
  epsilon: float

  @nn.compact
  def __call__(
    self, x: Float[Array, 'b n d'], mask: Bool[Array, '...'] | None = None
  ) -> Float[Array, 'b n d']:
    b, n, d = x.shape
    for number in range(self.depth):
      at = f'layers_{number}'
      h = nn.LayerNorm(self.epsilon, name=f'{at}_layer_norm1')(x)
      q, k, v = (
        nn.Dense(d, name=f'{at}_{name}_proj')(h).reshape(b, n, self.heads, -1)
        for name in 'qkv'
      )
      h = jax.nn.dot_product_attention(q, k, v, mask=mask).reshape(b, n, d)
      x += nn.Dense(d, name=f'{at}_out_proj')(h)
      h = nn.LayerNorm(self.epsilon, name=f'{at}_layer_norm2')(x)
      h = nn.Dense(self.width, name=f'{at}_fc1')(h)
      h = ACTIVATIONS[self.activation](h)
      x += nn.Dense(d, name=f'{at}_fc2')(h)
    return x


class Vision(nn.Module):
  """Of pictures of any size."""

  patch: int
  side: int  # in patches
  channels: int
  shared: int  # width of what pictures and words have in common
  tower: Tower

  @nn.compact
  def __call__(self, images: UInt8[Array, 'b h w 3']) -> dict[str, Array]:
    x = resizing.resized(images, self.side * self.patch, 'bicubic')
    x = (x / 255 - jnp.array(MEAN)) / jnp.array(DEVIATION)
    patch = (self.patch, self.patch)
    x = nn.Conv(
      *(self.channels, patch, patch, 'VALID'), use_bias=False, name='patches'
    )(x)
    x = x.reshape(len(x), -1, self.channels)
    first = self.param('first', nn.initializers.zeros, (self.channels,))
    first = jnp.broadcast_to(first, (len(x), 1, self.channels))
    x = jnp.concatenate([first, x], axis=1)
    x += self.param('places', nn.initializers.zeros, x.shape[1:])
    x = self.tower(nn.LayerNorm(self.tower.epsilon, name='before')(x))
    x = nn.LayerNorm(self.tower.epsilon, name='after')(x[:, 0])
    x = nn.Dense(self.shared, use_bias=False, name='projection')(x)
    return {'features': x}


class Text(nn.Module):
  """Of ids that end with the largest of them, whatever comes behind."""

  vocabulary: int
  length: int
  channels: int
  shared: int
  tower: Tower

  @nn.compact
  def __call__(self, ids: Int[Array, 'b n']) -> Float[Array, 'b shared']:
    x = nn.Embed(self.vocabulary, self.channels, name='words')(ids)
    x += self.param(
      'places', nn.initializers.zeros, (self.length, self.channels)
    )
    earlier = jnp.tri(self.length, dtype=bool)[None, None]
    x = nn.LayerNorm(self.tower.epsilon, name='after')(self.tower(x, earlier))
    x = x[jnp.arange(len(x)), ids.argmax(1)]
    return nn.Dense(self.shared, use_bias=False, name='projection')(x)


def load(
  file: pathlib.Path,
) -> tuple[Any, Callable[[Any, Any], dict[str, Array]]]:
  """What sees: parameters, on all devices, and what is done with them."""
  params = weights.read(file, vision, NAME)
  patch, _, _, channels = params['patches']['kernel'].shape
  network = Vision(
    patch=patch,
    side=math.isqrt(len(params['places']) - 1),
    channels=channels,
    shared=params['projection']['kernel'].shape[1],
    tower=_tower(params, file, 'vision'),
  )
  weights.check(params, network, jnp.zeros((1, 8, 8, 3), 'uint8'), file, NAME)

  @jax.jit
  def apply(params, images: UInt8[Any, 'b h w 3']):
    return network.apply({'params': params}, images)

  return weights.everywhere(params), apply


def reader(
  file: pathlib.Path,
) -> Callable[[Sequence[str]], Float[np.ndarray, 'n shared']]:
  """What reads: features of captions, in the space of those of pictures."""
  params = weights.read(file, text, NAME)
  length, channels = params['places'].shape
  network = Text(
    vocabulary=len(params['words']['embedding']),
    length=length,
    channels=channels,
    shared=params['projection']['kernel'].shape[1],
    tower=_tower(params, file, 'text'),
  )
  weights.check(params, network, jnp.zeros((1, length), int), file, NAME)
  tokenizer = _tokenizer(file.with_name('tokenizer.json'), length)
  apply = jax.jit(lambda params, ids: network.apply({'params': params}, ids))

  def read(captions: Sequence[str]) -> Float[np.ndarray, 'n shared']:
    found = []
    for start in range(0, len(captions), ROWS):
      encoded = tokenizer.encode_batch(list(captions[start : start + ROWS]))
      ids = np.zeros((ROWS, length), np.int32)
      for row, each in zip(ids, encoded, strict=False):
        row[: len(each.ids)] = each.ids
      found.append(jax.device_get(apply(params, ids))[: len(encoded)])
    return np.concatenate(found)

  return read


def vision(tensors: weights.Tensors) -> dict[str, Any]:
  """Weights as they are published, by names of ours."""
  at = 'vision_model'
  places = tensors[f'{at}.embeddings.position_embedding.weight']
  kernel = tensors[f'{at}.embeddings.patch_embedding.weight']
  return _float32(
    {
      'patches': {'kernel': kernel.transpose(2, 3, 1, 0)},
      'first': tensors[f'{at}.embeddings.class_embedding'],
      'places': places,
      'before': _norm(tensors, f'{at}.pre_layrnorm'),  # so they spell it
      'tower': _layers(tensors, at),
      'after': _norm(tensors, f'{at}.post_layernorm'),
      'projection': {'kernel': tensors['visual_projection.weight'].T},
    }
  )


def text(tensors: weights.Tensors) -> dict[str, Any]:
  at = 'text_model'
  words = tensors[f'{at}.embeddings.token_embedding.weight']
  return _float32(
    {
      'words': {'embedding': words},
      'places': tensors[f'{at}.embeddings.position_embedding.weight'],
      'tower': _layers(tensors, at),
      'after': _norm(tensors, f'{at}.final_layer_norm'),
      'projection': {'kernel': tensors['text_projection.weight'].T},
    }
  )


def _layers(tensors: weights.Tensors, at: str) -> dict[str, Any]:
  found = {}
  numbers = re.findall(rf'\b{at}\.encoder\.layers\.(\d+)\.', ' '.join(tensors))
  for number in sorted(set(map(int, numbers))):
    old, new = f'{at}.encoder.layers.{number}', f'layers_{number}'
    for name in ('layer_norm1', 'layer_norm2'):
      found[f'{new}_{name}'] = _norm(tensors, f'{old}.{name}')
    for name, room in (
      *((f'{n}_proj', 'self_attn') for n in ('q', 'k', 'v', 'out')),
      *((n, 'mlp') for n in ('fc1', 'fc2')),
    ):
      found[f'{new}_{name}'] = {
        'kernel': tensors[f'{old}.{room}.{name}.weight'].T,
        'bias': tensors[f'{old}.{room}.{name}.bias'],
      }
  return found


def _norm(tensors: weights.Tensors, name: str) -> dict[str, np.ndarray]:
  return {'scale': tensors[f'{name}.weight'], 'bias': tensors[f'{name}.bias']}


def _float32(params: dict[str, Any]) -> dict[str, Any]:
  return jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def _tower(params: Mapping[str, Any], file: pathlib.Path, what: str) -> Tower:
  """As large as the weights; only config.json knows the rest."""
  config = file.with_name('config.json')
  if not config.is_file():
    raise FileNotFoundError(f'there is no {config}; get all of {WEIGHTS}.')
  told = json.loads(config.read_text()).get(f'{what}_config', {})
  # What is not said is as in the first CLIP, ViT-B/32.
  activation = told.get('hidden_act', 'quick_gelu')
  if activation not in ACTIVATIONS:
    raise ValueError(
      f'{config} has the activation {activation!r}; there are '
      f'{", ".join(ACTIVATIONS)}.'
    )
  layers, channels = params['tower'], params['places'].shape[1]
  heads = told.get('num_attention_heads', HEADS[what])
  if channels % heads:
    raise ValueError(
      f'{config} has {heads} heads for {channels} channels: it is not of these '
      'weights.'
    )
  return Tower(
    depth=sum(name.endswith('_fc1') for name in layers),
    width=layers['layers_0_fc1']['kernel'].shape[1] if layers else 0,
    heads=heads,
    activation=activation,
    epsilon=told.get('layer_norm_eps', 1e-5),
  )


def _tokenizer(path: pathlib.Path, length: int) -> Any:
  try:
    import tokenizers
  except ModuleNotFoundError as error:
    raise ValueError(
      'CLIP reads captions by its tokenizer: pip install tokenizers.'
    ) from error
  if not path.is_file():
    raise FileNotFoundError(f'there is no {path}; get all of {WEIGHTS}.')
  tokenizer = tokenizers.Tokenizer.from_file(str(path))
  tokenizer.no_padding()
  tokenizer.enable_truncation(length)
  return tokenizer
