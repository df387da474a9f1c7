"""Sizes below the paper's, for any of the configurations."""

from ml_collections import ConfigDict

# Of the rate, where it is high and everything begins from nothing: or attention
# hardens, and each word and each pixel sees one word alone.
SHARES = (('^encoder/', 0.1), ('/qkv/|/kv_cond/', 0.3))


def shrink(config: ConfigDict) -> None:
  """For a laptop: 32x32 around 16x16, everything trained from nothing."""
  config.image_shapes = ((32, 32, 3), (16, 16, 3))
  config.data.update(
    vocabulary='',
    vocabulary_rows=0,
    caption_length=24,
    batch_size=16,
    num_workers=0,
  )
  config.optimizer.update(learning_rate=1e-3, warmup_steps=100, ema_decay=0.99)
  config.train.update(
    num_steps=1_000,
    save_every=500,
    measure_every=500,
    sample_every=500,
    sample_count=8,
  )
  config.sample.update(steps=30, solver='dpm++', spacing='trailing')
  config.init.t5 = ''
  config.model.freeze_encoder = False
  for part in ('encoder', 'decoder'):
    config.model[part].update(
      vocab_size=6144 + 512,  # colours have tokens of their own
      width=64,
      num_heads=4,
      head_dim=16,
      mlp_dim=128,
      num_encoder_layers=1,
      num_decoder_layers=1,
      dtype='float32',
    )
  small = dict(embedding_dim=64, groups=8, heads=2, dtype='float32')
  config.model.denoiser.update(
    channels=(16, 32),
    num_resnets=(1, 1),
    num_attention=(0, 0),
    micro_conditions=(('scale', 32.0),),
    **small,
  )
  config.model.denoiser.inner_unet.update(
    channels=(32, 64),
    num_resnets=(1, 1),
    num_attention=(0, 1),
    condition_dim=64,
    num_condition_blocks=1,
    micro_conditions=(('scale', 16.0),),
    **small,
  )


def small(config: ConfigDict) -> None:
  """For hours on two cores: 32x32 around 16x16, 5.6 million parameters."""
  config.image_shapes = ((32, 32, 3), (16, 16, 3))
  config.data.update(
    vocabulary_rows=0,
    caption_length=24,
    num_workers=0,
    num_threads=1,
    batch_size=32,
  )
  config.optimizer.update(
    learning_rate=1e-3, warmup_steps=200, cooldown_steps=4_000, ema_decay=0.998
  )
  config.optimizer.shares = SHARES
  config.train.update(
    num_steps=20_000,
    save_every=500,
    held_out='test',
    measure_every=1_000,
    sample_every=2_000,
  )
  config.sample.update(steps=30, solver='dpm++', spacing='trailing')
  config.diffusion.target = 'v'
  config.model.freeze_encoder = False  # it starts from nothing
  for part in ('encoder', 'decoder'):
    config.model[part].update(
      width=128,
      num_heads=4,
      head_dim=32,
      mlp_dim=256,
      num_encoder_layers=1,
      num_decoder_layers=2,
      dtype='float32',
    )
  common = dict(embedding_dim=256, groups=8, heads=4, dtype='float32')
  config.model.denoiser.update(
    channels=(16, 32),
    num_resnets=(1, 1),
    num_attention=(0, 0),
    micro_conditions=(('scale', 32.0),),
    **common,
  )
  config.model.denoiser.inner_unet.update(
    channels=(32, 64, 128),
    num_resnets=(1, 1, 1),
    num_attention=(0, 1, 1),  # where there are 8x8 pixels and 4x4
    condition_dim=128,
    num_condition_blocks=0,
    micro_conditions=(('scale', 16.0),),
    **common,
  )


def lower(config: ConfigDict) -> None:
  """The lowest resolution alone: where progressive training begins."""
  config.image_shapes = config.image_shapes[-1:]
  config.model.denoiser = config.model.denoiser.inner_unet.to_dict()
