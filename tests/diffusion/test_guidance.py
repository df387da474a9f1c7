import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from pyramids import (
  CLASS_A,
  CZ,
  DDPM,
  EVERY,
  NULL,
  NUM,
  PAIR,
  POINT,
  SCHEDULES,
  TOY,
  XS,
  C,
  close,
  estimate,
  mix,
  model,
)

from kaleido_jax.diffusion import (
  cads,
  denoiser,
  guidance,
  sampler,
  schedule,
)

traced = []


@jax.jit
def draw_toy(condition, weight, keys):
  traced.append('toy')
  ladder = guidance.by_condition(TOY.model, EVERY, condition)
  (x,), _ = sampler.sample(
    guidance.guide(ladder, weight),
    SCHEDULES,
    sampler.grid(250, 1000, spacing='reference'),
    sampler.gaussian(keys, [(2,)]),
    solver=DDPM,
  )
  return x


@pytest.mark.parametrize('weight, share', [(1, 0.51), (8, 0.96), (25, 0.99)])
def test_guidance_collapses_a_class_unless_a_latent_names_the_mode(
  weight, share
):
  # The shares were computed by another program than ours.
  keys = sampler.keys(0, np.arange(NUM))
  by_class = jnp.broadcast_to(CLASS_A, (NUM, 4))
  x = draw_toy(by_class, float(weight), keys)
  assert abs(np.mean(x[:, 0] < -0.9) - share) < 0.02
  z = jax.random.randint(jax.random.key(5), (NUM,), 0, 2)
  x = draw_toy(jax.nn.one_hot(z, 4), float(weight), keys)
  outer = x[:, 0] < -0.9
  assert abs(np.mean(outer) - 0.5) < 0.05
  assert np.mean(outer == (z == 0)) > 0.999
  assert np.mean(x[:, 0] < 0) > 0.98  # nor does it leave its class
  np.testing.assert_array_less(np.abs(x[:, 1]), 1)


def test_weight_1_is_the_conditional_and_weight_0_the_unconditional():
  ladder = guidance.by_condition(model, NULL, C)
  for got, condition in [
    (estimate(guidance.guide(ladder, 1.0)), C),
    (estimate(guidance.guide(ladder, 0.0)), NULL),
  ]:
    close(got, model(XS, POINT, condition), 1e-6)
  always = guidance.guide(ladder, lambda point: 1.0)
  close(estimate(always), model(XS, POINT, C), 1e-6)


def test_guidance_is_the_papers_formula():
  ladder = guidance.by_condition(model, NULL, C)
  c, u = model(XS, POINT, C), model(XS, POINT, NULL)
  got = estimate(guidance.guide(ladder, 4.5))
  close(got, mix((4.5, c), (-3.5, u)))


def test_two_weights_guide_caption_and_latents_apart():
  rungs = [model(XS, POINT, condition) for condition in (NULL, C, CZ)]
  ladder = guidance.by_condition(model, NULL, C, CZ)
  got = estimate(guidance.guide(ladder, 3.0, 5.0))
  close(got, mix((1 - 3, rungs[0]), (3 - 5, rungs[1]), (5, rungs[2])))
  # Equal weights are plain guidance by both.
  both = estimate(guidance.guide(ladder, 3.0, 3.0))
  plain = guidance.guide(guidance.by_condition(model, NULL, CZ), 3.0)
  close(both, estimate(plain))


def test_every_image_may_have_a_weight():
  ladder = guidance.by_condition(model, NULL, C)
  got = estimate(guidance.guide(ladder, jnp.array([0.0, 1.0, 7.0])))
  for i, weight in enumerate((0.0, 1.0, 7.0)):
    alone = estimate(guidance.guide(ladder, weight))
    close([x[i] for x in got], [x[i] for x in alone], 1e-6)


def test_one_call_holds_all_conditions_the_null_one_first():
  seen = []

  def network(xs, point, condition):
    seen.append((xs, condition))
    return model(xs, point, condition)

  ladder = guidance.by_condition(network, NULL[:1], C)
  estimate(guidance.guide(ladder, 3.0))
  ((xs, condition),) = seen
  assert [len(x) for x in xs] == [6, 6]
  np.testing.assert_array_equal(condition[0::2], np.repeat(NULL[:1], 3, 0))
  np.testing.assert_array_equal(condition[1::2], C)
  np.testing.assert_array_equal(xs[0][0::2], XS[0])


