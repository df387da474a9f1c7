"""SSCD (Pizzi et al., 2022): what tells copies of a picture from others.

The paper's MSS and Vendi look through it. Its weights are not ours to ship:
give the path of sscd_disc_mixup.torchscript.pt. It is a program of PyTorch's,
which runs on the CPU, and needs `pip install torch`.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from kaleido_jax.arrays import Array
from kaleido_jax.metrics.features import resizing

SIZE = 288
RESIZE = 'bilinear, antialiased, to 288'
PUBLIC, DISTANCES = '', {'features': 'frechet'}
WEIGHTS = (
  'https://dl.fbaipublicfiles.com/sscd-copy-detection/'
  'sscd_disc_mixup.torchscript.pt'
)


def load(
  file: pathlib.Path,
) -> tuple[None, Callable[[Any, Any], dict[str, np.ndarray]]]:
  """It has its weights inside, so there are no parameters."""
  try:
    import torch
  except ModuleNotFoundError as error:
    raise ValueError(
      'SSCD is a program of PyTorch: pip install torch.'
    ) from error
  try:
    program = torch.jit.load(str(file), map_location='cpu').eval()
  except RuntimeError as error:
    raise ValueError(f'{file} is no TorchScript program.') from error

  def apply(params: Any, images: UInt8[Array, 'b h w 3']):
    del params
    x = np.array(prepare(images)).transpose(0, 3, 1, 2)
    with torch.no_grad():
      return {'features': program(torch.from_numpy(x.copy())).numpy()}

  return None, apply


@jax.jit
def prepare(images: UInt8[Array, 'b h w 3']) -> Float[Array, 'b _ _ 3']:
  x = resizing.resized(images, SIZE, 'bilinear')
  return resizing.as_imagenet(x)
