"""Random parameters without `init`, whose compilation takes longer than a test.

None is zero or one, as initial ones may be: those would hide differences.
"""

import math

import jax
import numpy as np
from flax import traverse_util


def filled(init, *args, seed: int = 0):
  """Parameters of the shapes that `init(key, *args)` would give."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(init, jax.random.key(0), *args)

  def draw(path, leaf):
    x = rng.standard_normal(leaf.shape).astype(np.float32)
    if path[-1] == 'scale':
      return 1 + 0.2 * x
    if path[-1] == 'bias':
      return 0.1 * x
    return x * math.prod(leaf.shape[:-1]) ** -0.5

  flat = traverse_util.flatten_dict(shapes)
  drawn = {path: draw(path, leaf) for path, leaf in sorted(flat.items())}
  return jax.device_put(traverse_util.unflatten_dict(drawn))
