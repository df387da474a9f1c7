"""Emoji of eleven drawing styles at 64x64: real pictures with hidden modes.

  python -m kaleido_jax.data.emoji --out=data/emoji --size=64
  python -m kaleido_jax.main --config=configs/emoji.py

The caption, 'cat face', does not say whose drawing it is; the latents tell its
style, where the thing is, and its colours. Of 8 million parameters; two cores
train 17 examples in a second of both (of their own seconds: the machine was
shared), so the 20,000 steps should take five hours. The run itself: not
measured.

A baseline and Kaleidos of some of these, trained and compared by one command:
benchmarks/emoji_headline.py; what that showed: docs/results.md.

Variants, joined by commas:
  small  32x32, for hours on two cores; prepare it with --size=32
  tiny   32x32, for a quick look; 61 examples in a second
  large  64x64 and twice as wide, batches of 128 in bfloat16, for a GPU: not run
  mdm    the baseline without latents; 20 examples in a second
  text, bbox, blob, voken, color
         Kaleido with this kind of latents alone, or with several
"""

import itertools

from ml_collections import ConfigDict

from configs import default, sizes

SIZES = ('small', 'tiny', 'large')
KINDS = ('text', 'bbox', 'blob', 'voken', 'color')

IDS = {'voken', 'color'}  # they have 512 tokens of their own


def get_config(variant: str = '') -> ConfigDict:
  variants = default.chosen(variant, (*SIZES, 'mdm', *KINDS))
  for pair in itertools.combinations(SIZES, 2):
    default.one_of(variants, *pair)
  for kind in KINDS:
    default.one_of(variants, 'mdm', kind)
  config = default.get_config()
  if 'small' in variants:
    sizes.small(config)
    config.data.vocabulary = 'emoji'
    _count(config, pieces=1024, ids=512 * max(1, len(variants & IDS)))
  else:
    sizes.shrink(config)
    _count(config, pieces=6144, ids=512 * max(1, len(variants & IDS)))
    config.data.update(caption_length=12, batch_size=16)
    if 'tiny' not in variants:
      _enlarge(config)
    if 'large' in variants:
      _widen(config)
  config.data.update(source='emoji', path='data/emoji')
  config.data.lengths.update(text=32, bbox=24, blob=32, voken=16)
  config.data.update(vokens_from_pixels=True, voken_codes=512, voken_count=16)
  config.train.held_out = 'test'
  # Each picture is met again and again: without dropout the prior learns their
  # colours by heart, and of other captions it knows less the longer it trains.
  # (Their words it learns by heart all the same.)
  config.model.decoder.dropout = 0.2
  config.latents = tuple(kind for kind in KINDS if kind in variants)
  if not config.latents and 'mdm' not in variants:
    config.latents = ('text', 'bbox', 'color')
  return config


def _count(config: ConfigDict, *, pieces: int, ids: int) -> None:
  """Rows of words, and of what has tokens of its own: as many without it."""
  for part in ('encoder', 'decoder'):
    config.model[part].vocab_size = pieces + ids


def _enlarge(config: ConfigDict) -> None:
  """64x64 around 32x32."""
  config.image_shapes = ((64, 64, 3), (32, 32, 3))
  config.optimizer.update(learning_rate=5e-4, warmup_steps=500, ema_decay=0.999)
  config.train.update(
    num_steps=20_000,
    save_every=1_000,
    measure_every=1_000,
    sample_every=1_000,
  )
  for part in ('encoder', 'decoder'):
    config.model[part].update(
      width=128, head_dim=32, mlp_dim=256, num_encoder_layers=2
    )
  config.model.decoder.num_decoder_layers = 3
  config.model.denoiser.update(
    embedding_dim=256, micro_conditions=(('scale', 64.0),)
  )
  config.model.denoiser.inner_unet.update(
    channels=(32, 64, 128),
    num_resnets=(1, 1, 1),
    num_attention=(0, 0, 1),
    embedding_dim=256,
    condition_dim=128,
    heads=4,
    micro_conditions=(('scale', 32.0),),
  )


def _widen(config: ConfigDict) -> None:
  """What a GPU does in the time that two cores take for the small one."""
  config.data.update(batch_size=128, num_workers=8)
  config.optimizer.update(cooldown_steps=5_000, shares=sizes.SHARES)
  config.train.update(num_steps=15_000, measure_every=5_000, sample_every=5_000)
  unet = config.model.denoiser
  for part in (
    config.model.encoder,
    config.model.decoder,
    unet,
    unet.inner_unet,
  ):
    part.dtype = 'bfloat16'
  unet.channels = (32, 64)
  unet.inner_unet.channels = (64, 128, 256)
