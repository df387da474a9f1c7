"""Kaleido on ImageNet at 256x256, class names as captions (paper, table 1).

  python -m kaleido_jax.main --config=configs/imagenet.py \\
    --config.data.store=imagenet_latents

It says what it lacks of pictures, latents and T5, and where that comes from.
The paper trains from scratch at 256x256, with "combined" latents, on 64 A100
for about two weeks (appendix B.2) and reports a FID of 9.0, for the baseline
15.5. Time and FID of this code: not measured.

Variants, joined by commas:
  mdm    the baseline without latents
  64     64x64 alone
  256    the whole, as without a variant
  tiny   32x32 with colours as latents and nothing pretrained: on a laptop
"""

from ml_collections import ConfigDict

from configs import default, sizes


def get_config(variant: str = '') -> ConfigDict:
  variants = default.chosen(variant, ('mdm', '64', '256', 'tiny'))
  default.one_of(variants, '64', '256')
  config = default.get_config()
  config.latents = ('text', 'bbox', 'voken')
  config.model.decoder.vocab_size = 32128 + 8192  # vokens have their own
  config.train.held_out = ''  # its latents: see config.train.held_out_store
  config.evaluate.split = 'validation'
  config.model.decoder.remat = 'dots'  # half the memory, for attention twice
  config.init.t5 = 'flan-t5-xl'
  config.mesh.fsdp = -1  # 20 bytes a parameter, over all devices
  if 'tiny' in variants:
    sizes.shrink(config)
    config.latents = ('color',)
  if '64' in variants:
    sizes.lower(config)
  if 'mdm' in variants:
    config.latents = ()
  return config
