import functools

import jax
import jax.numpy as jnp
import numpy as np
import packing
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from recorded import QUICK, nhwc

from kaleido_jax.diffusion import (
  denoiser,
  guidance,
  mixture,
  sampler,
  schedule,
)
from kaleido_jax.diffusion.denoiser import Denoiser

SCHEDULES = (schedule.create('squared_cosine', 1000),)
MIXTURE = mixture.Mixture(
  means=np.float32([[-1, 0], [1, 0.5], [0.2, -1]]),
  covariances=np.float32(
    [
      [[0.04, 0.02], [0.02, 0.03]],
      [[0.02, 0], [0, 0.05]],
      [[0.03, -0.01], [-0.01, 0.02]],
    ]
  ),
)
WEIGHTS = np.float32([0.5, 0.3, 0.2])
EXACT = denoiser.conditional(MIXTURE.model, jnp.asarray(WEIGHTS)[None])
NUM = 20_000
traced = []


@jax.jit
def draw(times, keys, solver):
  traced.append(times.shape)
  noise = sampler.gaussian(keys, [(2,)])
  (x,), _ = sampler.sample(EXACT, SCHEDULES, times, noise, solver=solver)
  return x


@pytest.fixture(scope='module')
def recorded(data):
  return packing.read(data / 'mdm/sampling.npz.xz')


@pytest.fixture(scope='module')
def trajectory(networks):
  """Guided sampling with recorded noise; one program for all solvers."""

  @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
  def run(name, weight, solver, times, null, condition, start, steps):
    apply, params = networks[name]
    schedules = SCHEDULES[0].pyramid((2, 1)[-len(start) :])
    model = denoiser.model(functools.partial(apply, params), prediction='v')

    def noise(t):
      now = jnp.argmax(times == t)
      return tuple(
        jnp.where(t == 1000, x, recorded[now])
        for x, recorded in zip(start, steps, strict=True)
      )

    ladder = guidance.by_condition(model, null, condition)
    guided = denoiser.clip(guidance.guide(ladder, weight))
    return sampler.sample(
      guided, schedules, times, noise, solver=solver, preview=lambda x0s: x0s
    )

  return run


@pytest.mark.parametrize('method', ['ddpm', 'ddim0'])
@pytest.mark.parametrize('name', ['nested', 'unet'])
def test_trajectories_match_the_reference(recorded, trajectory, name, method):
  def read(key):
    return recorded[f'{name}/{method}_cfg3/{key}']

  levels = ('_hi', '_lo') if name == 'nested' else ('',)
  times = sampler.grid(8, 1000, spacing='reference')
  np.testing.assert_array_equal(times[:8], read('t')[:8])
  null, condition = (
    tuple(
      read(f'lm_{part}_uncond_then_cond')[rows] for part in ('features', 'mask')
    )
    for rows in (slice(0, 2), slice(2, 4))
  )
  start = tuple(nhwc(read(f'x_T{level}')) for level in levels)
  steps = []
  for level, x in zip(levels, start, strict=True):
    steps.append(np.zeros((len(times), *x.shape), np.float32))
    if method == 'ddpm':
      draws = nhwc(read(f'noise{level}'))
      steps[-1][1 : len(draws) + 1] = draws

  xs, x0s = trajectory(
    name,
    3.0,
    sampler.SOLVERS[method.rstrip('0')],
    times,
    null,
    condition,
    start,
    tuple(steps),
  )
  np.testing.assert_allclose(xs[0], nhwc(read('final')), atol=1e-4)
  for level, x, x0 in zip(levels, xs, x0s, strict=True):
    np.testing.assert_allclose(x0[:8], nhwc(read(f'x0{level}')), atol=1e-4)
    np.testing.assert_allclose(x, nhwc(read(f'x_s{level}'))[-1], atol=1e-4)


@pytest.mark.parametrize(
  'num_times, num_steps',
  [(1000, 8), (1000, 50), (1000, 250), (1000, 1000), (64, 8), (64, 10)],
)
def test_the_reference_grid_is_the_references(data, num_times, num_steps):
  recorded = packing.read(data / 'mdm/schedules.npz.xz')
  wanted = recorded[f'timesteps/N{num_times}_n{num_steps}']
  got = sampler.grid(num_steps, num_times, spacing='reference')
  np.testing.assert_array_equal(got[: num_steps + 1], wanted)
  assert not got[num_steps:].any()


@pytest.mark.parametrize('spacing', sorted(sampler.SPACINGS))
def test_grids_fall_strictly_and_fill_their_bucket(spacing):
  for num_times in (7, 64, 1000):
    for num_steps in {1, 2, 3, 7, 16, 17, 63, 64, 999, 1000}:
      if num_steps > num_times:
        continue
      times = sampler.grid(num_steps, num_times, spacing=spacing)
      active = times[: num_steps + 1]
      assert np.all(np.diff(active) < 0) and active[-1] == 0
      assert len(times) == sampler.bucket(num_steps) + 1 > num_steps
      assert not times[num_steps:].any()
      assert active[0] == num_times or spacing == 'reference'


