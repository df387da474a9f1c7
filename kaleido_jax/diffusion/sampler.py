"""From noise to images: one step formula, one loop.

A step from x_t to x_s estimates the image, D(x_t), takes the noise that this
leaves in x_t, and mixes anew, with a share of fresh noise n:

  eps = (x_t - alpha_t D) / sigma_t
  x_s = alpha_s D + sigma_s (sqrt(1 - c^2) eps + c n),
  c^2 = eta^2 (1 - SNR_t / SNR_s)

eta = 1 is the posterior of DDPM, eta = 0 is DDIM (arXiv:2010.02502). Putting
for D its extrapolation from the last two estimates makes it second order:
DPM-Solver++(2M) at eta = 0 (arXiv:2211.01095), its stochastic kin at eta = 1.

The number of steps is data: grids are padded to the length of a bucket, and
the padding costs nothing. So one compiled sampler serves every solver, and
every number of steps up to its bucket.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Integer, Key

from kaleido_jax.arrays import Array, Images
from kaleido_jax.diffusion.denoiser import Denoiser
from kaleido_jax.diffusion.schedule import (
  Point,
  Scalar,
  Schedule,
  at,
)

Noise = Callable[[Int[Array, '']], Images]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Solver:
  """How to step; both fields may be traced."""

  eta: Any = 1.0  # fresh noise: 1 as in DDPM, 0 none
  extrapolation: Any = 0.0  # 1: second order, 0: first

  def __post_init__(self):
    if isinstance(self.eta, float | int) and not 0 <= self.eta <= 1:
      raise ValueError(
        f'eta={self.eta} is not between 0 (no fresh noise, DDIM) and 1 (DDPM).'
      )


SOLVERS = {
  'ddpm': Solver(eta=1.0, extrapolation=0.0),
  'ddim': Solver(eta=0.0, extrapolation=0.0),
  'dpm++': Solver(eta=0.0, extrapolation=1.0),
  'sde-dpm++': Solver(eta=1.0, extrapolation=1.0),
}


def reference(num_steps: int, num_times: int) -> np.ndarray:
  """The Matryoshka reference's times; the first is T - T / (n + 1) or so."""
  i = np.arange(num_steps, -1, -1)
  return np.round(i * ((num_times + 1) / (num_steps + 1)))


def uniform(num_steps: int, num_times: int) -> np.ndarray:
  """Evenly from T to 1, and 0: the last estimate is made of nearly no noise."""
  return np.append(np.round(np.linspace(num_times, 1, num_steps)), 0)


def trailing(num_steps: int, num_times: int) -> np.ndarray:
  """Evenly from T to 0 (arXiv:2305.08891): best for few steps."""
  return np.round(np.linspace(num_times, 0, num_steps + 1))


SPACINGS = {'reference': reference, 'uniform': uniform, 'trailing': trailing}


def bucket(num_steps: int) -> int:
  """The length that a grid is padded to: a power of two, 16 or more."""
  return max(16, 1 << (num_steps - 1).bit_length())


def grid(
  num_steps: int, num_times: int, *, spacing: str
) -> Int[np.ndarray, ' n']:
  """Times from noise to image, padded by zeros to the bucket's length + 1."""
  if spacing not in SPACINGS:
    raise ValueError(
      f'spacing {spacing!r} is unknown; choose one of {", ".join(SPACINGS)}.'
    )
  if not 1 <= num_steps <= num_times:
    raise ValueError(
      f'num_steps={num_steps} is not between 1 and the {num_times} times of '
      'the schedule; take fewer steps.'
    )
  times = SPACINGS[spacing](num_steps, num_times).astype(np.int32)
  return np.pad(times, (0, bucket(num_steps) - num_steps))


def keys(seed: int | Integer[Array, ''], indices: Any) -> Key[Array, ' b']:
  """One key per image, from the seed and the image's own number."""
  fold = jax.vmap(jax.random.fold_in, (None, 0))
  return fold(jax.random.key(seed), jnp.asarray(indices))


def gaussian(
  keys: Key[Array, ' b'], shapes: Sequence[tuple[int, ...]]
) -> Noise:
  """The noise that enters x_t, for each t; independent at each resolution.

  That of an image depends on its key and on t alone: not on its neighbours,
  the batch size, or the devices.
  """

  def noise(t):
    now = jax.vmap(jax.random.fold_in, (0, None))(keys, t)

    def draw(key, r, shape):
      return jax.random.normal(jax.random.fold_in(key, r), shape)

    return tuple(
      jax.vmap(lambda key, r=r, shape=shape: draw(key, r, shape))(now)
      for r, shape in enumerate(shapes)
    )

  return noise


