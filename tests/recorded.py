"""What tests against recordings of the reference share."""

import numpy as np

# For a program that runs once, optimising it takes longer than running it.
QUICK = {'xla_backend_optimization_level': 0}


def nhwc(x):
  """The reference has channels first."""
  return np.moveaxis(x, -3, -1)
