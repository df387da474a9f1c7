"""A world of shapes: pictures with captions that leave most unsaid.

Made as they are read, without end and without files. Captions name the shapes,
sometimes more; colours, places, sizes and the background are hidden modes, some
more typical of the caption than others (see `world` for the tables and `modes`
for the true frequencies). The latents say all of it.

  world      what there may be, and how often: the tables
  scenes     draws a scene by number
  wording    scenes in words, and back
  modes      the true frequencies of what a caption hides
  outlines   the eight shapes, as distances
  drawing    pictures and masks
  seeing     what a picture shows, without anything learned
  source     examples with their latents
"""

from kaleido_jax.data.shapes.source import Shapes

__all__ = ['Shapes']
