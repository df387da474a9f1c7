"""Text to image on CC12M: 64x64 first, then 256x256 around it.

  python -m kaleido_jax.main --config=configs/cc12m.py:64 \\
    --config.data.store=cc12m_latents
  python -m kaleido_jax.main --config=configs/cc12m.py:256 \\
    --config.data.store=cc12m_latents --config.init.run=runs/cc12m-64

The paper trains 400k steps of each (appendix B.2: progressive training), on 64
A100 for about two weeks. Here the second begins with the averages of the first.
Other latents: --config.latents="('text', 'bbox', 'voken')", the paper's
"combined". Time and FID of this code: not measured.

Variants, joined by commas:
  64     the inner network alone
  256    the whole, as without a variant
  mdm    the baseline without latents
  tiny   16x16 and 32x32 in their place, with colours as latents and nothing
         pretrained: on a laptop
"""

from ml_collections import ConfigDict

from configs import default, sizes


def get_config(variant: str = '') -> ConfigDict:
  variants = default.chosen(variant, ('64', '256', 'mdm', 'tiny'))
  default.one_of(variants, '64', '256')
  config = default.get_config()
  config.data.update(source='webdataset', path='cc12m')  # img2dataset's shards
  config.train.held_out = ''  # the shards are one split
  config.model.decoder.vocab_size = 32128 + 8192  # vokens have their own
  config.sample.guidance = 7.0  # the paper's figures 12 and 13
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
