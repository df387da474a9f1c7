"""The picture: denoising under guidance, given a caption and latents.

Eight steps are one call of a compiled program, whatever the solver, the weights
and the number of steps. In between, who waits may look at what there is.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from kaleido_jax import generate, objective, sharding, steering
from kaleido_jax.arrays import Array, Images
from kaleido_jax.diffusion import denoiser, sampler
from kaleido_jax.models import t5
from kaleido_jax.models.kaleido import Kaleido, Tokens
from kaleido_jax.steering import Conditions

STRETCH = 8  # steps of a call


@dataclasses.dataclass(frozen=True)
class Glimpse:
  """What there is of some pictures, between two steps."""

  places: list[int]  # of these pictures, among those that are asked for
  done: int  # steps
  steps: int
  images: Callable[[], tuple[np.ndarray, ...]]  # as estimated, high to low


class Weaker(NamedTuple):
  """A network that autoguidance leads away from."""

  model: Kaleido
  params: Any
  kind: str


class Render:
  """render(params, ids, z, seed, indices, sample) -> images, as networks see.

  z is None without latents; `sample` is a section like config.sample. The loop
  over stretches of steps is here, so that a person may watch.
  """

  def __init__(
    self,
    config: Any,
    model: Kaleido,
    mesh: Mesh,
    *,
    weaker: Weaker | None = None,
  ):
    self._prediction = config.diffusion.prediction
    self._models = [model, *([weaker.model] if weaker else [])]
    self._kinds = [
      config.model.denoiser.kind,
      *([weaker.kind] if weaker else []),
    ]
    self._weaker_params = [weaker.params] if weaker else []
    self._shapes = [tuple(shape) for shape in config.image_shapes]
    self._num_times = config.diffusion.num_times
    self._schedules = objective.schedules(config)
    self._mesh = mesh
    rows, everywhere = sharding.over_batch(mesh), sharding.replicated(mesh)
    jit = sharding.jit
    self._read = jit(self._conditions, mesh, out_shardings=rows)
    self._begin = jit(
      self._first, mesh, static_argnames='plan', out_shardings=rows
    )
    self._proceed = jit(
      self._next,
      mesh,
      static_argnames='plan',
      donate_argnames='drawing',
      out_shardings=rows,
    )
    self._finish = jit(lambda xs: xs, mesh, out_shardings=everywhere)

  def __call__(
    self,
    params: Any,
    ids: Int[Array, 'b l'],
    z: Int[Array, 'b m'] | None,
    seed: Any,
    indices: Any,
    sample: Any,
    watch: Callable[[int, Images], None] | None = None,
  ) -> Images:
    """watch: called with the number of steps done, and the images so far."""
    params = (params, *self._weaker_params)
    conditions = self._read(params, ids, z)
    common = steering.numbers(sample), seed, indices
    plan = steering.plan(sample)
    drawing = self._begin(conditions, *common, plan=plan)
    for done, steps in self._stretches(sample):
      drawing = self._proceed(
        *(params, conditions, *common, solver(sample), steps),
        drawing=drawing,
        plan=plan,
      )
      if watch is not None:
        watch(done, self._finish(drawing.x0s))
    return self._finish(drawing.xs)

  def lower(self, params, ids, z, seed, indices, sample) -> Any:
    """A stretch of steps, traced on shapes."""
    common = steering.numbers(sample), seed, indices
    plan = steering.plan(sample)
    params = (params, *self._weaker_params)
    conditions = jax.eval_shape(self._read, params, ids, z)
    conditions = self._laid(conditions)
    drawing = jax.eval_shape(
      lambda *args: self._begin(*args, plan=plan), conditions, *common
    )
    _, steps = next(self._stretches(sample))
    return self._proceed.lower(
      *(params, conditions, *common, solver(sample), steps),
      drawing=self._laid(drawing),
      plan=plan,
    )

  def _laid(self, shapes):
    where = sharding.over_batch(self._mesh)
    return jax.tree.map(
      lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes
    )

  def _stretches(self, sample) -> Iterator[tuple[int, np.ndarray]]:
    """How many steps are done after each stretch, and its steps."""
    steps = sampler.moments(times(sample, self._num_times))
    for start in range(0, sample.steps, STRETCH):
      yield min(start + STRETCH, sample.steps), steps[start : start + STRETCH]

  def _conditions(self, params, ids, z) -> tuple[Conditions, ...]:
    """Each network reads by itself."""
    return tuple(
      conditions(model, each, ids, z)
      for model, each in zip(self._models, params, strict=True)
    )

  def _first(self, conditions, numbers, seed, indices, plan):
    params = [None] * len(conditions)  # nothing is denoised yet
    guided = self._denoiser(params, conditions, numbers, seed, indices, plan)
    return sampler.begin(guided, self._schedules, self._noise(seed, indices))

  def _next(
    self,
    params,
    conditions,
    numbers,
    seed,
    indices,
    solver,
    steps,
    drawing,
    plan,
  ):
    # Once for a stretch, not at every step.
    params = [
      sharding.gather_denoiser(each, self._mesh, kind)
      for each, kind in zip(params, self._kinds, strict=True)
    ]
    drawing, _ = sampler.proceed(
      self._denoiser(params, conditions, numbers, seed, indices, plan),
      self._schedules,
      drawing,
      steps,
      self._noise(seed, indices),
      solver=solver,
    )
    return drawing

  def _denoiser(self, params, conditions, numbers, seed, indices, plan):
    estimates = [
      self._estimate(model, each)
      for model, each in zip(self._models, params, strict=True)
    ]
    _, *weaker = zip(estimates, conditions, strict=True)
    return steering.denoise(
      *(plan, numbers, estimates[0], conditions[0]),
      keys=generate.keys(seed, indices, generate.NOISE),
      counted=indices < generate.FILLING,
      weaker=weaker[0] if weaker else None,
    )

  def _estimate(self, model: Kaleido, params) -> denoiser.Model:
    def network(xs, times, tokens):
      return model.apply(
        *({'params': params}, xs, times, tokens),
        projected=True,
        method='denoise',
      )

    return denoiser.model(network, prediction=self._prediction)

  def _noise(self, seed, indices):
    keys = generate.keys(seed, indices, generate.NOISE)
    return sampler.gaussian(keys, self._shapes)


def conditions(
  model: Kaleido, params, ids: Int[Array, 'b l'], z: Int[Array, 'b m'] | None
) -> Conditions:
  """What the denoiser reads: of nothing, of the caption, of all; projected."""

  def read(module: Kaleido):
    mask = ids != t5.PAD
    memory = module.encode(ids, mask)
    everything = jnp.ones(ids.shape[0], bool)
    states, used, without = None, None, {}
    is_latent = jnp.zeros(ids.shape, bool)
    if z is not None:
      states, _ = module.prior(z, memory, mask)
      used = z != t5.PAD
      without = {'drop_latents': everything}
      is_latent = jnp.concatenate([is_latent, jnp.ones(z.shape, bool)], 1)

    def told(**dropped) -> Tokens:
      tokens = module.condition(memory, mask, states, used, **dropped)
      return module.project(tokens)

    return Conditions(
      null=told(drop_caption=everything, **without),
      caption=told(**without),
      full=told(),
      is_latent=is_latent,
    )

  return model.apply({'params': params}, method=read)


def times(sample: Any, num_times: int) -> Int[np.ndarray, ' n']:
  """The grid that `config.sample` describes."""
  return sampler.grid(sample.steps, num_times, spacing=sample.spacing)


def solver(sample: Any) -> sampler.Solver:
  if sample.solver not in sampler.SOLVERS:
    raise ValueError(
      f'config.sample.solver={sample.solver!r} is not one of '
      f'{list(sampler.SOLVERS)}.'
    )
  return sampler.SOLVERS[sample.solver]


def check(sample: Any, num_times: int) -> None:
  """Refuses what cannot be drawn, before anything is."""
  for name, fine in (
    ('guidance', math.isfinite(sample.guidance)),
    ('temperature', 0 <= sample.temperature < math.inf),
    ('top_k', sample.top_k >= 0),
    ('top_p', 0 < sample.top_p <= 1),
    ('quantile', 0 <= sample.quantile <= 1),
  ):
    if not fine:
      raise ValueError(f'config.sample.{name}={sample[name]} makes no sense.')
  steering.plan(sample)
  times(sample, num_times)
  solver(sample)
