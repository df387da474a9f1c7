import jax.numpy as jnp
import numpy as np
import pytest

from kaleido_jax.diffusion import denoiser, schedule
from kaleido_jax.diffusion.denoiser import Denoiser

SCHEDULES = schedule.create('squared_cosine', 1000).pyramid((2, 1))
POINT = schedule.at(SCHEDULES, jnp.array(400))


def fixed(*x0s):
  return Denoiser(lambda xs, point, state: (x0s, state))


def test_a_model_turns_predictions_into_images():
  x0s = (jnp.full((3, 4, 4, 1), 0.5), jnp.full((3, 2, 2, 1), -0.5))
  eps = (jnp.full((3, 4, 4, 1), 1.5), jnp.full((3, 2, 2, 1), 0.3))
  scales = list(zip(POINT.alphas, POINT.sigmas, strict=True))
  xs = tuple(
    a * x0 + s * e for x0, e, (a, s) in zip(x0s, eps, scales, strict=True)
  )

  def network(xs, times, condition):
    np.testing.assert_array_equal(times, [399] * 3)
    assert condition == 'caption'
    return tuple(
      (a * e - s * x0).astype(jnp.bfloat16)
      for x0, e, (a, s) in zip(x0s, eps, scales, strict=True)
    )

  model = denoiser.model(network, prediction='v')
  got, state = denoiser.conditional(model, 'caption').apply(xs, POINT, ())
  assert state == ()
  for x0, wanted in zip(got, x0s, strict=True):
    assert x0.dtype == jnp.float32
    np.testing.assert_allclose(x0, wanted, atol=0.01)


def test_clip_has_a_limit_for_all_or_for_each_resolution():
  wide = fixed(jnp.array([[3.0, -0.2]]), jnp.array([[-3.0]]))
  high, low = denoiser.clip(wide).apply((), POINT, ())[0]
  np.testing.assert_allclose(high, [[1, -0.2]])
  np.testing.assert_allclose(low, [[-1]])
  high, low = denoiser.clip(wide, (0.5, 2.0)).apply((), POINT, ())[0]
  np.testing.assert_allclose(high, [[0.5, -0.2]])
  np.testing.assert_allclose(low, [[-2]])


@pytest.mark.parametrize('quantile, ceiling', [(0.995, 100), (0.95, 1.5)])
def test_dynamic_clip_matches_numpy_image_by_image(quantile, ceiling):
  x0 = np.random.default_rng(0).normal(size=(3, 8, 8, 3)) * [
    [[[1]]],
    [[[9]]],
    [[[0.1]]],
  ]
  x0 = np.float32(x0)
  guarded = denoiser.dynamic_clip(
    fixed(jnp.asarray(x0)), quantile=quantile, ceiling=ceiling
  )
  (got,), _ = guarded.apply((), POINT, ())
  for image, clipped in zip(x0, got, strict=True):
    bound = np.clip(np.quantile(np.abs(image), quantile), 1, ceiling)
    np.testing.assert_allclose(
      clipped, np.clip(image, -bound, bound) / bound, atol=1e-5
    )
  # The faint image keeps its values: the bound is never below 1.
  np.testing.assert_array_equal(got[2], x0[2])


def test_a_bounded_network_stays_within_its_scale():
  network = denoiser.bounded(lambda xs, times: xs, 1.5)
  (got,) = network((jnp.array([[-50.0, 0.01, 50.0]]),), None)
  np.testing.assert_allclose(got, [[-1.5, 0.01, 1.5]], atol=1e-4)


@pytest.mark.parametrize(
  'name, wanted',
  [('none', [3, -2]), ('clip', [1, -1]), ('dynamic', [1, -2 / 3])],
)
def test_thresholds_have_names(name, wanted):
  guarded = denoiser.THRESHOLDS[name](
    fixed(jnp.array([[3.0, -2.0]])), quantile=1.0, ceiling=9.0
  )
  np.testing.assert_allclose(guarded.apply((), POINT, ())[0][0][0], wanted)


def test_a_quantile_in_percent_is_refused():
  with pytest.raises(ValueError, match='for 99.5 % give 0.995'):
    denoiser.dynamic_clip(fixed(), quantile=99.5, ceiling=100.0)
