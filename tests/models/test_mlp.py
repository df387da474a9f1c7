import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filling import filled

from kaleido_jax.models.mlp import MLP


@pytest.fixture(scope='module')
def setup():
  module = MLP(width=16, num_layers=2)
  xs = (
    jax.random.normal(jax.random.key(1), (3, 2)),
    jax.random.normal(jax.random.key(2), (3, 2, 2, 3)),
  )
  mask = jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
  args = xs, jnp.arange(3), jnp.ones((3, 3, 5)), mask
  params = filled(module.init, *args)['params']
  return jax.jit(lambda *args: module.apply({'params': params}, *args)), args


def test_it_is_called_like_the_unets(setup):
  run, (xs, *rest) = setup
  outputs = run(xs, *rest)
  assert [y.shape for y in outputs] == [x.shape for x in xs]
  assert all(jnp.isfinite(y).all() for y in outputs)


def test_padding_changes_nothing(setup):
  run, (xs, times, features, mask) = setup
  changed = jnp.where(mask[..., None] > 0, features, 99.0)
  for y, same in zip(
    run(xs, times, features, mask), run(xs, times, changed, mask), strict=True
  ):
    np.testing.assert_array_equal(y, same)


def test_it_reads_its_condition_and_the_time(setup):
  run, (xs, times, features, mask) = setup
  y, _ = run(xs, times, features, mask)
  louder, _ = run(xs, times, 2 * features, mask)
  later, _ = run(xs, times + 100, features, mask)
  assert (y != louder)[:2].any(-1).all() and (y == louder)[2].all()
  assert (y != later).any(-1).all()


def test_micro_conditions_are_refused(setup):
  run, args = setup
  with pytest.raises(ValueError, match="no micro-conditions, but got .'scale'"):
    run(*args, {'scale': jnp.ones(3)})
