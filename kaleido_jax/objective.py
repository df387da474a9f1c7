"""What is minimised: L = L_DM + eta L_AR, on one batch.

A batch has arrays of `data.recipe`. Its randomness comes from one key and the
place of an example in the batch, so it is the same however many devices, or
micro-batches, share the work.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int, Key

from kaleido_jax.arrays import Array, Images
from kaleido_jax.data import images
from kaleido_jax.diffusion import loss, schedule
from kaleido_jax.models import t5
from kaleido_jax.models.kaleido import Kaleido

Batch = Mapping[str, Array]
Metrics = dict[str, Float[Array, '']]


def batch_shapes(config: Any) -> dict[str, jax.ShapeDtypeStruct]:
  """What a batch is made of; reads no data and no vocabulary."""
  data, shape = config.data, config.image_shapes[0]
  arrays = {
    'image': (shape, jnp.uint8 if len(shape) == 3 else jnp.float32),
    'ids': ((data.caption_length,), jnp.int32),
  }
  if config.latents:
    # Every kind is followed by a separator or, the last one, by EOS.
    tokens = sum(data.lengths[kind] + 1 for kind in config.latents)
    arrays['z'] = (tokens,), jnp.int32
  if data.cached_memory:
    encoder = config.model.encoder
    arrays['memory'] = (data.caption_length, encoder.width), encoder.dtype
  return {
    name: jax.ShapeDtypeStruct((data.batch_size, *shape), dtype)
    for name, (shape, dtype) in arrays.items()
  }


def draw(config: Any, key: Key[Array, ''], batch: Batch) -> dict[str, Any]:
  """A batch with all that chance adds: times, noise, dropped captions."""
  noise_key, drop_key = jax.random.split(key)
  x0s = pyramid(config, batch['image'])
  early = config.diffusion.early
  times, epss = loss.draw(
    noise_key,
    x0s,
    config.diffusion.num_times,
    early_share=early.share,
    early_start=early.start,
  )
  drop = jax.random.bernoulli(
    drop_key, config.diffusion.drop_condition, times.shape
  )
  rest = {name: array for name, array in batch.items() if name != 'image'}
  return dict(rest, x0s=x0s, times=times, epss=epss, drop=drop)


def pyramid(config: Any, image: Array) -> Images:
  """What the networks see of pictures (or points), high to low."""
  if len(config.image_shapes[0]) < 3:
    return (image,)
  x = images.normalise(image.astype(jnp.float32), config.data.preprocess)
  return loss.pyramid(x, [height for height, _, _ in config.image_shapes])


def schedules(config: Any) -> tuple[schedule.Schedule, ...]:
  """Noise by resolution."""
  base = schedule.create(config.diffusion.schedule, config.diffusion.num_times)
  lowest = config.image_shapes[-1][0]
  return base.pyramid(
    [shape[0] / lowest for shape in config.image_shapes],
    config.diffusion.shift_power,
  )


def losses(
  config: Any,
  model: Kaleido,
  params: Mapping[str, Any],
  drawn: Mapping[str, Any],
  num_tokens: Float[Array, ''],
  separator: int,
  key: Key[Array, ''] | None = None,
) -> tuple[Float[Array, ''], Metrics]:
  """The loss of a (micro-)batch, and the sums that its metrics are made of.

  `num_tokens` are those of the whole batch over the number of micro-batches:
  then the mean over micro-batches is the mean over all tokens. Dropout acts
  if there is a key.
  """
  logits = None

  def network(xs, times):
    nonlocal logits
    predictions, logits = model.apply(
      {'params': params},
      drawn['ids'],
      drawn['ids'] != t5.PAD,
      xs,
      times,
      drawn.get('z') if config.latents else None,
      memory=drawn.get('memory'),
      drop_caption=drawn['drop'],
      drop_latents=drawn['drop'] if config.latents else None,
      rngs=None if key is None else {'dropout': key},
    )
    return predictions

  diffusion_loss, parts = loss.denoising(
    network,
    schedules(config),
    drawn['x0s'],
    drawn['times'],
    drawn['epss'],
    prediction=config.diffusion.prediction,
    target=config.diffusion.target,
  )
  metrics = {'diffusion_loss': diffusion_loss}
  for shape, mse in zip(config.image_shapes, parts.mse, strict=True):
    metrics[f'diffusion_loss/{shape[0]}'] = mse.mean()
  total = diffusion_loss
  if config.latents:
    z = drawn['z']
    each = optax.softmax_cross_entropy_with_integer_labels(logits, z)
    used = z != t5.PAD
    prior_loss = jnp.where(used, each, 0).sum() / num_tokens
    metrics['prior_loss'] = prior_loss
    metrics |= by_kind(config.latents, z, each, logits, separator)
    total += config.eta * prior_loss
  return total, metrics | {'loss': total}


def count_tokens(drawn: Mapping[str, Any]) -> Float[Array, '']:
  """Of the latents; 1 where there are none."""
  if 'z' not in drawn:
    return jnp.float32(1)
  return (drawn['z'] != t5.PAD).sum().astype(jnp.float32)


def by_kind(
  kinds: tuple[str, ...],
  z: Int[Array, 'b m'],
  each: Float[Array, 'b m'],
  logits: Float[Array, 'b m v'],
  separator: int,
) -> Metrics:
  """Sums per kind of latent: tokens, right guesses, losses.

  The k-th separator ends the k-th kind and counts as its last token.
  """
  ends = z == separator
  place = jnp.cumsum(ends, axis=1) - ends
  right = logits.argmax(-1) == z
  metrics = {}
  for index, kind in enumerate(kinds):
    inside = (place == index) & (z != t5.PAD)
    metrics[f'sum/{kind}/tokens'] = inside.sum().astype(jnp.float32)
    metrics[f'sum/{kind}/right'] = (inside & right).sum().astype(jnp.float32)
    metrics[f'sum/{kind}/loss'] = jnp.where(inside, each, 0).sum()
  return metrics


def readable(metrics: Mapping[str, Any]) -> dict[str, float]:
  """Sums as accuracies and perplexities."""
  found = {
    name: float(value)
    for name, value in metrics.items()
    if not name.startswith('sum/')
  }
  for name, tokens in metrics.items():
    if name.startswith('sum/') and name.endswith('/tokens') and tokens:
      kind = name.split('/')[1]
      right, nats = (metrics[f'sum/{kind}/{n}'] for n in ('right', 'loss'))
      found[f'accuracy/{kind}'] = float(right / tokens)
      with np.errstate(over='ignore'):  # a run that diverges says so: inf
        found[f'perplexity/{kind}'] = float(np.exp(np.float64(nats / tokens)))
  return found
