"""From captions to pictures, in two steps that anyone may come between.

  z = imagine(...)     latents, token by token; may be read and edited
  xs = render(...)     reads z once more, then denoises under guidance

Both are jitted once for every batch shape. Seeds, temperature, guidance, solver
and the number of steps (within a bucket) are traced. What belongs to row i is
drawn from (seed, indices[i]): neither the batch nor the devices matter.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, Int32

from kaleido_jax import objective, sharding
from kaleido_jax.arrays import Array, Images
from kaleido_jax.data import images
from kaleido_jax.diffusion import denoiser, guidance, sampler
from kaleido_jax.latents.tokens import Vocabulary
from kaleido_jax.models import decoding, t5
from kaleido_jax.models.kaleido import Kaleido, Tokens

# Streams of randomness of one image: its latents and its noise are drawn apart,
# so that edited latents meet the same noise.
LATENTS, NOISE = 0, 1


def build_imagine(
  model: Kaleido, mesh: Mesh, num_tokens: int
) -> Callable[..., Int32[Array, 'b m']]:
  """imagine(params, ids, seed, indices, rule) -> z, ended and padded."""

  def imagine(params, ids, seed, indices, rule):
    mask = ids != t5.PAD
    memory = model.apply({'params': params}, ids, mask, method='encode')
    rows = ids.shape[0]
    decoded = decoding.generate(
      model.decoder,
      params['decoder'],
      memory,
      mask,
      _keys(seed, indices, LATENTS),
      prefix=jnp.zeros((rows, 0), jnp.int32),  # nothing is given
      prefix_lengths=jnp.zeros(rows, jnp.int32),
      num_tokens=num_tokens,
      rule=rule,
    )
    return ended(decoded.ids)

  return sharding.jit(imagine, mesh, out_shardings=sharding.replicated(mesh))


def ended(z: Int[Array, 'b m']) -> Int[Array, 'b m']:
  """What ran out of room ends there, as it does in training."""
  full = (z != t5.PAD).all(1) & (z != t5.EOS).all(1)
  return z.at[:, -1].set(jnp.where(full, t5.EOS, z[:, -1]))


def build_render(
  config: Any, model: Kaleido, mesh: Mesh
) -> Callable[..., Images]:
  """render(params, ids, z, seed, indices, weight, times, solver) -> xs.

  z is None without latents. The images are as the networks see them; `pictures`
  makes them what a person sees.
  """
  schedules = objective.schedules(config)
  sample = config.sample
  limited = denoiser.THRESHOLDS[sample.threshold]

  def render(params, ids, z, seed, indices, weight, times, solver):
    # Once, not at every step.
    params = sharding.gather_denoiser(params, mesh, config.model.denoiser.kind)
    given, null = conditions(model, params, ids, z)

    def network(xs, times, tokens):
      return model.apply(
        {'params': params}, xs, times, tokens, method='denoise'
      )

    estimate = denoiser.model(network, prediction=config.diffusion.prediction)
    guided = limited(
      guidance.guide(guidance.by_condition(estimate, null, given), weight),
      quantile=sample.quantile,
      ceiling=sample.ceiling,
    )
    noise = sampler.gaussian(
      _keys(seed, indices, NOISE), [tuple(s) for s in config.image_shapes]
    )
    xs, _ = sampler.sample(guided, schedules, times, noise, solver=solver)
    return xs

  return sharding.jit(render, mesh, out_shardings=sharding.replicated(mesh))


def conditions(
  model: Kaleido, params, ids: Int[Array, 'b l'], z: Int[Array, 'b m'] | None
) -> tuple[Tokens, Tokens]:
  """What the denoiser reads: of caption and latents, and of nothing."""

  def read(module: Kaleido):
    mask = ids != t5.PAD
    memory = module.encode(ids, mask)
    states, used = None, None
    if z is not None:
      states, _ = module.prior(z, memory, mask)
      used = z != t5.PAD
    drop = jnp.ones(ids.shape[0], bool)
    nothing = {'drop_caption': drop}
    if z is not None:
      nothing['drop_latents'] = drop
    return (
      module.condition(memory, mask, states, used),
      module.condition(memory, mask, states, used, **nothing),
    )

  return model.apply({'params': params}, method=read)


def times(config: Any) -> Int[np.ndarray, ' n']:
  """The grid that `config.sample` describes."""
  return sampler.grid(
    config.sample.steps,
    config.diffusion.num_times,
    spacing=config.sample.spacing,
  )


def solver(config: Any) -> sampler.Solver:
  name = config.sample.solver
  if name not in sampler.SOLVERS:
    raise ValueError(
      f'config.sample.solver={name!r} is not one of {list(sampler.SOLVERS)}.'
    )
  return sampler.SOLVERS[name]


def rule(config: Any) -> decoding.SamplingRule:
  """How `config.sample` chooses tokens."""
  sample = config.sample
  return decoding.SamplingRule(
    temperature=sample.temperature, top_k=sample.top_k, top_p=sample.top_p
  )


def captions(
  config: Any, words: Vocabulary, texts: Sequence[str]
) -> Int32[np.ndarray, 'b l']:
  """Token ids of captions."""
  length = config.data.caption_length
  return np.stack([words.encode_caption(text, length)[0] for text in texts])


def pictures(config: Any, xs: Images) -> np.ndarray:
  """What a person sees: uint8, at the highest resolution; points stay."""
  x = np.asarray(jax.device_get(xs[0]))
  if x.ndim < 4:
    return x
  return images.to_uint8(x, config.data.preprocess)


def _keys(seed, indices, stream: int):
  keys = sampler.keys(seed, indices)
  return jax.vmap(jax.random.fold_in, (0, None))(keys, stream)