# Bounds: four standard errors of n draws, plus the solver's own bias, which is
# the last number of each row (measured with 40,000 draws, and rounded up).
@pytest.mark.parametrize(
  'solver, num_steps, spacing, bias',
  [
    ('ddpm', 250, 'reference', 0.003),
    ('ddim', 50, 'trailing', 0.008),
    ('dpm++', 20, 'trailing', 0.007),
  ],
)
def test_samplers_recover_a_mixture(solver, num_steps, spacing, bias):
  times = sampler.grid(num_steps, 1000, spacing=spacing)
  x = draw(times, sampler.keys(0, np.arange(NUM)), sampler.SOLVERS[solver])
  x = np.float64(x)
  centred = x[:, None] - MIXTURE.means
  # Modes are many deviations apart, so the likeliest is the one.
  whitened = np.linalg.solve(MIXTURE.covariances, centred[..., None])[..., 0]
  mode = (centred * whitened).sum(-1).argmin(1)
  for k, (weight, mean, covariance) in enumerate(
    zip(WEIGHTS, MIXTURE.means, MIXTURE.covariances, strict=True)
  ):
    mine = x[mode == k]
    error = np.sqrt(weight * (1 - weight) / NUM)
    assert abs(len(mine) / NUM - weight) < 4 * error
    spread = np.sqrt(np.diag(covariance) / len(mine))
    assert np.all(abs(mine.mean(0) - mean) < 4 * spread + bias)
    spread = np.sqrt(2 / len(mine)) * np.diag(covariance).max()
    assert np.all(abs(np.cov(mine.T) - covariance) < 4 * spread + bias)


def test_eta_1_is_the_ddpm_posterior():
  # Its mean and variance as DDPM writes them, in float64.
  gammas = np.float64(SCHEDULES[0].gammas)
  x, x0 = np.random.default_rng(0).normal(size=(2, 5, 3))
  for t, s in [(1000, 950), (997, 993), (500, 300), (40, 39), (4, 0)]:
    gt, gs = gammas[t], gammas[s]
    a = gt / gs
    mean = x0 * (1 - a) * np.sqrt(gs) / (1 - gt)
    mean += x * np.sqrt(a) * (1 - gs) / (1 - gt)
    variance = (1 - a) * (1 - gs) / (1 - gt)
    here, there = (schedule.at(SCHEDULES, jnp.array(i)) for i in (t, s))
    step = functools.partial(
      sampler.step,
      jnp.float32(x),
      jnp.float32(x0),
      alphas=(here.alphas[0], there.alphas[0]),
      sigmas=(here.sigmas[0], there.sigmas[0]),
      eta=1.0,
    )
    ours = step(jnp.zeros_like(jnp.float32(x)))
    np.testing.assert_allclose(ours, mean, atol=2e-5)
    moved = step(jnp.ones_like(jnp.float32(x))) - ours
    np.testing.assert_allclose(moved, np.sqrt(variance), atol=2e-5)


def test_a_ddim_step_keeps_the_noise():
  x0, eps = jax.random.normal(jax.random.key(0), (2, 4, 3))
  here, there = (schedule.at(SCHEDULES, jnp.array(t)) for t in (700, 300))
  (at, sat), (as_, sas) = ((p.alphas[0], p.sigmas[0]) for p in (here, there))
  moved = sampler.step(
    at * x0 + sat * eps, x0, jnp.full_like(x0, 7.0),
    alphas=(at, as_), sigmas=(sat, sas), eta=0.0,
  )  # fmt: skip
  np.testing.assert_allclose(moved, as_ * x0 + sas * eps, atol=1e-5)


def test_eta_0_ignores_the_keys_of_the_steps():
  start = sampler.gaussian(sampler.keys(0, np.arange(64)), [(2,)])
  times = sampler.grid(16, 1000, spacing='trailing')

  @jax.jit
  def run(seed, eta):
    steps = sampler.gaussian(sampler.keys(seed, np.arange(64)), [(2,)])

    def noise(t):
      return jax.tree.map(
        lambda x, n: jnp.where(t == 1000, x, n), start(t), steps(t)
      )

    solver = sampler.Solver(eta=eta, extrapolation=0.0)
    return sampler.sample(EXACT, SCHEDULES, times, noise, solver=solver)[0][0]

  np.testing.assert_array_equal(run(1, 0.0), run(2, 0.0))
  assert np.abs(run(1, 1.0) - run(2, 1.0)).max() > 0.1


