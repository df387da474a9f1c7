"""Pyramids, conditions and a smooth network: what tests of guidance share."""

import jax
import jax.numpy as jnp
import numpy as np

from kaleido_jax.diffusion import (
  mixture,
  sampler,
  schedule,
)

SCHEDULES = (schedule.create('squared_cosine', 1000),)
PAIR = SCHEDULES[0].pyramid((2, 1))
POINT = schedule.at(PAIR, jnp.array(400))
XS = (
  jax.random.normal(jax.random.key(0), (3, 4, 4, 1)),
  jax.random.normal(jax.random.key(1), (3, 2, 2, 1)),
)
NULL, C, CZ = (
  jax.random.normal(jax.random.key(seed), (3, 5)) for seed in (2, 3, 4)
)
TOY = mixture.toy()
EVERY = jnp.full((1, 4), 0.25)
CLASS_A = jnp.array([[0.5, 0.5, 0, 0]])
NUM = 10_000
DDPM = sampler.SOLVERS['ddpm']


def model(xs, point, condition):
  """Some smooth function of everything."""
  pooled = condition.sum(1)
  return tuple(
    jnp.tanh(x + schedule.expand(pooled, x)) * a + x * s
    for x, a, s in zip(xs, point.alphas, point.sigmas, strict=True)
  )


def estimate(guided, point=POINT, xs=XS, state=None):
  state = guided.init(xs) if state is None else state
  return guided.apply(xs, point, state)[0]


def close(got, wanted, atol=1e-5):
  for x, y in zip(got, wanted, strict=True):
    np.testing.assert_allclose(x, y, atol=atol)


def mix(*terms):
  """A weighted sum of pyramids, in float64."""
  return tuple(
    sum(weight * np.float64(x[i]) for weight, x in terms) for i in range(2)
  )
