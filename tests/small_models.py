"""A small model of shapes, not trained, as an export on disk."""

import pathlib

from filling import filled

from configs import shapes
from kaleido_jax import exported
from kaleido_jax.models import kaleido

STEPS = 4  # of sampling


def config(variant: str = ''):
  """Of configs/shapes.py, and smaller."""
  made = shapes.get_config(variant)
  for part in ('encoder', 'decoder'):
    made.model[part].update(width=32, num_heads=2, head_dim=16, mlp_dim=32)
    made.model[part].num_decoder_layers = 1
  for unet in (made.model.denoiser, made.model.denoiser.inner_unet):
    unet.update(embedding_dim=16, heads=2)
  # Compilers take longest for what is deep.
  made.model.denoiser.update(
    channels=(8, 32), num_resnets=(1, 1), num_attention=(0, 0)
  )
  made.model.denoiser.inner_unet.update(
    channels=(32,), num_resnets=(1,), num_attention=(1,), condition_dim=32
  )
  made.sample.steps = STEPS
  return made


def export(folder: pathlib.Path, variant: str = '') -> str:
  """Where it is."""
  made = config(variant)
  model = kaleido.from_config(made)
  params = filled(
    lambda key: kaleido.init_params(model, key, made.image_shapes)
  )
  exported.write(str(folder), made, params, step=7)
  return str(folder)
