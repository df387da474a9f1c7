"""How much image and how much noise there is at time t.

  x_t = alpha_t x_0 + sigma_t eps,    alpha^2 = gamma,    sigma^2 = 1 - gamma

Time is an integer from t = 0, the image (gamma = 1), to t = T, the noise; a
network is told t - 1. SNR = gamma / (1 - gamma) falls strictly with t.

The tables are made in float64 and cast to float32 once. All that follows is
float32, as in the Matryoshka reference: 1 - gamma_1 is small enough for the
difference to be seen (5e-4 of it).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from kaleido_jax.arrays import Array

Scalar = Float[Array, ''] | Int[Array, ''] | np.generic | float | int

LOGSNR_RANGE = 5.0  # of `cosine`
MAX_BETA = 0.999  # of `squared_cosine`, whose last step would be infinite


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """gamma_0 .. gamma_T of one resolution."""

  gammas: Any  # float32 [T + 1]; numpy, or a jax array inside a transformation

  @property
  def num_times(self) -> int:
    """T."""
    return self.gammas.shape[0] - 1

  def gamma(self, t: Int[Array, '*b']) -> Float[Array, '*b']:
    return jnp.asarray(self.gammas)[t]

  def alpha(self, t: Int[Array, '*b']) -> Float[Array, '*b']:
    return jnp.sqrt(self.gamma(t))

  def sigma(self, t: Int[Array, '*b']) -> Float[Array, '*b']:
    return jnp.sqrt(1 - self.gamma(t))

  def logsnr(self, t: Int[Array, '*b']) -> Float[Array, '*b']:
    """Infinite at t = 0."""
    return jnp.log(self.gamma(t)) - jnp.log(1 - self.gamma(t))

  def shift(self, scale: float | int, power: float | int = 1) -> 'Schedule':
    """Divides the SNR by scale^power: larger images hide in more noise.

    'cosine-shift4' is scale 4 and power 1 (power 2 is "simple diffusion").
    """
    if scale <= 0:
      raise ValueError(
        f'scale={scale} cannot divide an SNR; give the ratio between this '
        'resolution and the lowest, 1 or more.'
      )
    if scale == 1:
      return self
    with np.errstate(divide='ignore'):  # SNR is infinite at t = 0, and stays so
      snr = self.gammas / (1 - self.gammas) / np.float32(scale**power)
      return Schedule(gammas=1 / (1 + 1 / snr))

  def pyramid(
    self, scales: Sequence[float | int], power: float | int = 1
  ) -> tuple['Schedule', ...]:
    """One schedule per resolution: (4, 1) shifts the higher, not the lower."""
    return tuple(self.shift(scale, power) for scale in scales)


class Point(NamedTuple):
  """A moment of the process, as all resolutions see it."""

  t: Int[Array, '*b']
  fraction: Float[Array, '*b']  # t / T
  alphas: tuple[Float[Array, '*b'], ...]
  sigmas: tuple[Float[Array, '*b'], ...]


def at(schedules: Sequence[Schedule], t: Int[Array, '*b']) -> Point:
  """Reads all schedules at t: one number, or one per example."""
  return Point(
    t=t,
    fraction=t.astype(jnp.float32) / schedules[0].num_times,
    alphas=tuple(schedule.alpha(t) for schedule in schedules),
    sigmas=tuple(schedule.sigma(t) for schedule in schedules),
  )


def expand(
  coefficient: Float[Array, '*b'], x: Float[Array, '_ ...']
) -> Float[Array, '*c']:
  """Appends axes, until one number (or one per example) multiplies images."""
  missing = x.ndim - coefficient.ndim
  return coefficient.reshape(coefficient.shape + (1,) * missing)


def squared_cosine(num_times: int) -> np.ndarray:
  """cos^2 of t, as steps of at most MAX_BETA (arXiv:2102.09672).

  The schedule of the released Matryoshka weights, which call it DEEPFLOYD.
  """

  def gamma(u):
    return np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2

  i = np.arange(num_times)
  betas = 1 - gamma((i + 1) / num_times) / gamma(i / num_times)
  return _from_betas(np.minimum(betas, MAX_BETA))


def cosine(num_times: int) -> np.ndarray:
  """logSNR = -2 log tan, cut to +-LOGSNR_RANGE: never quite image nor noise."""
  low, high = np.arctan(np.exp([-LOGSNR_RANGE / 2, LOGSNR_RANGE / 2]))
  angle = (high - low) * np.linspace(0, 1, num_times) + low
  logsnr = -2 * np.log(np.tan(angle))
  return np.concatenate([[1.0], 1 / (1 + np.exp(-logsnr))])


def linear(num_times: int) -> np.ndarray:
  """Steps of noise that grow linearly: DDPM (arXiv:2006.11239)."""
  return _from_betas(np.linspace(1e-4, 0.02, num_times))


def _from_betas(betas: np.ndarray) -> np.ndarray:
  return np.concatenate([[1.0], np.exp(np.cumsum(np.log(1 - betas)))])


SCHEDULES = {
  'squared_cosine': squared_cosine,
  'cosine': cosine,
  'linear': linear,
}


def create(name: str, num_times: int) -> Schedule:
  """The unshifted schedule of this name."""
  if name not in SCHEDULES:
    raise ValueError(
      f'schedule {name!r} is unknown; choose one of {", ".join(SCHEDULES)}.'
    )
  if num_times < 2:
    raise ValueError(
      f'num_times={num_times} leaves nothing to learn; a schedule needs at '
      'least 2 times, usually 1000.'
    )
  return Schedule(gammas=SCHEDULES[name](num_times).astype(np.float32))
