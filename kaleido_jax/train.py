"""Training, as far as it goes: one forward pass of a freshly started model.

Both losses of a random batch, L = L_DM + eta L_AR. There is no optimizer yet:
what this shows is that a configuration builds, and what its parts cost.
"""

import pathlib
import time

import jax
import optax
from absl import logging
from ml_collections import ConfigDict

from kaleido_jax.diffusion import loss, schedule
from kaleido_jax.models import kaleido, t5

BATCH_SIZE, LENGTH = 4, 8  # of the random batch; any would do


def run(config: ConfigDict, *, workdir: str) -> None:
  """Builds the model of a configuration and applies it once."""
  if '://' in workdir:
    raise ValueError(
      f'workdir={workdir} is not on this machine; buckets come with training, '
      'give a local folder.'
    )
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'config.json').write_text(config.to_json(indent=2) + '\n')
  model = kaleido.from_config(config)
  init_key, batch_key = jax.random.split(jax.random.key(config.seed))

  shapes = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, config.image_shapes), init_key
  )
  logging.info('%s', describe(model, shapes))
  params = jax.jit(
    lambda key: kaleido.init_params(model, key, config.image_shapes)
  )(init_key)

  batch = random_batch(batch_key, config)
  step = jax.jit(lambda params: losses(model, params, batch, config))
  started = time.perf_counter()
  compiled = step.lower(params).compile()
  logging.info('compiled in %.1f s', time.perf_counter() - started)
  total, parts = jax.device_get(compiled(params))
  text = ', '.join(f'{name} {value:.4f}' for name, value in parts.items())
  logging.info('one forward pass: loss %.4f (%s)', total, text)


def losses(model, params, batch, config):
  """L_DM + eta L_AR, and both by themselves."""
  base = schedule.create(config.diffusion.schedule, config.diffusion.num_times)
  lowest = config.image_shapes[-1][0]
  schedules = base.pyramid(
    [shape[0] / lowest for shape in config.image_shapes],
    config.diffusion.shift_power,
  )
  logits = None

  def network(xs, times):
    nonlocal logits
    predictions, logits = model.apply(
      {'params': params},
      batch['ids'],
      batch['ids'] != t5.PAD,
      xs,
      times,
      batch['z'] if config.latents else None,
    )
    return predictions

  diffusion_loss, _ = loss.denoising(
    network,
    schedules,
    batch['x0s'],
    batch['times'],
    batch['epss'],
    prediction=config.diffusion.prediction,
    target=config.diffusion.target,
  )
  parts = {'diffusion_loss': diffusion_loss}
  total = diffusion_loss
  if config.latents:
    parts['prior_loss'] = optax.softmax_cross_entropy_with_integer_labels(
      logits, batch['z']
    ).mean()
    total += config.eta * parts['prior_loss']
  return total, parts


def random_batch(key, config) -> dict:
  """A batch of no meaning, in the shapes that the configuration asks for."""
  x_key, z_key, ids_key, noise_key = jax.random.split(key, 4)
  x0s = tuple(
    jax.random.normal(jax.random.fold_in(x_key, i), (BATCH_SIZE, *shape))
    for i, shape in enumerate(config.image_shapes)
  )
  times, epss = loss.draw(noise_key, x0s, config.diffusion.num_times)

  def tokens(key, vocab_size):
    first = t5.EOS + 1
    drawn = jax.random.randint(key, (BATCH_SIZE, LENGTH), first, vocab_size)
    return drawn.at[:, -1].set(t5.EOS)

  return dict(
    ids=tokens(ids_key, config.model.encoder.vocab_size),
    z=tokens(z_key, config.model.decoder.vocab_size),
    x0s=x0s,
    times=times,
    epss=epss,
  )


def describe(model: kaleido.Kaleido, params) -> str:
  """A table of the parts: how many parameters, how many of them trained."""

  def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))

  trained, _ = jax.eval_shape(lambda p: kaleido.split(model, p), params)
  rows = [
    f'  {part:<10}{count(tree):>16,}{count(trained.get(part, {})):>16,}'
    for part, tree in params.items()
  ]
  total = f'  {"total":<10}{count(params):>16,}{count(trained):>16,}'
  head = f'  {"part":<10}{"parameters":>16}{"trained":>16}'
  return '\n'.join(['the model', head, *rows, total])
