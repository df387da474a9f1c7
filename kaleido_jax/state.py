"""The state of a training run, and one update of it.

Parameters, their average, the optimizer's moments and a few counts, sharded
alike. What is frozen has neither average nor moments. An update with a loss or
gradient that is not finite changes nothing but the counts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from kaleido_jax import objective, sharding
from kaleido_jax.arrays import Array
from kaleido_jax.models import kaleido
from kaleido_jax.models.kaleido import Kaleido


class Counts(NamedTuple):
  """Where a run is."""

  step: Int[Array, '']  # batches seen
  skipped: Int[Array, '']  # of them, not finite
  in_a_row: Int[Array, '']


class State(NamedTuple):
  """Everything that a run needs to go on."""

  trained: Any  # parameters
  frozen: Any
  ema: Any  # of the trained ones
  opt_state: Any
  counts: Counts


def optimizer(config) -> optax.GradientTransformation:
  """Adam with a linear warm-up; the gradient's norm is clipped before."""
  section, rate = config.optimizer, learning_rate(config)
  adam = optax.scale_by_adam(b1=section.b1, b2=section.b2, eps=section.eps)
  return optax.chain(
    clip(section.clip),
    _shared(adam, section.shares),
    optax.scale_by_learning_rate(rate),
  )


def _shared(
  inner: optax.GradientTransformation, shares: Sequence[tuple[str, float]]
) -> optax.GradientTransformation:
  """Scales updates by the path of their parameter; keeps inner's own state."""

  def share(path: str) -> float:
    return next((share for part, share in shares if re.search(part, path)), 1.0)

  def init(params):
    paths = traverse_util.flatten_dict(params, sep='/')
    for part, _ in shares:
      if not any(re.search(part, path) for path in paths):
        raise ValueError(
          f'config.optimizer.shares: no trained parameter has {part!r} in its '
          f'path; one is {next(iter(paths))!r}. Leave out what is frozen.'
        )
    return inner.init(params)

  def update(updates, state, params=None):
    updates, state = inner.update(updates, state, params)
    scaled = jax.tree_util.tree_map_with_path(
      lambda path, x: share(sharding.path_of(path)) * x, updates
    )
    return scaled, state

  return optax.GradientTransformation(init, update)


def learning_rate(config) -> Callable[[Any], Any]:
  """lr max(1, k) / warmup after k updates, then lr, as in the reference.

  A run that is to end falls to nothing over its last `cooldown_steps`.
  """
  section, end = config.optimizer, config.train.num_steps

  def rate(k):
    share = jnp.maximum(1, k) / max(1, section.warmup_steps)
    if section.cooldown_steps:
      share = jnp.minimum(share, (end - k) / section.cooldown_steps)
    return section.learning_rate * jnp.clip(share, 0.0, 1.0)

  return rate


def averaging(section, k) -> Float[Array, '']:
  """How much of the average stays after k updates: up to `ema_decay`.

  A young average would hold on to where it began, and early pictures would be
  of nothing: so it remembers at most about the last ninth of the run.
  """
  return jnp.minimum(section.ema_decay, (1 + k) / (10 + k))


def clip(limit: float) -> optax.GradientTransformation:
  """Scales by limit / (norm + 1e-6) if that is below one, as PyTorch does."""

  def scaled(updates, params):
    del params
    scale = jnp.minimum(1.0, limit / (optax.tree.norm(updates) + 1e-6))
    return jax.tree.map(lambda u: u * scale, updates)

  return optax.stateless(scaled)


def create(config, model: Kaleido, key) -> State:
  """A fresh state; trace it under jit with `shardings` of its shape."""
  params = kaleido.init_params(model, key, config.image_shapes)
  return around(config, model, params)


def around(config, model: Kaleido, params) -> State:
  """A fresh state of given parameters."""
  trained, frozen = kaleido.split(model, params)
  return State(
    trained=trained,
    frozen=frozen,
    ema=jax.tree.map(jnp.copy, trained),
    opt_state=optimizer(config).init(trained),
    counts=Counts(*(jnp.zeros((), jnp.int32) for _ in Counts._fields)),
  )


def shardings(config, model: Kaleido, mesh: Mesh) -> tuple[State, State]:
  """(shapes, shardings) of a state, without making one."""
  shapes = jax.eval_shape(
    lambda key: create(config, model, key), jax.random.key(0)
  )
  kind = config.model.denoiser.kind
  return shapes, sharding.shardings(shapes, mesh, kind)


