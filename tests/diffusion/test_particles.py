"""Particle guidance: samples that push each other apart."""

import jax
import jax.numpy as jnp
import numpy as np
from pyramids import (
  CLASS_A,
  DDPM,
  SCHEDULES,
  TOY,
  close,
  estimate,
)

from kaleido_jax.diffusion import (
  denoiser,
  guidance,
  sampler,
  schedule,
)


def pairwise(x):
  distances = np.linalg.norm(np.asarray(x)[:, None] - x[None], axis=-1)
  return distances[np.triu_indices(len(x), 1)].mean()


def test_particles_spread():
  free = denoiser.conditional(TOY.model, CLASS_A)

  @jax.jit
  def run(weight, keys):
    (x,), _ = sampler.sample(
      guidance.particles(free, weight),
      SCHEDULES,
      sampler.grid(100, 1000, spacing='trailing'),
      sampler.gaussian(keys, [(2,)]),
      solver=DDPM,
    )
    return x

  def spread(weight):
    return np.mean(
      [pairwise(run(weight, sampler.keys(s, np.arange(16)))) for s in range(8)]
    )

  together = spread(0.0)
  assert spread(0.3) > 1.1 * together
  assert spread(-0.3) < 1.02 * together


def test_particles_add_to_the_score():
  free = denoiser.conditional(TOY.model, CLASS_A)
  x = jax.random.normal(jax.random.key(0), (5, 2))
  point = schedule.at(SCHEDULES, jnp.array(500))
  (alpha,), (sigma,) = point.alphas, point.sigmas

  def score(guided):
    return (alpha * estimate(guided, point, (x,))[0] - x) / sigma**2

  pushed = score(guidance.particles(free, 0.7)) - score(free)
  (push,) = jax.grad(guidance.log_potential)((x,))
  np.testing.assert_allclose(pushed, 0.7 * push, atol=1e-5)
  close(
    estimate(guidance.particles(free, 0.0), point, (x,)),
    estimate(free, point, (x,)),
    1e-6,
  )


def test_the_push_is_away_from_neighbours():
  # By hand: sum_j 2 (x_i - x_j) k_ij / h, h the median square over log n.
  x = np.random.default_rng(0).normal(size=(5, 3))
  difference = x[:, None] - x[None]
  squares = (difference**2).sum(-1)
  h = np.median(squares[np.triu_indices(5, 1)]) / np.log(5)
  wanted = (2 / h * np.exp(-squares / h)[..., None] * difference).sum(1)
  (got,) = jax.grad(guidance.log_potential)((jnp.float32(x),))
  np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_one_particle_is_alone_and_equal_ones_are_finite():
  free = denoiser.conditional(TOY.model, CLASS_A)
  point = schedule.at(SCHEDULES, jnp.array(500))
  for x in (jnp.ones((1, 2)), jnp.ones((4, 2))):
    pushed = estimate(guidance.particles(free, 5.0), point, (x,))
    close(pushed, estimate(free, point, (x,)), 1e-4)


def test_those_that_are_not_counted_push_nobody():
  x = jax.random.normal(jax.random.key(0), (6, 3))
  counted = jnp.array([True, False, True, True, False, True])
  (alone,) = jax.grad(guidance.log_potential)((x[counted],))
  (push,) = jax.grad(guidance.log_potential)((x,), counted)
  np.testing.assert_allclose(push[counted], alone, atol=1e-6)
  np.testing.assert_allclose(push[~counted], 0, atol=1e-7)
  (one,) = jax.grad(guidance.log_potential)((x,), jnp.arange(6) < 1)
  np.testing.assert_allclose(one, 0, atol=1e-7)


def test_near_copies_push_no_harder_than_pairs_can():
  """The potential of 28 pairs is -28 at least, whatever is rounded."""
  x = jnp.ones((8, 64 * 64)).at[7].set(-1.0)
  x += 1e-5 * jax.random.normal(jax.random.key(0), x.shape)
  assert -28 <= guidance.log_potential((x,)) <= 0
  (push,) = jax.grad(guidance.log_potential)((x,))
  assert jnp.abs(push).max() < 100