def step(
  x: Float[Array, 'b ...'],
  x0: Float[Array, 'b ...'],
  fresh: Float[Array, 'b ...'],
  *,
  alphas: tuple[Scalar, Scalar],
  sigmas: tuple[Scalar, Scalar],
  eta: Scalar,
) -> Float[Array, 'b ...']:
  """From x_t to x_s; alphas and sigmas are those of t, then of s."""
  (alpha_t, alpha_s), (sigma_t, sigma_s) = alphas, sigmas
  eps = (x - alpha_t * x0) / sigma_t
  ratio = (alpha_t * sigma_s / (alpha_s * sigma_t)) ** 2  # SNR_t / SNR_s
  # 1 - c^2, written such that a tiny ratio survives at eta = 1.
  kept = jnp.sqrt(1 - eta**2 + eta**2 * ratio)
  changed = eta * jnp.sqrt(1 - ratio)
  return alpha_s * x0 + sigma_s * (kept * eps + changed * fresh)


def extrapolate(
  x0s: Images,
  last: Images,
  schedules: Sequence[Schedule],
  times: Int[Array, '3'],
  amount: Scalar,
) -> Images:
  """Where D is heading: its value halfway between t and s, in logSNR.

  times: the last one, t, and s. There is nothing to go by in the first step,
  and no halfway to s = 0, where logSNR is infinite.
  """
  known = (times[0] > times[1]) & (times[2] > 0)

  def line(x0, before, schedule):
    logsnr = schedule.logsnr(times)
    slope = (logsnr[2] - logsnr[1]) / (logsnr[1] - logsnr[0]) / 2
    return x0 + amount * jnp.where(known, slope, 0.0) * (x0 - before)

  return tuple(map(line, x0s, last, schedules))


class Drawing(NamedTuple):
  """A picture between two steps."""

  xs: Images
  x0s: Images  # the last estimates
  state: Any  # what the denoiser remembers


def begin(
  denoiser: Denoiser, schedules: Sequence[Schedule], noise: Noise
) -> Drawing:
  """Nothing but noise: x_T = noise(T)."""
  xs = noise(jnp.asarray(schedules[0].num_times))
  if len(xs) != len(schedules):
    raise ValueError(
      f'noise for {len(xs)} resolutions and {len(schedules)} schedules were '
      'given; give one schedule per resolution.'
    )
  return Drawing(xs, jax.tree.map(jnp.zeros_like, xs), denoiser.init(xs))


def moments(times: Int[Array, ' n']) -> Int[Array, 'm 3']:
  """For every step of a grid: the time before, its own, and the next one."""
  xp = np if isinstance(times, np.ndarray) else jnp  # on the host if it is
  before = xp.append(times[:1], times[:-2])
  return xp.stack([before, times[:-1], times[1:]], axis=1)


def proceed(
  denoiser: Denoiser,
  schedules: Sequence[Schedule],
  drawing: Drawing,
  steps: Int[Array, 'm 3'],
  noise: Noise,
  *,
  solver: Solver,
  preview: Callable[[Images], Any] = lambda x0s: (),
) -> tuple[Drawing, Any]:
  """Takes some of the `moments`; those that begin at 0 are skipped."""

  def advance(drawing, now):
    _, t, s = now
    here, there = at(schedules, t), at(schedules, s)
    x0s, state = denoiser.apply(drawing.xs, here, drawing.state)
    ahead = extrapolate(x0s, drawing.x0s, schedules, now, solver.extrapolation)
    xs = _step_all(drawing.xs, ahead, noise(s), here, there, solver.eta)
    return Drawing(xs, x0s, state)

  def visit(drawing, now):
    drawing = jax.lax.cond(
      now[1] > 0, advance, lambda drawing, now: drawing, drawing, now
    )
    return drawing, preview(drawing.x0s)

  return jax.lax.scan(visit, drawing, steps)


def sample(
  denoiser: Denoiser,
  schedules: Sequence[Schedule],
  times: Int[Array, ' n'],
  noise: Noise,
  *,
  solver: Solver,
  preview: Callable[[Images], Any] = lambda x0s: (),
) -> tuple[Images, Any]:
  """Denoises x_T = noise(T) down the grid.

  Args:
    denoiser: estimates x_0; everything about conditions is inside.
    schedules: one per resolution.
    times: from `grid`; steps behind the first 0 are skipped.
    noise: the noise that enters x_t, for each t: `gaussian`, or recorded.
    solver: one of SOLVERS.
    preview: what to keep of every step's x0s: `lambda x0s: x0s[-1]` shows the
      lowest resolution emerge.

  Returns:
    The images, and what `preview` kept, stacked along a new first axis as long
    as the bucket (the last active step repeats).
  """
  drawing, previews = proceed(
    denoiser,
    schedules,
    begin(denoiser, schedules, noise),
    moments(times),
    noise,
    solver=solver,
    preview=preview,
  )
  return drawing.xs, previews


def _step_all(
  xs: Images, x0s: Images, fresh: Images, here: Point, there: Point, eta: Scalar
) -> Images:
  return tuple(
    step(
      *images,
      alphas=(here.alphas[i], there.alphas[i]),
      sigmas=(here.sigmas[i], there.sigmas[i]),
      eta=eta,
    )
    for i, images in enumerate(zip(xs, x0s, fresh, strict=True))
  )
