"""Kaleido on ImageNet at 256x256, class names as captions (paper, table 1).

  python -m kaleido_jax.main --config=configs/imagenet.py

The paper trains from scratch at 256x256 on 64 A100 for about two weeks; FID and
time of this code: not measured.

Variant: configs/imagenet.py:mdm is the baseline without latents.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  if variant == 'mdm':
    config.latents = ()
  elif variant:
    raise ValueError(f"variant {variant!r} is not 'mdm'.")
  return config
