import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaleido_jax import diffusion
from kaleido_jax.diffusion import mixture

MIXTURE = mixture.Mixture(
  means=np.float32([[-1, 0], [1, 0.5]]),
  covariances=np.float32([[[0.4, 0.2], [0.2, 0.3]], [[0.2, 0], [0, 0.5]]]),
)
WEIGHTS = np.float64([0.3, 0.7])


@pytest.mark.parametrize('alpha', [0.999, 0.7, 0.05])
def test_the_exact_denoiser_obeys_tweedie(alpha):
  # E[x_0 | x_t] = (x_t + sigma^2 grad log p(x_t)) / alpha, by autodiff.
  sigma = np.sqrt(1 - alpha**2)
  x = jax.random.normal(jax.random.key(0), (16, 2))

  def log_density(x):
    covariances = alpha**2 * MIXTURE.covariances + sigma**2 * np.eye(2)
    densities = jax.vmap(
      jax.scipy.stats.multivariate_normal.logpdf, (None, 0, 0)
    )(x, alpha * MIXTURE.means, covariances)
    return jax.scipy.special.logsumexp(densities + np.log(WEIGHTS))

  score = jax.vmap(jax.grad(log_density))(x)
  wanted = (x + sigma**2 * score) / alpha
  got = MIXTURE.denoise(
    x, jnp.float32(alpha), jnp.float32(sigma), np.float32(WEIGHTS)[None]
  )
  np.testing.assert_allclose(got, wanted, atol=2e-4)


def test_a_mode_of_weight_0_does_not_exist():
  x = jnp.array([[0.2, 0.1]])
  only = MIXTURE.denoise(
    x, jnp.float32(0.1), jnp.float32(0.995), jnp.array([[1.0, 0.0]])
  )
  # At this much noise the estimate is the mean of what there is.
  np.testing.assert_allclose(only, MIXTURE.means[:1], atol=0.1)


def test_the_example_of_the_package_runs():
  failed, tried = doctest.testmod(diffusion)
  assert tried >= 6 and failed == 0
