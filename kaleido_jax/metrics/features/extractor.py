"""From a name to a function of pictures."""

import importlib
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, UInt8

Images = UInt8[np.ndarray, 'n h w 3']

# The modules of this folder that have `load(path) -> (apply, params, resize)`.
KNOWN = ('efficientnet_lite0', 'inception_v3')


class Extractor(NamedTuple):
  """Features of pictures, batch by batch."""

  name: str
  resize: str  # how pictures come to the size of the network
  # (params, uint8 [b, h, w, 3]) -> {'features': [b, d], and what else it gives}
  apply: Callable[[Any, Any], Any]
  params: Any
  batch_size: int = 32

  def __call__(self, images: Images) -> dict[str, Float[np.ndarray, 'n _']]:
    """Of any number of pictures; the last batch is filled up."""
    if not len(images):
      raise ValueError('there are no pictures to look at.')
    found = []
    for start in range(0, len(images), self.batch_size):
      some = images[start : start + self.batch_size]
      missing = self.batch_size - len(some)
      filled = np.pad(some, ((0, missing), (0, 0), (0, 0), (0, 0)))
      seen = jax.device_get(self.apply(self.params, filled))
      found.append({name: x[: len(some)] for name, x in seen.items()})
    return {n: np.concatenate([part[n] for part in found]) for n in found[0]}


def create(name: str, path: str | pathlib.Path = '') -> Extractor:
  """path: of the weights; '' is where their package has put them."""
  if name not in KNOWN:
    raise ValueError(
      f'there is no extractor {name!r}; there are {", ".join(KNOWN)}.'
    )
  module = importlib.import_module(f'kaleido_jax.metrics.features.{name}')
  apply, params, resize = module.load(path)
  return Extractor(name, resize, jax.jit(apply), params)
