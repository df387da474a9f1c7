import jax
import jax.numpy as jnp
import numpy as np
import packing
import pytest

from kaleido_jax.models import layers


@pytest.fixture(scope='module')
def blocks(data):
  return packing.read(data / 'mdm/blocks.npz.xz')


def heads(x):
  """(b, heads * k, positions) of the reference -> (b, positions, heads, k)."""
  b, c, n = x.shape
  return x.reshape(b, 8, c // 8, n).transpose(0, 3, 1, 2)


def test_attention_matches_the_reference(blocks):
  q, k, v = (heads(blocks[f'attnfn/{name}']) for name in 'qkv')
  y = layers.attention(q, k, v, scale=q.shape[-1] ** -0.5)
  np.testing.assert_allclose(y, heads(blocks['attnfn/y']), atol=2e-5)


def test_a_query_that_sees_no_key_gets_zeros_and_no_nan_gradient():
  q = k = v = jax.random.normal(jax.random.key(0), (2, 3, 1, 4))
  mask = jnp.array([[True, True, False], [False, False, False]])[:, None]

  def total(v):
    return layers.attention(q, k, v, scale=1.0, mask=mask).sum()

  y = layers.attention(q, k, v, scale=1.0, mask=mask)
  assert jnp.isfinite(y).all()
  assert jnp.abs(y[0]).min() > 0
  np.testing.assert_array_equal(y[1], 0)
  gradient = jax.grad(total)(v)
  assert jnp.isfinite(gradient).all()
  np.testing.assert_array_equal(gradient[1], 0)
  np.testing.assert_array_equal(gradient[0, 2], 0)  # a masked key


@pytest.mark.parametrize('width', [64, 128, 1024])
def test_sinusoid_matches_the_reference(blocks, width):
  times = jnp.asarray(blocks[f'temb/{width}/times'])
  y = layers.sinusoid(times, width // 4)
  # Half an ulp of a frequency, times t = 999.
  np.testing.assert_allclose(y, blocks[f'temb/{width}/sinusoid'], atol=3e-5)


def test_masked_mean_ignores_padding_and_survives_an_empty_row():
  x = jnp.array([[[1.0], [3.0], [1e9]], [[7.0], [8.0], [9.0]]])
  mask = jnp.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
  np.testing.assert_array_equal(layers.masked_mean(x, mask), [[2.0], [0.0]])


def test_group_norm_has_zero_mean_and_unit_variance_in_every_group():
  x = 5 + 3 * jax.random.normal(jax.random.key(0), (2, 6, 4, 64))
  module = layers.GroupNorm(groups=8)
  y = module.apply(module.init(jax.random.key(0), x), x)
  groups = np.asarray(y).reshape(2, 24, 8, 8).transpose(0, 2, 1, 3)
  groups = groups.reshape(2, 8, -1)
  np.testing.assert_allclose(groups.mean(-1), 0, atol=1e-5)
  np.testing.assert_allclose(groups.std(-1), 1, atol=1e-4)


def test_group_norm_says_which_channels_would_do():
  with pytest.raises(ValueError, match='48 channels.*32 groups.*multiple'):
    layers.GroupNorm().init(jax.random.key(0), jnp.zeros((1, 2, 2, 48)))


def test_initial_weights_fill_the_bound_of_the_reference():
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for bias and kernel alike."""
  variables = layers.Conv(512).init(jax.random.key(0), jnp.zeros((1, 4, 4, 16)))
  bound = 1 / 12  # fan_in = 9 * 16
  for leaf in jax.tree.leaves(variables):
    assert jnp.abs(leaf).max() <= bound
    np.testing.assert_allclose(leaf.std(), bound / 3**0.5, rtol=0.1)


def test_an_unknown_remat_policy_is_named():
  with pytest.raises(ValueError, match="'dotz' is not one of 'none'"):
    layers.checkpointed(layers.Dense, 'dotz')
