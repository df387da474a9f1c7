import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaleido_jax.diffusion import cads, sampler, schedule

SCHEDULES = (schedule.create('squared_cosine', 1000),)
USUAL = dict(tau1=0.6, tau2=0.9, scale=0.15, psi=1.0)
MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]) > 0
Y = np.float32(np.random.default_rng(0).normal(2, 3, (3, 5, 64)))


@jax.jit
def anneal(y, chosen, t, seed, indices, options):
  condition = cads.anneal(y, chosen, sampler.keys(seed, indices), **options)
  return condition(schedule.at(SCHEDULES, t))


def annealed(fraction, y=Y, chosen=MASK, seed=0, indices=(0, 1, 2), **options):
  t, indices = np.int32(1000 * fraction), np.array(indices)
  return np.asarray(anneal(y, chosen, t, seed, indices, USUAL | options))


@given(
  fraction=st.floats(0, 1), tau1=st.floats(0, 1.2), width=st.floats(0, 0.5)
)
@settings(max_examples=50, deadline=None)
def test_the_ramp_falls_from_1_to_0(fraction, tau1, width):
  g = float(cads.ramp(fraction, tau1, tau1 + width))
  assert 0 <= g <= 1
  if fraction <= tau1:
    assert g == 1
  elif fraction >= tau1 + width + 1e-5:
    assert g == 0
  elif width > 1e-2:
    np.testing.assert_allclose(
      g, np.interp(fraction, [tau1, tau1 + width], [1, 0]), atol=1e-3
    )


@pytest.mark.parametrize('tau1', [1.0, 1.5])
def test_tau1_beyond_the_end_is_the_identity(tau1):
  for fraction in (0.001, 0.5, 1.0):
    same = annealed(fraction, tau1=tau1, tau2=1.0)
    np.testing.assert_array_equal(same, Y)


def test_the_condition_is_whole_below_tau1():
  np.testing.assert_array_equal(annealed(0.6), Y)
  assert np.abs(annealed(0.61) - Y)[MASK].max() > 0


def test_what_is_left_of_the_condition_is_a_root_and_the_rest_is_noise():
  y = np.zeros((1, 100, 100), np.float32)
  y[:, :, ::2] = 1
  hat = annealed(
    0.75, y, np.ones((1, 100)) > 0, indices=[0], psi=0.0, scale=0.2
  )
  difference = hat[:, :, ::2].mean() - hat[:, :, 1::2].mean()
  np.testing.assert_allclose(difference, np.sqrt(0.5), atol=0.015)
  spread = hat[:, :, ::2].std()
  np.testing.assert_allclose(spread, 0.2 * np.sqrt(0.5), rtol=0.05)


def test_rescaling_restores_mean_and_deviation_of_the_tokens():
  for fraction in (0.7, 0.95):
    got = annealed(fraction)
    assert np.abs(got - Y)[MASK].mean() > 0.05
    for mine, whole, mask in zip(got, Y, MASK, strict=True):
      tokens = np.float64(whole[mask])
      np.testing.assert_allclose(mine[mask].mean(), tokens.mean(), rtol=1e-4)
      np.testing.assert_allclose(mine[mask].std(), tokens.std(), rtol=1e-4)


def test_noise_alone_forgets_the_condition():
  other = -Y + 5
  np.testing.assert_allclose(
    annealed(0.95, psi=0.0)[MASK],
    annealed(0.95, other, psi=0.0)[MASK],
    atol=1e-6,
  )


@pytest.mark.parametrize('psi', [0.0, 0.4, 1.0])
def test_without_condition_and_noise_the_mean_is_left(psi):
  # g = 0 and s = 0: y_hat is 0 everywhere, its deviation is 0.
  got = annealed(1.0, scale=0.0, psi=psi)
  for mine, whole, mask in zip(got, Y, MASK, strict=True):
    np.testing.assert_allclose(mine[mask], psi * whole[mask].mean(), atol=1e-5)


@pytest.mark.parametrize('fraction', [0.0, 0.7, 0.9, 1.0])
@pytest.mark.parametrize('scale', [0.0, 0.15])
@pytest.mark.parametrize('psi', [0.0, 0.5, 1.0])
def test_degenerate_rows_stay_finite(fraction, scale, psi):
  y = np.stack([np.full((4, 8), 3.0), np.zeros((4, 8)), np.full((4, 8), 2.0)])
  y[2, 0] = 1e4
  chosen = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]) > 0
  with jax.debug_nans(True):  # not even where nobody looks
    got = annealed(fraction, np.float32(y), chosen, scale=scale, psi=psi)
  assert np.isfinite(got).all()
  np.testing.assert_array_equal(got[~chosen], y[~chosen])
  if psi == 1:
    # Equal tokens have deviation 0, and so has what they become.
    np.testing.assert_allclose(got[0], 3, rtol=1e-5)


def test_padding_and_neighbours_change_nothing():
  whole = annealed(0.7)
  longer = annealed(
    0.7,
    np.pad(Y, ((0, 0), (0, 4), (0, 0)), constant_values=99),
    np.pad(MASK, ((0, 0), (0, 4))),
  )
  np.testing.assert_allclose(longer[:, :5], whole, atol=1e-5)
  alone = annealed(0.7, Y[1:2], MASK[1:2], indices=[1])
  np.testing.assert_allclose(alone, whole[1:2], atol=1e-5)


def test_noise_differs_between_images_times_seeds_and_from_the_samplers():
  y, chosen = np.zeros((2, 3, 4), np.float32), np.ones((2, 3)) > 0

  def noise(fraction, seed=0):
    return annealed(fraction, y, chosen, seed, (0, 1), psi=0.0, scale=1.0)

  drawn = [noise(1.0)[0], noise(1.0)[1], noise(0.95)[0], noise(1.0, seed=1)[0]]
  other = sampler.gaussian(sampler.keys(0, [0]), [(3, 4)])(jnp.array(1000))
  values = np.concatenate([np.ravel(x) for x in [*drawn, *other]])
  assert len(np.unique(values)) == values.size


@pytest.mark.parametrize(
  'apply_to, wanted',
  [('c', [1, 1, 0, 0, 0]), ('z', [0, 0, 1, 1, 0]), ('both', [1, 1, 1, 1, 0])],
)
def test_only_the_chosen_part_is_annealed(apply_to, wanted):
  mask = np.array([[1, 1, 1, 1, 0]])
  is_latent = np.array([[0, 0, 1, 1, 1]])
  chosen = cads.tokens(mask, is_latent, apply_to)
  np.testing.assert_array_equal(chosen, [np.array(wanted) > 0])
  got = annealed(0.8, Y[:1], chosen, indices=[0])
  changed = np.abs(got - Y[:1]).max(-1) > 0
  np.testing.assert_array_equal(changed, chosen)


def test_half_precision_conditions_keep_their_type():
  y = jnp.asarray(Y, jnp.bfloat16)
  got = anneal(y, MASK, 700, 0, np.arange(3), USUAL)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    np.float32(got)[MASK], annealed(0.7)[MASK], atol=0.1
  )


def test_an_unknown_part_is_refused():
  with pytest.raises(ValueError, match="'x' is unknown; choose one of c, z"):
    cads.tokens(np.ones((1, 2)), np.ones((1, 2)), 'x')
