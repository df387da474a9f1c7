"""Fixtures of the tests of the whole model."""

import jax
import jax.numpy as jnp
import pytest
from small_kaleido import build, parameters

from kaleido_jax.models import t5


@pytest.fixture(scope='module')
def batch():
  keys = jax.random.split(jax.random.key(0), 3)
  mask = jnp.arange(5) < jnp.array([5, 3, 2])[:, None]
  z = jax.random.randint(keys[1], (3, 6), 2, 48)
  lengths = jnp.array([6, 4, 2])[:, None]
  z = jnp.where(jnp.arange(6) < lengths - 1, z, t5.EOS)
  return dict(
    ids=jnp.where(mask, jax.random.randint(keys[0], (3, 5), 2, 40), t5.PAD),
    mask=mask,
    z=jnp.where(jnp.arange(6) < lengths, z, t5.PAD),
    xs=(jax.random.normal(keys[2], (3, 2)),),
    times=jnp.array([0, 500, 999]),
  )


@pytest.fixture(scope='module')
def model():
  return build()


@pytest.fixture(scope='module')
def params(model):
  return parameters(model)
