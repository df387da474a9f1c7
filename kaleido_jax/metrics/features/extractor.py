"""From a name to a function of pictures."""

import hashlib
import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from kaleido_jax.metrics.features import weights

# The modules of this folder. Each has
#   network(params)    a module that maps prepare(uint8 pictures) to named rows
#   RESIZE             how pictures come to the size of the network
#   find() or WEIGHTS  the file of weights, or where to get it
#   convert(tensors)   parameters from that file
#   load(file)         or parameters and what is done with them, at once
#   reader(file)       features of captions, if it reads as well
#   PUBLIC, DISTANCES  how the SHA-256 of the published file begins, and what
#                      Frechet distances of the outputs may be called with it
KNOWN = ('efficientnet_lite0', 'inception_v3', 'dinov2', 'sscd', 'clip')


class Extractor(NamedTuple):
  """Features of pictures, batch by batch, on all devices of this process."""

  name: str
  weights: str  # how the SHA-256 of their file begins
  resize: str
  distances: Mapping[str, str]  # what Frechet distances of outputs are called
  # (params, uint8 [b, h, w, 3]) -> {'features': [b, d], and what else it gives}
  apply: Callable[[Any, Any], Any]
  params: Any
  batch_size: int = 32  # of a device
  # Captions as pictures of them should be seen: 'features' of theirs.
  read: Callable[[Sequence[str]], np.ndarray] | None = None

  def __str__(self) -> str:
    return f'{self.name}-{self.weights}'

  def __call__(self, images: np.ndarray) -> dict[str, Float[np.ndarray, 'n _']]:
    """Of any number of pictures, uint8; the last batch is filled up."""
    if images.dtype != np.uint8 or images.shape[-1:] != (3,):
      raise ValueError(
        f'pictures should be uint8 [n, h, w, 3], not {images.dtype} '
        f'{list(images.shape)}.'
      )
    if not len(images):
      raise ValueError('there are no pictures to look at.')
    devices = jax.sharding.Mesh(jax.local_devices(), 'rows')
    spread = jax.sharding.NamedSharding(devices, jax.P('rows'))
    rows, found = self.batch_size * devices.size, []
    for start in range(0, len(images), rows):
      some = images[start : start + rows]
      missing = rows - len(some)
      filled = np.pad(some, ((0, missing), (0, 0), (0, 0), (0, 0)))
      seen = self.apply(self.params, jax.device_put(filled, spread))
      seen = jax.device_get(seen)
      found.append({name: x[: len(some)] for name, x in seen.items()})
    return {n: np.concatenate([part[n] for part in found]) for n in found[0]}


def create(name: str, path: str | pathlib.Path = '') -> Extractor:
  """path: of the weights; '' is where their package has put them."""
  if name not in KNOWN:
    raise ValueError(
      f'there is no extractor {name!r}; there are {", ".join(KNOWN)}.'
    )
  module = importlib.import_module(f'kaleido_jax.metrics.features.{name}')
  if not path and not hasattr(module, 'find'):
    raise FileNotFoundError(
      f'the weights of {name} are not part of this package: give the path of '
      f'{module.WEIGHTS}.'
    )
  file = pathlib.Path(path or module.find())
  if not file.is_file():
    raise FileNotFoundError(f'there is no file {file} of weights of {name}.')
  with file.open('rb') as opened:
    digest = hashlib.file_digest(opened, 'sha256').hexdigest()[:8]

  params, apply = (
    module.load(file)
    if hasattr(module, 'load')
    else _network(module, name, file)
  )
  return Extractor(
    *(name, digest, module.RESIZE),
    module.DISTANCES if digest == module.PUBLIC else {'features': 'frechet'},
    *(apply, params),
    read=module.reader(file) if hasattr(module, 'reader') else None,
  )


def _network(module: Any, name: str, file: pathlib.Path) -> tuple[Any, Any]:
  """Parameters, on all devices, and what is done with them."""
  params = weights.read(file, module.convert, name)
  network = module.network(params)
  pictures = jnp.zeros((1, 32, 32, 3), jnp.uint8)
  weights.check(params, network, module.prepare(pictures), file, name)

  @jax.jit
  def apply(params, images: UInt8[Any, 'b h w 3']):
    return network.apply({'params': params}, module.prepare(images))

  return weights.everywhere(params), apply
