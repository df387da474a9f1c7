"""The paper's toy: points in the plane, two classes of two modes each.

  python -m kaleido_jax.main --config=configs/toy.py

The caption is the class, the latent the mode. 3,000 steps take less than two
minutes on two CPU cores: 116 s, of the variant 119 s (wall time, 2026-11-21).
What becomes of the modes is in the README, drawn by
`python -m benchmarks.guidance_toy --trained`.
Variant: configs/toy.py:mdm is the baseline without latents.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  config.image_shapes = ((2,),)
  config.latents = ('text',)
  config.data.update(
    source='toy',
    vocabulary='shapes',
    vocabulary_rows=0,
    caption_length=6,
    num_workers=0,
    batch_size=128,
  )
  config.data.lengths.text = 6
  config.optimizer.update(learning_rate=1e-3, warmup_steps=100, ema_decay=0.998)
  config.train.update(
    num_steps=3_000,
    save_every=1_500,
    held_out='test',
    measure_every=1_500,
    sample_every=3_000,
  )
  config.diffusion.target = (
    'v'  # at a weight of 25 errors grow: all times count
  )
  config.sample.threshold = 'none'
  small = dict(
    vocab_size=640,
    width=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dtype='float32',
  )
  config.model.encoder.update(small)
  config.model.decoder.update(small)
  config.model.denoiser = dict(
    kind='mlp', width=128, num_layers=3, dtype='float32'
  )
  config.model.freeze_encoder = False  # it starts from nothing
  if variant == 'mdm':
    config.latents = ()
  elif variant:
    raise ValueError(f"variant {variant!r} is not 'mdm'.")
  return config
