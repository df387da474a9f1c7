"""The denoising loss over a pyramid of resolutions (the paper's eq. 3).

Every resolution gets noise of its own, all share one time per example. The
loss is the sum over resolutions of mean squared errors:

  L_DM = mean_b sum_i  w_i f_i(t_b) |error_i|^2

A network that predicts one thing may be judged on another, without leaving its
own terms: an error of 1 in a prediction is one of `GAINS` in x_0, so the
squared errors differ by a closed-form factor. The released networks predict v
and are judged on eps: MSE_eps = gamma MSE_v. (Going through x_0 instead loses
digits where sigma is small.)
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import reduce
from jaxtyping import Float, Int, Key

from kaleido_jax.arrays import Array, Images
from kaleido_jax.diffusion.prediction import GAINS, TARGETS, check
from kaleido_jax.diffusion.schedule import (
  Point,
  Scalar,
  Schedule,
  at,
  expand,
)

Factors = tuple[Float[Array, ' b'], ...]  # one per resolution


class Metrics(NamedTuple):
  """What a loss is made of, before `weighting`."""

  per_example: Float[Array, ' b']
  mse: Factors  # of the target, per resolution; fewer rows in a mixed batch


def pyramid(
  images: Float[Array, 'b h w c'],
  sizes: Sequence[int],
  *,
  scales: Sequence[float | int] | None = None,
) -> tuple[Float[Array, 'b _ _ c'], ...]:
  """Averages images down to each height in turn, high to low.

  scales: what to divide each by. Only for models whose schedules are not
  shifted: they see larger images fainter instead.
  """
  levels = []
  for size in sizes:
    ratio = images.shape[1] // size
    if not ratio or images.shape[1] % size or images.shape[2] % ratio:
      raise ValueError(
        f'images of {images.shape[1]}x{images.shape[2]} cannot be averaged to '
        f'a height of {size}; give sizes from high to low, each of which '
        'divides the one before.'
      )
    images = reduce(
      images, 'b (h i) (w j) c -> b h w c', 'mean', i=ratio, j=ratio
    )
    levels.append(images)
  scales = scales or (1,) * len(levels)
  return tuple(level / s for level, s in zip(levels, scales, strict=True))


def draw(
  key: Key[Array, ''],
  x0s: Images,
  num_times: int,
  *,
  early_share: float = 0.0,
  early_start: int = 1,
) -> tuple[Int[Array, ' b'], Images]:
  """Draws a time per example, in 1..T, and noise per resolution.

  early_share: of the examples, on average, have times from `early_start` on.
  Drawing begins there, and what goes where is decided.
  """
  time_key, noise_key = jax.random.split(key)
  count = x0s[-1].shape[0]
  first = 1
  if early_share:  # without it, chance is as it has always been
    if not 1 <= early_start <= num_times:
      raise ValueError(f'early_start={early_start} is none of 1..{num_times}.')
    time_key, early_key = jax.random.split(time_key)
    early = jax.random.bernoulli(early_key, early_share, (count,))
    first = jnp.where(early, early_start, 1)
  times = jax.random.randint(
    time_key, (count,), first, num_times + 1, jnp.int32
  )
  epss = tuple(
    jax.random.normal(jax.random.fold_in(noise_key, r), x0.shape)
    for r, x0 in enumerate(x0s)
  )
  return times, epss


def corrupt(x0s: Images, epss: Images, point: Point) -> Images:
  """x_t at every resolution."""
  return tuple(
    expand(alpha, x0) * x0 + expand(sigma, x0) * eps
    for x0, eps, alpha, sigma in zip(
      x0s, epss, point.alphas, point.sigmas, strict=True
    )
  )


def uniform(
  schedules: Sequence[Schedule], t: Int[Array, ' b'], target: str
) -> Factors:
  """All times count the same."""
  return (jnp.ones(t.shape),) * len(schedules)


def min_snr(
  schedules: Sequence[Schedule],
  t: Int[Array, ' b'],
  target: str,
  *,
  cap: Scalar = 5.0,
) -> Factors:
  """Weighs the error in x_0 by min(SNR, cap) (arXiv:2303.09556)."""
  return tuple(
    jnp.minimum(jnp.exp(schedule.logsnr(t)), cap)
    * GAINS[target](schedule.alpha(t), schedule.sigma(t)) ** 2
    for schedule in schedules
  )


def snr_decay(schedule: Schedule, t: Int[Array, '*b']) -> Float[Array, '*b']:
  """SNR_(t-1) / SNR_t - 1; at t = 1, where SNR_0 is infinite, as at t = 2."""
  t = jnp.maximum(t, 2)
  now, before = schedule.gamma(t), schedule.gamma(t - 1)
  return before * (1 - now) / (1 - before) / now - 1


def vdm(
  schedules: Sequence[Schedule], t: Int[Array, ' b'], target: str
) -> Factors:
  """Weighs eps as the variational bound does (arXiv:2107.00630).

  As in the reference, weights are normalised over the batch, and those of the
  lowest resolution serve for all.
  """
  weights = snr_decay(schedules[-1], t)
  return (weights / weights.mean(),) * len(schedules)


WEIGHTINGS = {'uniform': uniform, 'min_snr': min_snr, 'vdm': vdm}


def shares(ratios: Sequence[int]) -> tuple[Fraction, ...]:
  """What part of a mixed batch each resolution sees.

  Ratios are of what ends at each: with (2, 1), two thirds of the examples are
  seen at both resolutions, and the last third at the low one only.
  """
  return tuple(
    Fraction(sum(ratios[: i + 1]), sum(ratios)) for i in range(len(ratios))
  )


def denoising(
  network: Callable[[Images, Int[Array, ' b']], Images],
  schedules: Sequence[Schedule],
  x0s: Images,
  times: Int[Array, ' b'],
  epss: Images,
  *,
  prediction: str,
  target: str,
  weighting: Callable[..., Factors] = uniform,
  resolution_weights: Sequence[float | int] | None = None,
  batch_ratios: Sequence[int] | None = None,
) -> tuple[Float[Array, ''], Metrics]:
  """L_DM of one batch.

  Args:
    network: (xs, times) -> predictions; its condition is closed over, and its
      times count from 0.
    schedules: one per resolution, like all tuples here.
    x0s: clean images, from `pyramid`.
    times: in 1..T.
    epss: the noise.
    prediction: what the network predicts: 'v', 'eps' or 'x0'.
    target: what it is judged on.
    weighting: one of WEIGHTINGS.
    resolution_weights: w_i; by default 1.
    batch_ratios: see `shares`; by default all resolutions see all examples.
  """
  check(prediction)
  check(target)
  levels, batch_size = len(schedules), times.shape[0]
  weights = resolution_weights or (1.0,) * levels
  parts = shares(batch_ratios or (1,) + (0,) * (levels - 1))
  _check_levels(
    levels, x0s=x0s, epss=epss, resolution_weights=weights, batch_ratios=parts
  )
  counts = _counts(batch_size, parts)
  point = at(schedules, times)
  xts = corrupt(x0s, epss, point)
  seen = tuple(x[:count] for x, count in zip(xts, counts, strict=True))
  outputs = network(seen, times - 1)

  mse, factors = [], weighting(schedules, times, target)
  per_example = total = jnp.zeros(batch_size)
  for i, (output, count) in enumerate(zip(outputs, counts, strict=True)):
    given = x0s[i], epss[i], point.alphas[i], point.sigmas[i]
    mse.append(
      squared_error(
        output, *_first(count, given), prediction=prediction, target=target
      )
    )
    # Fewer examples, each counting for more: the expectation stays the same.
    weight = float(weights[i] / parts[i])
    each = weight * jnp.pad(mse[i], (0, batch_size - count))
    per_example += each
    total += each * factors[i]
  return total.mean(), Metrics(per_example, tuple(mse))


def squared_error(
  output: Float[Array, 'b ...'],
  x0: Float[Array, 'b ...'],
  eps: Float[Array, 'b ...'],
  alpha: Float[Array, ' b'],
  sigma: Float[Array, ' b'],
  *,
  prediction: str,
  target: str,
) -> Float[Array, ' b']:
  """The mean square, image by image, of the error in terms of the target."""
  truth = TARGETS[prediction](x0, eps, expand(alpha, x0), expand(sigma, x0))
  error = jnp.square(output.astype(jnp.float32) - truth)
  ratio = GAINS[prediction](alpha, sigma) / GAINS[target](alpha, sigma)
  return reduce(error, 'b ... -> b', 'mean') * ratio**2


def _check_levels(levels: int, **tuples: Sequence[Any]) -> None:
  for name, given in tuples.items():
    if len(given) != levels:
      raise ValueError(
        f'{name} has {len(given)} entries for {levels} schedules; give one per '
        'resolution, high to low.'
      )


def _counts(batch_size: int, parts: Sequence[Fraction]) -> tuple[int, ...]:
  counts = tuple(int(part * batch_size) for part in parts)
  if min(counts) < 1:
    raise ValueError(
      f'a batch of {batch_size} leaves a resolution without examples: they get '
      f'{counts}; use a larger batch or other batch_ratios.'
    )
  return counts


def _first(count: int, arrays: Sequence[Array]) -> list[Array]:
  return [array[:count] for array in arrays]
