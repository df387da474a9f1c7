"""Drawn scenes of coloured shapes at 32x32: Kaleido whole, on two CPU cores.

  python -m kaleido_jax.main --config=configs/shapes.py
  python -m benchmarks.shapes_right --workdir=runs/shapes  # judges its pictures

46 examples a second on two cores with a device for each of them (see BUILD.md):
20,000 steps of 32 take four hours; the baseline, with 65, not quite three. From
nothing, on today's scenes (version 6): not measured. What ships has seen 12,057
steps of earlier scenes, with more patterns and things in any order, and then
3,000 of these, in 42 minutes:

  python -m kaleido_jax.main --config=configs/shapes.py \\
    --config.init.run=pretrained:shapes --config.train.num_steps=3000 \\
    --config.optimizer.cooldown_steps=1200

Of 200 pictures everything named is right in 90 % at guidance 2 (96 % of those
of one thing, 81 % of two; latents name it in 99 %).

The baseline, which ships too, has 86.5 % right at guidance 4 (99 % of those of
one thing, 77 % of two). It had seen more scenes than Kaleido, as they are met,
and was at 75 %: it read a bag of words (`python -m benchmarks.shapes_bound`).
An hour with more of what is hard taught it otherwise, the inner U-Net alone
first, then all, in 36 minutes (kaleido_jax/pretrained/shapes-mdm/README.md
tells from what). It goes on like this, in as many, with what came of it:

  python -m kaleido_jax.main --config=configs/shapes.py:mdm \\
    --config.init.run=pretrained:shapes-mdm --config.data.split=crowded \\
    --config.diffusion.early.share=.4 --config.train.num_steps=4500 \\
    --config.optimizer.warmup_steps=100 --config.optimizer.cooldown_steps=1500

All of 2026-11-22.

Variants: configs/shapes.py:mdm is the baseline without latents; :16 is the
inner U-Net alone, at 16x16; :blob has ellipses in place of boxes. Begun with
the model that ships, 40 minutes give one whose blobs can be moved:

  python -m kaleido_jax.main --config=configs/shapes.py:blob \\
    --config.init.run=pretrained:shapes --config.train.num_steps=2600 \\
    --config.optimizer.cooldown_steps=900
  python -m benchmarks.shapes_edited --workdir=runs/shapes-blob

Over 200 edits the thing that is seen and the moved blob have a mean IoU of .73
(median .80; unedited .75); the background changes by 4.3 grey levels, from
other noise by 9.3, to a fresh sample by 81.8 (guidance 4, 2026-11-22; on
version 4 of the scenes, begun with what shipped before).
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
  variants = default.chosen(variant, ('mdm', 'blob', '16'))
  default.one_of(variants, 'mdm', 'blob')
  if 'mdm' in variants:
    config.latents = ()
  if 'blob' in variants:
    config.latents = ('text', 'blob', 'color')
  if '16' in variants:
    sizes.lower(config)
  return config
