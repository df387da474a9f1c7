import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaleido_jax.diffusion import prediction

KINDS = sorted(prediction.TARGETS)


@pytest.mark.parametrize('given_as, wanted', [*itertools.product(KINDS, KINDS)])
@settings(max_examples=20, deadline=None)
@given(angle=st.floats(0.05, 1.5), seed=st.integers(0, 2**32 - 1))
def test_conversion_says_what_the_target_says(given_as, wanted, angle, seed):
  # The oracle: x0 and eps are known, so every target is, without x_t.
  x0, eps = np.float32(np.random.default_rng(seed).normal(size=(2, 2, 3)))
  alpha, sigma = np.float32(np.cos(angle)), np.float32(np.sin(angle))
  xt = alpha * x0 + sigma * eps
  truth = {'x0': x0, 'eps': eps, 'v': alpha * eps - sigma * x0}
  alpha, sigma = jnp.asarray(alpha), jnp.asarray(sigma)
  value = jnp.asarray(truth[given_as])
  there = prediction.convert(
    value, jnp.asarray(xt), alpha, sigma, given=given_as, wanted=wanted
  )
  np.testing.assert_allclose(there, truth[wanted], atol=3e-4)
  np.testing.assert_allclose(
    prediction.TARGETS[wanted](x0, eps, alpha, sigma), truth[wanted], atol=1e-6
  )
  back = prediction.convert(
    there, jnp.asarray(xt), alpha, sigma, given=wanted, wanted=given_as
  )
  np.testing.assert_allclose(back, value, atol=3e-3)


@pytest.mark.parametrize('kind', KINDS)
def test_gain_is_the_derivative(kind):
  alpha, sigma = jnp.float32(0.8), jnp.float32(0.6)
  xt = jnp.zeros((1, 1))
  moved = prediction.TO_X0[kind](jnp.ones((1, 1)), xt, alpha, sigma)
  gain = prediction.GAINS[kind](alpha, sigma)
  np.testing.assert_allclose(abs(moved), gain, rtol=1e-6)


def test_an_unknown_prediction_is_refused():
  with pytest.raises(ValueError, match="'score' is unknown; choose one of x0"):
    prediction.check('score')
