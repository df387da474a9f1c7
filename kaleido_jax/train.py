"""Training, as far as it goes: one forward pass of a freshly started model.

Both losses of the first batch, L = L_DM + eta L_AR. There is no optimizer yet:
what this shows is that a configuration builds, reads its data, and what its
parts cost.
"""

import pathlib
import time

import jax
import optax
from absl import logging
from ml_collections import ConfigDict

from kaleido_jax.data import images, sources, store
from kaleido_jax.diffusion import loss, schedule
from kaleido_jax.models import kaleido, t5


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
  sources.check(config)
  model = kaleido.from_config(config)
  init_key, batch_key = jax.random.split(jax.random.key(config.seed))

  shapes = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, config.image_shapes), init_key
  )
  logging.info('%s', describe(model, shapes))
  params = jax.jit(
    lambda key: kaleido.init_params(model, key, config.image_shapes)
  )(init_key)

  encoder = ''
  if config.data.cached_memory:
    if not config.model.freeze_encoder:
      raise ValueError(
        'config.data.cached_memory=True, but the encoder is trained: its '
        'states change. Set config.model.freeze_encoder=True, or do not cache.'
      )
    encoder = store.encoder_name(params['encoder'], config.model.encoder.dtype)
  batch = first_batch(batch_key, config, encoder)
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
      memory=batch.get('memory'),
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


def first_batch(key, config, encoder: str = '') -> dict:
  """The first batch of a run, with times and noise."""
  found = sources.batches(config, encoder=encoder)
  batch = next(found)
  found.close()
  arrays = dict(batch.arrays)
  x = arrays.pop('image')
  if len(config.image_shapes[0]) == 3:
    x = images.normalise(x.astype('float32'), config.data.preprocess)
    sizes = [height for height, _, _ in config.image_shapes]
    x0s = loss.pyramid(jax.numpy.asarray(x), sizes)
  else:
    x0s = (jax.numpy.asarray(x),)
  times, epss = loss.draw(key, x0s, config.diffusion.num_times)
  return dict(arrays, x0s=x0s, times=times, epss=epss)


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
