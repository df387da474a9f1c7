"""Projected guidance (APG)."""

import jax.numpy as jnp
import numpy as np
from pyramids import NULL, PAIR, POINT, XS, C, close, estimate, mix, model

from kaleido_jax.diffusion import (
  guidance,
  schedule,
)


def test_apg_that_keeps_everything_is_plain_guidance():
  ladder = guidance.by_condition(model, NULL, C)
  everything = guidance.Projection(parallel=1.0)
  got = estimate(guidance.guide(ladder, 6.0, projection=everything))
  close(got, estimate(guidance.guide(ladder, 6.0)))


def test_apg_is_orthogonal_to_the_estimate_and_no_longer_than_its_radius():
  ladder = guidance.by_condition(model, NULL, C)
  top = model(XS, POINT, C)
  plain = mix((5.0, top), (-5.0, model(XS, POINT, NULL)))
  for radius in (np.inf, 0.1):
    projection = guidance.Projection(radius=radius)
    got = estimate(guidance.guide(ladder, 6.0, projection=projection))
    for x, y, d in zip(got, top, plain, strict=True):
      moved = np.float64(x - y).reshape(3, -1)
      y, d = np.float64(y).reshape(3, -1), d.reshape(3, -1)
      assert np.abs((moved * y).sum(1)).max() < 1e-4
      if radius == np.inf:
        # Pythagoras: what is left is the plain direction less its shadow.
        shadow = (d * y).sum(1) / np.linalg.norm(y, axis=1)
        left = np.sqrt((d**2).sum(1) - shadow**2)
        np.testing.assert_allclose(np.linalg.norm(moved, axis=1), left, 1e-4)
      else:
        assert np.linalg.norm(moved, axis=1).max() <= 5 * radius * 1.0001


def test_apg_remembers_past_directions():
  ladder = guidance.by_condition(model, NULL, C)
  points = [schedule.at(PAIR, jnp.array(t)) for t in (500, 450, 400)]
  projection = guidance.Projection(parallel=1.0, momentum=-0.5)
  guided = guidance.guide(ladder, 3.0, projection=projection)
  state, average = guided.init(XS), 0.0
  for point in points:
    got, state = guided.apply(XS, point, state)
    top, bottom = model(XS, point, C), model(XS, point, NULL)
    average = np.float64(top[0]) - bottom[0] - 0.5 * average
    np.testing.assert_allclose(got[0], top[0] + 2 * average, atol=1e-5)
  fresh, _ = guided.apply(XS, points[-1], guided.init(XS))
  assert np.abs(fresh[0] - got[0]).max() > 1e-3
