"""Features with neighbours, clusters and outliers, drawn by numbers."""

import numpy as np


def pair(n: int = 180, d: int = 24, seed: int = 0):
  """Of real pictures and of fake ones that know only some of the modes."""
  random = np.random.default_rng(seed)
  modes = 3 * random.normal(size=(6, d))
  real = modes[random.integers(6, size=n)] + random.normal(size=(n, d))
  fake = modes[random.integers(4, size=n + 20)]
  fake = fake + 1.2 * random.normal(size=fake.shape)
  return real.astype(np.float32), fake.astype(np.float32)
