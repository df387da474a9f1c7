"""Pictures as most networks of today expect them."""

import jax
import jax.numpy as jnp
from jaxtyping import Float, UInt8

from kaleido_jax.arrays import Array

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def resized(
  images: UInt8[Array, 'b h w 3'], size: int, method: str
) -> Float[Array, 'b _ _ 3']:
  """Antialiased, within 0..255. method: bilinear, bicubic."""
  x = images.astype(jnp.float32)
  if x.shape[1:3] == (size, size):
    return x
  shape = (x.shape[0], size, size, 3)
  return jnp.clip(jax.image.resize(x, shape, method), 0, 255)


def as_imagenet(x: Float[Array, 'b h w 3']) -> Float[Array, 'b h w 3']:
  """From 0..255 to what networks trained on ImageNet have seen."""
  return (x / 255 - jnp.array(MEAN)) / jnp.array(DEVIATION)
