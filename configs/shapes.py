"""Drawn scenes of coloured shapes at 32x32: Kaleido whole, on two CPU cores.

  python -m kaleido_jax.main --config=configs/shapes.py
  python -m benchmarks.shapes_right --workdir=runs/shapes  # judges its pictures

46 examples a second on two cores with a device for each of them (see BUILD.md):
20,000 steps of 32 take four hours; the baseline, with 65, not quite three. From
nothing, on today's scenes (version 6): not measured. On version 4, with more
patterns and things in any order, everything named was right in 80 % of 200
pictures at guidance 2 after 15,000 steps (84 % of those of one thing; latents
named it in 96 %), and in 30.5 % of the baseline's after 11,924 (2026-11-22).
What ships has 12,057.

Begun with the encoder and the denoiser that ship, the baseline has 75 % right
at guidance 4 (100 % of those of one thing, 33 % of two) on version 6 after
20,051 steps more. It ships, too: kaleido_jax/pretrained/shapes-mdm/README.md.

Variants: configs/shapes.py:mdm is the baseline without latents; :blob has
ellipses in place of boxes. Begun with the model that ships, 40 minutes give one
whose blobs can be moved:

  python -m kaleido_jax.main --config=configs/shapes.py:blob \\
    --config.init.run=pretrained:shapes --config.train.num_steps=2600 \\
    --config.optimizer.cooldown_steps=900
  python -m benchmarks.shapes_edited --workdir=runs/shapes-blob

Over 200 edits the thing that is seen and the moved blob have a mean IoU of .73
(median .80; unedited .75); the background changes by 4.3 grey levels, from
other noise by 9.3, to a fresh sample by 81.8 (version 4, guidance 4,
2026-11-22).
"""

from ml_collections import ConfigDict

from configs import default, sizes


def get_config(variant: str = '') -> ConfigDict:
  config = default.get_config()
  sizes.small(config)
  config.latents = ('text', 'bbox', 'color')
  config.data.update(
    source='shapes',
    vocabulary='shapes',
    box_lines=32,  # so each of 33 numbers is often seen, and is a word
  )
  config.data.lengths.update(text=24, bbox=39, blob=48, color=16)
  for part in ('encoder', 'decoder'):
    config.model[part].vocab_size = 1152  # 640 pieces of text, 512 colours
  variants = default.chosen(variant, ('mdm', 'blob'))
  default.one_of(variants, 'mdm', 'blob')
  if 'mdm' in variants:
    config.latents = ()
  if 'blob' in variants:
    config.latents = ('text', 'blob', 'color')
  return config
