"""Ways to guide, on the exact denoiser of four modes: they do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from kaleido_jax import steering
from kaleido_jax.diffusion import mixture, sampler, schedule
from kaleido_jax.models.kaleido import Tokens

TOY = mixture.toy()
SCHEDULES = (schedule.create('squared_cosine', 1000),)
KEYS = sampler.keys(0, np.arange(8))
POINT = schedule.at(SCHEDULES, jnp.int32(600))
XS = (jax.random.normal(jax.random.key(1), (8, 2)),)


def tokens(shares) -> Tokens:
  """Shares of the modes as one token of the condition."""
  features = jnp.tile(jnp.float32(shares)[None, None], (8, 1, 1))
  return Tokens(features, jnp.ones((8, 1), bool))


CONDITIONS = steering.Conditions(
  null=tokens([0.25, 0.25, 0.25, 0.25]),
  caption=tokens([0.7, 0.3, 0, 0]),
  full=tokens([1, 0, 0, 0]),
  is_latent=jnp.ones((8, 1), bool),
)


def estimate(xs, point, told):
  shares = jnp.abs(told.features[:, 0])  # noise may be negative
  return TOY.model(xs, point, shares / shares.sum(1, keepdims=True))


def sample(*methods, **changed):
  found = default.get_config().sample
  found.update({'methods': methods, 'threshold': 'none', 'guidance': 3.0})
  found.update_from_flattened_dict(changed)
  return found


def guided(asked, conditions=CONDITIONS):
  denoiser = steering.denoise(
    *(steering.plan(asked), steering.numbers(asked)),
    *(estimate, conditions, KEYS),
  )
  (x0,), _ = denoiser.apply(XS, POINT, denoiser.init(XS))
  return np.asarray(x0)


def told(tokens):
  return np.asarray(estimate(XS, POINT, tokens)[0])


def test_without_methods_it_is_classifier_free_guidance():
  null, full = told(CONDITIONS.null), told(CONDITIONS.full)
  np.testing.assert_allclose(
    guided(sample()), null + 3.0 * (full - null), atol=1e-5
  )


def test_weights_apart_add_up_as_two_differences():
  null, caption, full = (told(c) for c in CONDITIONS[:3])
  np.testing.assert_allclose(
    guided(sample('apart', **{'apart.caption': 2.0})),
    null + 2.0 * (caption - null) + 3.0 * (full - caption),
    atol=1e-5,
  )


@pytest.mark.parametrize(
  ('low', 'high', 'on'), [(0, 99, True), (0, 1e-3, False)]
)
def test_outside_the_interval_nothing_is_guided(low, high, on):
  asked = sample('interval', **{'interval.low': low, 'interval.high': high})
  expected = guided(sample()) if on else told(CONDITIONS.full)
  np.testing.assert_allclose(guided(asked), expected, atol=1e-5)


def test_dynamic_guidance_waits_for_less_noise():
  early = sample('dynamic', **{'dynamic.tau1': 0.1, 'dynamic.tau2': 0.5})
  late = sample('dynamic', **{'dynamic.tau1': 0.7, 'dynamic.tau2': 0.9})
  np.testing.assert_allclose(guided(early), told(CONDITIONS.full), atol=1e-5)
  np.testing.assert_allclose(guided(late), guided(sample()), atol=1e-5)


def test_rescaling_restores_the_deviation():
  full = told(CONDITIONS.full)
  whole = guided(sample('rescale', **{'rescale.amount': 1.0}))
  np.testing.assert_allclose(whole.std(1), full.std(1), rtol=1e-4)
  none = guided(sample('rescale', **{'rescale.amount': 0.0}))
  np.testing.assert_allclose(none, guided(sample()), atol=1e-5)


def test_a_projection_that_keeps_all_changes_nothing():
  kept = {'apg.parallel': 1.0, 'apg.radius': np.inf, 'apg.momentum': 0.0}
  np.testing.assert_allclose(
    guided(sample('apg', **kept)), guided(sample()), atol=1e-4
  )
  full = told(CONDITIONS.full)
  d = guided(sample('apg', **kept | {'apg.parallel': 0.0})) - full
  np.testing.assert_allclose((d * full).sum(1), 0, atol=1e-4)


def test_annealing_noises_what_the_best_estimate_reads():
  noisy = {'cads.tau1': 0.1, 'cads.tau2': 0.2}
  late = {'cads.tau1': 0.7}  # now it is .6
  far, near = sample('cads', **noisy), sample('cads', **late)
  assert np.abs(guided(far) - guided(sample())).max() > 0.01
  np.testing.assert_allclose(guided(near), guided(sample()), atol=1e-5)
  # Of the caption alone: there is none here.
  of_caption = sample('cads', **noisy | {'cads.apply_to': 'c'})
  np.testing.assert_allclose(guided(of_caption), guided(sample()), atol=1e-5)


def test_particles_push_apart():
  def spread(x):
    return np.linalg.norm(x[:, None] - x[None], axis=-1).sum()

  pushed = guided(sample('particles', **{'particles.weight': 5.0}))
  assert spread(pushed) > spread(guided(sample()))


def test_methods_go_together():
  # Of these two, one says what pictures are led away from.
  names = sorted({*steering.METHODS} - {'autoguidance'})
  together = sample(*names)
  assert np.isfinite(guided(together)).all()
  assert steering.plan(together).methods == tuple(names)


def test_what_there_is_not_is_named():
  with pytest.raises(ValueError, match="names 'magic'; there are apart, "):
    steering.plan(sample('magic'))
  with pytest.raises(ValueError, match="apply_to='x' is not one of"):
    steering.plan(sample(**{'cads.apply_to': 'x'}))
  with pytest.raises(ValueError, match="threshold='round' is not one of"):
    steering.plan(sample(threshold='round'))
  assert set(steering.METHODS) <= set(sample())
