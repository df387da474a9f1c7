"""Text to image on CC12M: 64x64 first, then 256x256 around it.

  python -m kaleido_jax.main --config=configs/cc12m.py:64
  python -m kaleido_jax.main --config=configs/cc12m.py:256

The paper trains 400k steps at 64x64 before it adds the outer network
(progressive training). FID and time of this code: not measured.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '256') -> ConfigDict:
  config = default.get_config()
  config.data.update(source='webdataset', path='cc12m')  # img2dataset's shards
  if variant == '64':
    config.image_shapes = ((64, 64, 3),)
    config.model.denoiser = default.unet()
  elif variant != '256':
    raise ValueError(f"variant {variant!r} is neither '64' nor '256'.")
  return config
