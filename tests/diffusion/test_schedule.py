import jax
import jax.numpy as jnp
import numpy as np
import packing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaleido_jax.diffusion import loss, sampler, schedule

REFERENCE = {
  'cosine': 'cosine',
  'linear': 'ddpm',
  'squared_cosine': 'deepfloyd',
}
NAMES = sorted(schedule.SCHEDULES)


@pytest.fixture(scope='module')
def recorded(data):
  return packing.read(data / 'mdm/schedules.npz.xz')


@pytest.mark.parametrize('num_times', [1000, 64])
@pytest.mark.parametrize('name', NAMES)
def test_tables_equal_the_reference_bit_for_bit(recorded, name, num_times):
  ours = schedule.create(name, num_times)
  prefix = f'{REFERENCE[name]}/N{num_times}/'
  np.testing.assert_array_equal(ours.gammas, recorded[prefix + 'gammas'])
  assert ours.gammas.dtype == np.float32
  assert ours.num_times == num_times
  shifts = 0
  for scale in (4, 16):
    for power in (1, 2):
      key = f'{prefix}gammas_shift{scale}_power{power}'
      if key in recorded:
        shifted = ours.shift(scale, power).gammas
        np.testing.assert_array_equal(shifted, recorded[key])
        shifts += 1
  assert shifts >= 2
  t = jnp.arange(num_times + 1)
  np.testing.assert_array_equal(
    loss.snr_decay(ours, t), recorded[prefix + 'vdm_loss_weights']
  )


@pytest.mark.parametrize('name', NAMES)
def test_alpha_and_sigma_match_the_reference(recorded, name):
  ours = schedule.create(name, 1000)
  t = jnp.asarray(recorded['selected_t'])
  # One unit in the last place: PyTorch's vectorised root is not always rounded
  # to the nearest number, numpy's and XLA's are.
  for got, wanted in [
    (ours.alpha(t), recorded[f'{REFERENCE[name]}/alpha_selected']),
    (ours.sigma(t), recorded[f'{REFERENCE[name]}/sigma_selected']),
  ]:
    np.testing.assert_array_max_ulp(np.asarray(got), wanted, maxulp=1)


@pytest.mark.parametrize('name', NAMES)
@settings(max_examples=15, deadline=None)
@given(
  num_times=st.sampled_from([2, 64, 1000]),
  scale=st.floats(1, 16),
  power=st.sampled_from([1.0, 2.0]),
)
def test_properties_hold_for_any_shift(name, num_times, scale, power):
  base = schedule.create(name, num_times)
  shifted = base.shift(scale, power)
  t = jnp.arange(num_times + 1)
  for one in (base, shifted):
    np.testing.assert_allclose(
      one.alpha(t) ** 2 + one.sigma(t) ** 2, 1, atol=2e-7
    )
    assert one.alpha(t)[0] == 1 and one.sigma(t)[0] == 0
    assert np.all(np.diff(one.logsnr(t)[1:]) < 0)
    assert one.logsnr(t)[0] == np.inf
  moved = (shifted.logsnr(t) - base.logsnr(t))[1:]
  # gamma_1 is so near 1 that float32 holds 1 - gamma_1 to 1e-3.
  np.testing.assert_allclose(moved, -power * np.log(scale), atol=5e-3)


def test_squared_cosine_is_a_cosine():
  # Independently: alpha_t = cos of a line, but for the cap on the last step.
  ours = schedule.create('squared_cosine', 1000)
  u = np.arange(0, 1000, 7) / 1000
  angle = (u + 0.008) / 1.008 * np.pi / 2
  wanted = np.cos(angle) / np.cos(angle[0])
  np.testing.assert_allclose(ours.alpha(jnp.arange(0, 1000, 7)), wanted, 1e-4)


def test_cosine_ends_at_plus_and_minus_five():
  ours = schedule.create('cosine', 1000)
  ends = ours.logsnr(jnp.array([1, 1000]))
  np.testing.assert_allclose(ends, [5, -5], atol=1e-4)


def test_cosine_shift4_is_snr_over_4():
  high, low = schedule.create('cosine', 1000).pyramid((4, 1))
  t = jnp.array([1, 500, 1000])
  np.testing.assert_allclose(
    np.exp(low.logsnr(t) - high.logsnr(t)), 4, rtol=1e-4
  )
  assert low.shift(1) is low


def test_a_schedule_passes_through_transformations():
  base = schedule.create('linear', 64)
  t = jnp.array([3, 5])
  inside = jax.jit(lambda s, t: s.shift(2).alpha(t))(base, t)
  np.testing.assert_allclose(inside, base.shift(2).alpha(t), rtol=1e-6)


def test_a_point_reads_every_resolution():
  schedules = schedule.create('cosine', 100).pyramid((4, 1))
  point = schedule.at(schedules, jnp.array(25))
  assert point.fraction == 0.25
  assert point.alphas[0] < point.alphas[1]
  assert point.sigmas[0] > point.sigmas[1]


@pytest.mark.parametrize(
  'call, message',
  [
    (
      lambda: schedule.create('sigmoid', 1000),
      'squared_cosine, cosine, linear',
    ),
    (lambda: schedule.create('cosine', 1), 'num_times=1'),
    (lambda: schedule.create('cosine', 10).shift(0), 'scale=0'),
    (lambda: sampler.grid(0, 1000, spacing='uniform'), 'num_steps=0'),
    (lambda: sampler.grid(65, 64, spacing='uniform'), 'num_steps=65'),
    (lambda: sampler.grid(8, 64, spacing='karras'), 'reference, uniform'),
  ],
)
def test_bad_arguments_get_a_sentence(call, message):
  with pytest.raises(ValueError, match=message):
    call()
