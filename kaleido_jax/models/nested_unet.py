"""NestedUNet: one U-Net per resolution, each in the middle of the next larger.

The outer path down ends at the resolution where the inner U-Net begins; two
zero-initialised adapters carry features in and out, so that at first the
resolutions are denoised independently (arXiv:2310.15111, section 3.2). The
inner one may be nested itself, to any depth.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Float

from kaleido_jax.arrays import Array
from kaleido_jax.models.layers import Conv
from kaleido_jax.models.unet import UNet


class NestedUNet(UNet):
  """A denoiser for a pyramid of resolutions; its fields are the outermost's."""

  inner_unet: nn.Module = None  # a UNet or a NestedUNet
  normalise_input: bool = False  # divide each noisy image by its own deviation
  middle_blocks: bool = False

  @property
  def ratio(self) -> int:
    """How many times larger its images are than those of the inner U-Net."""
    return 2 ** (len(self.channels) - 1)

  def _set_up_middle(self):
    self.in_adapter = Conv(
      self.inner_unet.channels[0], zero=True, dtype=self.dtype
    )
    self.out_adapter = Conv(self.channels[-1], zero=True, dtype=self.dtype)
    if (
      self.condition_dim
      or self.num_condition_blocks
      or not self.masked_condition
    ):
      raise ValueError(
        'the innermost U-Net prepares the condition for all: give '
        'condition_dim, num_condition_blocks and masked_condition to it, not '
        'to a NestedUNet.'
      )
    if self.middle_blocks:
      raise ValueError(
        'a NestedUNet has the inner U-Net where middle blocks would be; build '
        'it with middle_blocks=False.'
      )

  def known_micros(self) -> set[str]:
    return super().known_micros() | self.inner_unet.known_micros()

  def project(self, features):
    return self.inner_unet.project(features)

  def condition(self, features, mask=None):
    return self.inner_unet.condition(features, mask)

  def middle(self, x, embedding, condition, xs, times, micros):
    """Denoises the lower resolutions with these features in mind."""
    rows, count = x.shape[0], xs[1].shape[0]
    given = self.in_adapter(x)
    # Rows that have no high-resolution image receive nothing from above.
    given = jnp.pad(given, ((0, count - rows), (0, 0), (0, 0), (0, 0)))
    inner, taken = self.inner_unet.denoise(
      xs[1:], times, condition, micros, given
    )
    return x + self.out_adapter(taken[:rows]), inner

  def normalise(self, x: Float[Array, 'b h w c']) -> Float[Array, 'b h w c']:
    if not self.normalise_input:
      return x
    return x / x.std((1, 2, 3), ddof=1, keepdims=True)

  def check(self, xs):
    if len(xs) < 2:
      raise ValueError(
        'a NestedUNet needs one image per resolution, high to low; only one '
        'was given.'
      )
    self.check_divisible(xs[0])
    high, low = xs[0].shape, xs[1].shape
    if (high[1], high[2]) != (low[1] * self.ratio, low[2] * self.ratio):
      raise ValueError(
        f'images of {high[1]}x{high[2]} and {low[1]}x{low[2]} were given; '
        f'with {len(self.channels)} entries in channels the first must be '
        f'{self.ratio} times as large as the second.'
      )
    if high[0] > low[0]:
      raise ValueError(
        f'a mixed batch has fewer images at high resolution, not more: '
        f'{high[0]} > {low[0]}.'
      )


def grow(params: Mapping[str, Any], inner_params: Mapping[str, Any]) -> dict:
  """Puts a trained network inside a larger one (progressive training).

  Text-to-image models train at 64x64 first; the 256x256 model then begins with
  that network as its inner U-Net and new outer layers around it.
  """
  wanted = traverse_util.flatten_dict(dict(params['inner_unet']), sep='/')
  given = traverse_util.flatten_dict(dict(inner_params), sep='/')
  differences = [
    *(f'{k}: missing' for k in wanted if k not in given),
    *(f'{k}: not part of the inner U-Net' for k in given if k not in wanted),
    *(
      f'{k}: the inner U-Net needs {wanted[k].shape}, given {given[k].shape}'
      for k in wanted
      if k in given and wanted[k].shape != given[k].shape
    ),
  ]
  if differences:
    raise ValueError(
      'the trained network is not the inner one of this model; configure the '
      'inner U-Net as it was trained:\n  ' + '\n  '.join(differences)
    )
  return {**params, 'inner_unet': inner_params}