def test_the_second_order_solver_is_second_order():
  # Against the solution of the ODE: DDIM in steps of 1. All stop at t = 100,
  # since the step to t = 0 is of first order.
  keys = sampler.keys(0, np.arange(512))

  def x_100(solver, stride):
    times = np.arange(1000, 99, -stride, dtype=np.int32)
    return draw(times, keys, sampler.SOLVERS[solver])

  def error(solver, stride):
    return np.median(np.abs(x_100(solver, stride) - truth))

  truth = x_100('ddim', 1)
  first, second = (
    [error(solver, stride) for stride in (60, 30)]
    for solver in ('ddim', 'dpm++')
  )
  assert second[1] < first[1] / 4
  assert first[1] > first[0] / 2.5  # halves with the step
  assert second[1] < second[0] / 2.8  # quarters


def test_an_image_depends_on_its_seed_and_number_alone():
  times = sampler.grid(20, 1000, spacing='trailing')
  ddpm = sampler.SOLVERS['ddpm']
  keys = sampler.keys(7, np.arange(8))
  whole = draw(times, keys, ddpm)
  four = draw(times, sampler.keys(7, [1, 3, 5, 7]), ddpm)
  one = draw(times, sampler.keys(7, [3]), ddpm)
  mesh = jax.make_mesh((8,), ('data',))
  spread = draw(
    times, jax.device_put(keys, NamedSharding(mesh, P('data'))), ddpm
  )
  assert len(spread.sharding.device_set) == 8
  np.testing.assert_allclose(whole[1::2], four, atol=1e-6)
  np.testing.assert_allclose(whole[3:4], one, atol=1e-6)
  np.testing.assert_allclose(whole, spread, atol=1e-6)
  other = draw(times, sampler.keys(8, [3]), ddpm)
  assert np.abs(other - one).max() > 0.01


def test_noise_is_the_same_for_any_batch_and_differs_elsewhere():
  shapes = [(4, 4, 3), (2, 2, 3)]
  noise = sampler.gaussian(sampler.keys(0, np.arange(4)), shapes)
  single = sampler.gaussian(sampler.keys(0, [2]), shapes)
  for a, b in zip(noise(jnp.array(9)), single(jnp.array(9)), strict=True):
    np.testing.assert_array_equal(a[2:3], b)
  everything = jnp.concatenate(
    [x.ravel() for t in (9, 10) for x in noise(jnp.array(t))]
  )
  assert len(np.unique(everything)) == everything.size


def test_steps_within_a_bucket_compile_nothing():
  keys = sampler.keys(0, np.arange(16))
  draw(
    sampler.grid(32, 1000, spacing='trailing'), keys, sampler.SOLVERS['ddpm']
  )
  before = len(traced)
  results = [
    draw(sampler.grid(n, 1000, spacing=spacing), keys, sampler.SOLVERS[name])
    for n in (17, 25, 32)
    for spacing in sampler.SPACINGS
    for name in sampler.SOLVERS
  ]
  assert len(traced) == before
  assert len(np.unique(np.stack(results), axis=0)) == len(results)


def test_padding_costs_no_calls_and_changes_nothing():
  calls = []

  def apply(xs, point, state):
    jax.debug.callback(lambda t: calls.append(int(t)), point.t)
    return EXACT.apply(xs, point, state)

  noise = sampler.gaussian(sampler.keys(0, np.arange(4)), [(2,)])

  @jax.jit
  def run(times):
    return sampler.sample(
      Denoiser(apply), SCHEDULES, times, noise, solver=sampler.SOLVERS['ddpm']
    )[0][0]

  times = sampler.grid(5, 1000, spacing='reference')
  assert len(times) == 17
  padded = run(times)
  jax.effects_barrier()
  assert sorted(calls, reverse=True) == list(times[:5])
  np.testing.assert_allclose(padded, run(times[:6]), atol=1e-6)


def test_the_preview_shows_every_step():
  noise = sampler.gaussian(sampler.keys(0, np.arange(4)), [(2,)])
  times = sampler.grid(10, 1000, spacing='trailing')
  (x,), shown = sampler.sample(
    EXACT,
    SCHEDULES,
    times,
    noise,
    solver=sampler.SOLVERS['ddim'],
    preview=lambda x0s: x0s[-1],
  )
  assert shown.shape == (16, 4, 2)
  # The last estimate is the image; what follows repeats it.
  np.testing.assert_allclose(shown[9], x, atol=1e-6)
  np.testing.assert_array_equal(shown[9:], np.stack([shown[9]] * 7))
  assert np.abs(np.diff(shown[:10], axis=0)).max((1, 2)).min() > 0


@pytest.mark.parametrize('eta', [-0.1, 2])
def test_an_impossible_eta_is_refused(eta):
  with pytest.raises(ValueError, match=f'eta={eta} is not between 0'):
    sampler.Solver(eta=eta)


def test_a_resolution_without_a_schedule_is_refused():
  noise = sampler.gaussian(sampler.keys(0, [0]), [(4, 2), (2, 2)])
  with pytest.raises(ValueError, match='2 resolutions and 1 schedules'):
    sampler.sample(
      EXACT, SCHEDULES, np.array([1000, 0]), noise, solver=sampler.Solver()
    )
