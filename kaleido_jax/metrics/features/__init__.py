"""What networks see in pictures: rows of numbers, from uint8 images.

  extractor = features.create('efficientnet_lite0')
  found = extractor(images)['features']     # [n, 1280]

An extractor has a name, which goes with every figure made with it, and weights
of its own. Only what Inception sees may be called FID.
"""

from kaleido_jax.metrics.features.extractor import Extractor, create

__all__ = ['Extractor', 'create']
