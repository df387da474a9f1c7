"""Drawn scenes of coloured shapes at 32x32: Kaleido whole, on two CPU cores.

  python -m kaleido_jax.main --config=configs/shapes.py
  python -m benchmarks.shapes_right --workdir=runs/shapes  # judges its pictures

46 examples a second on two cores with a device for each of them (see BUILD.md):
20,000 steps of 32 take four hours. After 12,057 steps everything named is right
in 73 % of 200 pictures at guidance 2 (82 % of those of one thing), and latents
name it in 96.5 % (2026-11-21). That run saw other versions of the data first:
see kaleido_jax/pretrained/shapes/README.md. What is right after 20,000 steps,
and of the variant: not measured.

Variant: configs/shapes.py:mdm is the baseline without latents.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.image_shapes = ((32, 32, 3), (16, 16, 3))
  config.latents = ('text', 'bbox', 'color')
  config.data.update(
    source='shapes',
    vocabulary='shapes',
    vocabulary_rows=0,
    box_lines=32,  # so each of 33 numbers is often seen, and is a word
    caption_length=24,
    num_workers=0,
    num_threads=1,
    batch_size=32,
  )
  config.data.lengths.update(text=24, bbox=39, color=16)
  config.optimizer.update(learning_rate=1e-3, warmup_steps=200, ema_decay=0.998)
  config.train.update(
    num_steps=20_000,
    log_every=100,
    save_every=500,
    held_out='test',
    measure_every=1_000,
    sample_every=2_000,
  )
  config.sample.update(steps=30, solver='dpm++', spacing='trailing')
  small = dict(
    vocab_size=1152,  # 640 pieces of text, 512 colours
    width=128,
    num_heads=4,
    head_dim=32,
    mlp_dim=256,
    num_encoder_layers=1,
    num_decoder_layers=2,
    dtype='float32',
  )
  config.model.encoder.update(small)
  config.model.decoder.update(small)
  inner = dict(
    channels=(32, 64, 128),
    num_resnets=(1, 1, 1),
    num_attention=(0, 1, 1),  # where there are 8x8 pixels and 4x4
    embedding_dim=256,
    condition_dim=128,
    num_condition_blocks=0,
    micro_conditions=(('scale', 16.0),),
    groups=8,
    heads=4,
    dtype='float32',
  )
  config.model.denoiser.inner_unet.update(inner)
  config.diffusion.target = 'v'
  config.model.denoiser.update(
    channels=(16, 32),
    num_resnets=(1, 1),
    num_attention=(0, 0),
    embedding_dim=256,
    micro_conditions=(('scale', 32.0),),
    groups=8,
    heads=4,
    dtype='float32',
  )
  config.model.freeze_encoder = False  # it starts from nothing
  if variant == 'mdm':
    config.latents = ()
  elif variant:
    raise ValueError(f"variant {variant!r} is not 'mdm'.")
  return config
