import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models

from kaleido_jax.models import t5
from kaleido_jax.models.t5_layers import Part, RMSNorm, relative_buckets

DROPOUT = 0.25


@pytest.fixture(scope='module')
def inputs():
  ids = jax.random.randint(jax.random.key(1), (2, 5), 2, 40)
  targets = jax.random.randint(jax.random.key(2), (2, 4), 2, 40)
  return ids, jnp.arange(5) < jnp.array([5, 2])[:, None], targets


@pytest.mark.parametrize('num_buckets, max_distance', [(32, 128), (16, 50)])
@pytest.mark.parametrize('bidirectional', [True, False])
def test_buckets_have_their_exact_edges(
  num_buckets, max_distance, bidirectional
):
  """In whole numbers, where no logarithm can round.

  With e exact buckets of n, a distance d is in bucket e + i or a later one if
  d >= e (D / e)^(i / (n - e)), that is d^(n - e) e^i >= D^i e^(n - e).
  """
  n = num_buckets // 2 if bidirectional else num_buckets
  e, rest = n // 2, n - n // 2

  def expected(distance):  # of key from query
    d = abs(distance) if bidirectional else max(-distance, 0)
    side = n if bidirectional and distance > 0 else 0
    if d < e:
      return side + d
    reached = (d**rest * e**i >= max_distance**i * e**rest for i in range(rest))
    return side + e - 1 + sum(reached)

  distances = range(-3 * max_distance, 3 * max_distance)
  found = relative_buckets(
    jnp.array(distances),
    bidirectional=bidirectional,
    num_buckets=num_buckets,
    max_distance=max_distance,
  )
  np.testing.assert_array_equal(found, [expected(d) for d in distances])
  assert set(np.unique(found)) >= set(range(n))


def test_rms_norm_has_unit_root_mean_square_and_keeps_the_mean():
  x = 3 + 1e3 * jax.random.normal(jax.random.key(0), (2, 3, 64), jnp.bfloat16)
  y = RMSNorm('float32').apply({'params': {'scale': jnp.ones(64)}}, x)
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(jnp.square(y).mean(-1), 1, rtol=1e-5)
  # A positive multiple of x: nothing was subtracted.
  ratio = y / x
  np.testing.assert_allclose(ratio, ratio[..., :1].repeat(64, -1), rtol=1e-5)


def test_dropout_keeps_the_mean_and_drops_whole_features_of_a_sequence():
  part = Part(t5_models.tiny(dropout=DROPOUT))
  x = 1 + jax.random.uniform(jax.random.key(0), (2, 3, 4))
  keys = jax.random.split(jax.random.key(1), 4000)
  y = jax.vmap(
    lambda key: part.apply({}, x, rngs={'dropout': key}, method='drop')
  )(keys)
  # Five standard errors of a mean of x * Bernoulli(1 - p) / (1 - p).
  bound = 5 * 2 * (DROPOUT / (1 - DROPOUT) / 4000) ** 0.5
  np.testing.assert_allclose(y.mean(0), x, rtol=0, atol=bound)
  kept = np.asarray(y != 0)
  np.testing.assert_array_equal(kept, kept[:, :, :1].repeat(3, 2))
  np.testing.assert_allclose(kept.mean(), 1 - DROPOUT, atol=0.01)
  rows = kept[:, :, 0]  # draws of their own for every row and feature
  assert (rows[:, 0] != rows[:, 1]).any() and rows.any(2).mean() > 0.98


def test_dropout_is_active_only_with_an_rng(inputs):
  config = t5_models.tiny(dropout=DROPOUT)
  module = t5.T5(config)
  params = t5_models.random_params(config)

  @t5_models.jit
  def noisy(key):
    return module.apply({'params': params}, *inputs, rngs={'dropout': key})

  _, *silent = t5_models.run(module, params, *inputs)
  plain = t5.T5(dataclasses.replace(config, dropout=0.0))
  _, *expected = t5_models.run(plain, params, *inputs)
  np.testing.assert_array_equal(silent[1], expected[1])
  one, again, other = (noisy(jax.random.key(i))[1] for i in (0, 0, 1))
  np.testing.assert_array_equal(one, again)
  for a, b in itertools.combinations([one, other, silent[1]], 2):
    assert jnp.abs(a - b).max() > 0.1


@pytest.fixture(scope='module')
def losses(inputs):
  """The loss of each remat policy, and parameters for it."""
  config = t5_models.tiny(dropout=DROPOUT)

  def loss(remat):
    module = t5.T5(dataclasses.replace(config, remat=remat))

    def apply(params):
      rngs = {'dropout': jax.random.key(3)}
      states, logits = module.apply({'params': params}, *inputs, rngs=rngs)
      return jnp.square(states).mean() + jax.nn.softmax(logits)[..., 0].sum()

    return apply

  params = t5_models.random_params(config)
  return params, {name: loss(name) for name in ('none', 'full', 'dots')}


@pytest.mark.slow  # of UNets: test_unet
def test_remat_changes_neither_values_nor_gradients(losses):
  params, losses = losses
  results = {
    k: t5_models.jit(jax.value_and_grad(f))(params) for k, f in losses.items()
  }
  value, gradient = results.pop('none')
  assert min(jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 0
  for other_value, other_gradient in results.values():
    np.testing.assert_allclose(other_value, value, rtol=1e-6)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      other_gradient,
      gradient,
    )


def test_remat_keeps_less_for_the_backward_pass(losses):
  params, losses = losses

  def kept(loss):
    # The backward pass is a pytree, whose leaves are what it will need.
    residuals = jax.eval_shape(lambda p: jax.vjp(loss, p)[1], params)
    return sum(leaf.size for leaf in jax.tree.leaves(residuals))

  sizes = {name: kept(loss) for name, loss in losses.items()}
  assert sizes['full'] < sizes['dots'] < sizes['none']