def test_guidance_moves_nothing_between_devices():
  mesh = jax.make_mesh((8,), ('data',))
  rows = NamedSharding(mesh, P('data'))
  xs = (jax.ShapeDtypeStruct((16, 4, 4, 1), jnp.float32, sharding=rows),)
  c = jax.ShapeDtypeStruct((16, 5), jnp.float32, sharding=rows)

  def run(xs, c):
    point = schedule.at(SCHEDULES, jnp.array(400))
    ladder = guidance.by_condition(model, NULL[:1], c)
    return estimate(guidance.guide(ladder, 3.0), point, xs)

  program = jax.jit(run).lower(xs, c).compile().as_text()
  for word in ('all-gather', 'all-to-all', 'collective-permute', 'all-reduce'):
    assert word not in program


def counted():
  rows = []

  def network(xs, point, condition):
    jax.debug.callback(lambda: rows.append(len(xs[0])))
    return model(xs, point, condition)

  return network, rows


def test_outside_the_interval_the_null_half_is_not_computed():
  network, rows = counted()
  times = jnp.array([900, 700, 500, 300, 100])
  levels = [float(p.sigmas[-1] / p.alphas[-1]) for p in
            (schedule.at(PAIR, t) for t in times)]  # fmt: skip

  @jax.jit
  def run(t, weight, low, high):
    traced.append('interval')
    ladder = guidance.by_condition(network, NULL, C)
    guided = guidance.guide(ladder, guidance.interval(weight, low, high))
    return estimate(guided, schedule.at(PAIR, t))

  def sizes(weight, low, high):
    rows.clear()
    for t in times:
      got = run(t, weight, low, high)
      jax.effects_barrier()
      point = schedule.at(PAIR, t)
      if rows[-1] == 3:
        close(got, model(XS, point, C), 1e-6)
      else:
        c, u = model(XS, point, C), model(XS, point, NULL)
        close(got, mix((weight, c), (1 - weight, u)))
    return rows[:]

  # Open below, closed above.
  assert sizes(4.0, levels[3], levels[1]) == [3, 6, 6, 3, 3]
  before = len(traced)
  assert sizes(9.0, levels[4], levels[2]) == [3, 3, 6, 6, 3]
  assert sizes(1.0, 0.0, np.inf) == [3, 3, 3, 3, 3]
  assert len(traced) == before


def test_dynamic_guidance_fades_in():
  ladder = guidance.by_condition(model, NULL, C)
  points = [schedule.at(PAIR, jnp.array(t)) for t in (950, 750, 300)]
  for point, weight in zip(points, (1.0, 2.5, 4.0), strict=True):
    faded = guidance.guide(ladder, guidance.dynamic(4.0, 0.6, 0.9))
    plain = guidance.guide(ladder, weight)
    close(estimate(faded, point), estimate(plain, point))
  # Schedules nest.
  both = guidance.interval(guidance.dynamic(4.0, 0.6, 0.9), 0.0, 1e-3)
  assert float(both(points[2])) == 1.0


def test_a_weaker_network_below_is_autoguidance():
  strong = denoiser.conditional(model, C)
  network, rows = counted()
  weak = denoiser.conditional(network, CZ)
  ladder = guidance.by_network(weak, strong)
  good, bad = model(XS, POINT, C), model(XS, POINT, CZ)
  close(estimate(guidance.guide(ladder, 2.5)), mix((2.5, good), (-1.5, bad)))
  jax.effects_barrier()
  assert rows == [3]
  idle = jax.jit(lambda w: estimate(guidance.guide(ladder, lambda point: w)))
  close(idle(1.0), good, 1e-6)
  jax.effects_barrier()
  assert rows == [3]


def test_rescaling_restores_each_images_deviation():
  ladder = guidance.by_condition(model, NULL, C)
  top = model(XS, POINT, C)
  plain = estimate(guidance.guide(ladder, 8.0))
  full = estimate(guidance.guide(ladder, 8.0, rescale=1.0))
  half = estimate(guidance.guide(ladder, 8.0, rescale=0.5))
  close(estimate(guidance.guide(ladder, 8.0, rescale=0.0)), plain, 0)
  close(half, mix((0.5, full), (0.5, plain)))
  for x, y, z in zip(full, top, plain, strict=True):
    deviations = [np.std(i.reshape(3, -1), axis=1) for i in (x, y, z)]
    np.testing.assert_allclose(deviations[0], deviations[1], rtol=1e-4)
    assert np.abs(deviations[2] - deviations[1]).max() > 0.01