def init(config, model: Kaleido, mesh: Mesh) -> State:
  """A fresh state on the devices, each part born where it belongs."""
  _, where = shardings(config, model, mesh)
  make = jax.jit(lambda key: create(config, model, key), out_shardings=where)
  return make(jax.random.key(config.seed))


def build_step(
  config, model: Kaleido, mesh: Mesh, separator: int
) -> Callable[[State, Mapping[str, Array]], tuple[State, dict[str, Array]]]:
  """The jitted update; the state that goes in is donated."""
  _, where = shardings(config, model, mesh)
  return sharding.jit(
    lambda state, batch: update(config, model, mesh, separator, state, batch),
    mesh,
    donate_argnums=0,
    compiler_options={'xla_gpu_deterministic_ops': config.train.deterministic},
    out_shardings=(where, sharding.replicated(mesh)),
  )


def update(
  config, model: Kaleido, mesh: Mesh, separator: int, state: State, batch
) -> tuple[State, dict[str, Array]]:
  """One step: both losses, one gradient, one average."""
  key = jax.random.fold_in(jax.random.key(config.seed), state.counts.step)
  drawn = objective.draw(config, key, batch)
  gradient, metrics = accumulate(
    # Not 0 or 1: `draw` has split those off.
    *(config, model, mesh, separator, state, drawn),
    jax.random.fold_in(key, 2),
  )
  norm = optax.tree.norm(gradient)
  finite = jnp.isfinite(metrics['loss']) & jnp.isfinite(norm)

  updates, opt_state = optimizer(config).update(
    gradient, state.opt_state, state.trained
  )
  trained = optax.apply_updates(state.trained, updates)
  done = state.counts.step - state.counts.skipped
  decay = averaging(config.optimizer, done)
  ema = jax.tree.map(
    lambda old, new: decay * old + (1 - decay) * new, state.ema, trained
  )

  def keep(new, old):
    # What is not finite is computed and thrown away: there is no branch.
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

  counts = Counts(
    step=state.counts.step + 1,
    skipped=state.counts.skipped + ~finite,
    in_a_row=jnp.where(finite, 0, state.counts.in_a_row + 1),
  )
  state = State(
    trained=keep(trained, state.trained),
    frozen=state.frozen,
    ema=keep(ema, state.ema),
    opt_state=keep(opt_state, state.opt_state),
    counts=counts,
  )
  metrics |= {
    'gradient_norm': norm,
    'learning_rate': learning_rate(config)(done),
    'skipped': counts.skipped,
    'skipped_in_a_row': counts.in_a_row,
  }
  return state, metrics


def accumulate(
  config, model: Kaleido, mesh: Mesh, separator: int, state: State, drawn, key
) -> tuple[Any, dict[str, Float[Array, '']]]:
  """The gradient of a batch, in as many parts as memory asks for."""
  parts = config.optimizer.accumulate
  num_tokens = objective.count_tokens(drawn) / parts

  def loss(trained, some, key):
    params = kaleido.join(trained, state.frozen)
    params = sharding.gather_denoiser(params, mesh, config.model.denoiser.kind)
    return objective.losses(
      config, model, params, some, num_tokens, separator, key
    )

  grad = jax.value_and_grad(loss, has_aux=True)
  if parts == 1:
    (_, metrics), gradient = grad(state.trained, drawn, key)
    return gradient, metrics

  # Rows are dealt out like cards, so that no part has to move between devices.
  spread = NamedSharding(mesh, P(None, ('data', 'fsdp')))
  dealt = jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(
      x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), spread
    ),
    drawn,
  )

  def body(total, part):
    (_, metrics), gradient = grad(state.trained, *part)
    return jax.tree.map(jnp.add, total, (gradient, metrics)), None

  some = jax.tree.map(lambda x: x[0], dealt)
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(lambda t, s: _swapped(grad(t, s, key)), state.trained, some),
  )
  (gradient, metrics), _ = jax.lax.scan(
    body, zeros, (dealt, jax.random.split(key, parts))
  )
  # Means of means; but counts of tokens are sums.
  metrics = {
    name: value if name.startswith('sum/') else value / parts
    for name, value in metrics.items()
  }
  return jax.tree.map(lambda g: g / parts, gradient), metrics


def _swapped(found):
  (_, metrics), gradient = found
  return gradient, metrics
