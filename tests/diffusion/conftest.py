"""The reference's tiny networks as functions; compiled once per session."""

import jax
import pytest


@pytest.fixture(scope='session')
def networks(nested_tiny, unet_tiny):
  """name -> (apply(params, xs, times, condition), params)."""

  def build(module, params):
    @jax.jit
    def apply(params, xs, times, condition):
      features, mask = condition
      return module.apply({'params': params}, xs, times, features, mask)

    return apply, params

  return {'nested': build(*nested_tiny), 'unet': build(*unet_tiny)}