def test_nothing_to_guide_by_is_finite():
  def zero(xs, point, condition):
    return jax.tree.map(jnp.zeros_like, xs)

  ladder = guidance.by_condition(zero, NULL, C)
  for guided in (
    *(
      guidance.guide(
        ladder,
        5.0,
        projection=guidance.Projection(radius=radius, momentum=-0.5),
        rescale=0.7,
      )
      for radius in (0.0, 1.0, np.inf)
    ),
    guidance.particles(guidance.guide(ladder, 5.0), 1.0),
  ):
    assert all(np.isfinite(x).all() for x in estimate(guided))


def test_the_null_condition_is_not_annealed():
  seen = []

  def network(xs, point, condition):
    seen.append(condition)
    return tuple(jnp.zeros_like(x) for x in xs)

  y = jnp.ones((3, 2, 8)) * jnp.arange(8)
  null = jnp.zeros((1, 2, 8))
  noisy = cads.anneal(
    y, jnp.ones((3, 2)) > 0, sampler.keys(0, np.arange(3)),
    tau1=0.3, tau2=0.5, scale=0.2, psi=1.0,
  )  # fmt: skip
  estimate(guidance.guide(guidance.by_condition(network, null, noisy), 3.0))
  condition = seen[0]
  np.testing.assert_array_equal(condition[0::2], np.zeros((3, 2, 8)))
  np.testing.assert_allclose(condition[1::2], noisy(POINT), atol=1e-6)
  assert np.abs(condition[1::2] - y).max() > 0.1


def test_all_methods_compose_and_none_of_their_numbers_compiles():
  y = jnp.broadcast_to(CLASS_A[:, None], (8, 1, 4))
  keys = sampler.keys(0, np.arange(8))
  chosen = jnp.ones((8, 1)) > 0
  noise = sampler.gaussian(keys, [(2,)])

  def by_token(xs, point, condition):
    weights = jnp.abs(condition[:, 0]) + 1e-6
    return TOY.model(xs, point, weights)

  @jax.jit
  def run(times, solver, weight, limits, taus, cads_options, projection, rest):
    traced.append('all')
    condition = cads.anneal(y, chosen, keys, **cads_options)
    strength = guidance.dynamic(guidance.interval(weight, *limits), *taus)
    ladder = guidance.by_condition(by_token, EVERY[:, None], condition)
    guided = guidance.guide(
      ladder, strength, projection=projection, rescale=rest['rescale']
    )
    weak = denoiser.conditional(by_token, EVERY[:, None])
    guided = guidance.guide(guidance.by_network(weak, guided), rest['auto'])
    guided = guidance.particles(guided, rest['apart'])
    guided = denoiser.dynamic_clip(
      guided, quantile=rest['quantile'], ceiling=rest['ceiling']
    )
    guided = denoiser.clip(guided, rest['clip'])
    return sampler.sample(guided, SCHEDULES, times, noise, solver=solver)[0][0]

  def call(n, solver, scale):
    return run(
      sampler.grid(n, 1000, spacing='trailing'),
      sampler.SOLVERS[solver],
      3.0 * scale,
      (0.1 * scale, 20.0 * scale),
      (0.6 * scale, 0.9 * scale),
      dict(tau1=0.6 * scale, tau2=0.9, scale=0.1 * scale, psi=0.8 * scale),
      guidance.Projection(
        parallel=0.1 * scale, radius=3.0 * scale, momentum=-0.3 * scale
      ),
      dict(
        rescale=0.5 * scale, auto=1.2 * scale, apart=0.1 * scale,
        quantile=0.9 * scale, ceiling=2.0 * scale, clip=1.9 * scale,
      ),
    )  # fmt: skip

  first = call(10, 'ddpm', 1.0)
  before = len(traced)
  second = call(16, 'dpm++', 1.05)
  assert len(traced) == before
  assert np.isfinite(first).all() and np.isfinite(second).all()
  assert np.abs(first - second).max() > 0.01


@pytest.mark.parametrize(
  'call, message',
  [
    (
      lambda: guidance.guide(guidance.by_condition(model, NULL, C), 1.0, 2.0),
      '2 weights for a ladder of 2 estimates; give 1',
    ),
    (
      lambda: estimate(
        guidance.guide(guidance.by_condition(model, NULL[:2], C), 2.0)
      ),
      'a condition has 2 rows for 3 images',
    ),
    (
      lambda: estimate(
        guidance.guide(guidance.by_condition(model, NULL[:, :2], C), 2.0)
      ),
      'cannot share one call of the network; pad them',
    ),
  ],
)
def test_bad_arguments_get_a_sentence(call, message):
  with pytest.raises(ValueError, match=message):
    call()
