"""What chance adds to a batch: times and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kaleido_jax.diffusion import loss


def test_noise_is_fresh_at_every_resolution_and_times_are_uniform():
  x0s = (jnp.zeros((2000, 8, 8, 1)), jnp.zeros((2000, 4, 4, 1)))
  times, (high, low) = loss.draw(jax.random.key(1), x0s, 10)
  pooled = loss.pyramid(high, (4,))[0]
  correlation = np.corrcoef(np.ravel(pooled), np.ravel(low))[0, 1]
  assert abs(correlation) < 4 / np.sqrt(low.size)
  assert np.isin(low, high).mean() < 0.1  # nor is one a part of the other
  for noise in (high, low):
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert abs(noise.var() - 1) < 4 * np.sqrt(2 / noise.size)
  counts = np.bincount(times, minlength=11)
  assert counts[0] == 0 and len(counts) == 11
  assert np.all(np.abs(counts[1:] - 200) < 4 * np.sqrt(200))


def test_more_of_the_early_times_can_be_drawn():
  x0s = (jnp.zeros((4000, 4)),)
  times, epss = loss.draw(
    jax.random.key(1), x0s, 10, early_share=0.4, early_start=8
  )
  counts = np.bincount(times, minlength=11)
  wanted = 4000 * (np.full(10, 0.6 / 10) + np.repeat([0, 0.4 / 3], (7, 3)))
  assert counts[0] == 0 and len(counts) == 11
  assert np.all(np.abs(counts[1:] - wanted) < 4 * np.sqrt(wanted))
  # Which does not touch the noise.
  _, same = loss.draw(jax.random.key(1), x0s, 10)
  np.testing.assert_array_equal(epss[0], same[0])
  with pytest.raises(ValueError, match='early_start=11'):
    loss.draw(jax.random.key(1), x0s, 10, early_share=0.4, early_start=11)
