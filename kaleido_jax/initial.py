"""Where a run's parameters come from, as long as its workdir has no checkpoint.

`config.init` names files. Each part of the model comes from the first of these
that has it:

  encoder    a run of ours     a pretrained T5     nothing
  decoder    a run of ours     a pretrained T5     nothing
  denoiser   a run of ours     Matryoshka          nothing

Nothing is random numbers, and so is what `config.init.anew` names. A run, or an
export of one, gives averages; its denoiser, or Matryoshka's, may be the inner
one of a larger denoiser: the paper trains 64x64 first, then 256x256 around it.
Arrays are read straight into their shardings.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from absl import logging
from flax import traverse_util
from jax.sharding import Mesh

from kaleido_jax import checkpoint, exported, origins, sharding
from kaleido_jax import state as states
from kaleido_jax.convert import mdm, torch_file
from kaleido_jax.models import adaptation, kaleido, nested_unet, t5
from kaleido_jax.models.kaleido import Kaleido
from kaleido_jax.models.t5_layers import T5Config


def create(config: Any, model: Kaleido, mesh: Mesh) -> states.State:
  """A fresh state on the devices, each array born where it belongs."""
  plan = origins.plan(config)
  if not any(plan.values()):
    return states.init(config, model, mesh)
  shapes, where = states.shardings(config, model, mesh)
  wanted = checkpoint.abstract(
    kaleido.join(shapes.trained, shapes.frozen),
    kaleido.join(where.trained, where.frozen),
  )
  found = {}
  if 'run' in plan.values():
    found = _of_run(config, mesh, wanted, plan)
  for part, origin in plan.items():
    file = config.init[origin] if origin else 'random numbers'
    logging.info('%s: from %s', part, file)
    if origin == 't5':
      found[part] = _of_t5(config, mesh, part, wanted[part])
    elif origin == 'mdm':
      found[part] = _of_mdm(config, wanted[part])
  params = _completed(config, model, wanted, found)
  # Donated: what is not averaged is passed through, not copied.
  around = jax.jit(
    lambda params: states.around(config, model, params),
    out_shardings=where,
    donate_argnums=0,
  )
  return around(params)


def _grown(around, inner, levels: int):
  """Puts a network inside `levels` others."""
  if levels > 1:
    inner = _grown(around['inner_unet'], inner, levels - 1)
  return nested_unet.grow(around, inner) if levels else inner


def _of_run(config, mesh, wanted, plan: Mapping[str, str]) -> dict:
  """What a run of ours has learned, on average."""
  theirs = origins.config_of(config.init.run)
  model, kind = kaleido.from_config(theirs), theirs.model.denoiser.kind
  shapes = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, theirs.image_shapes),
    jax.random.key(0),
  )
  whole = checkpoint.abstract(shapes, sharding.shardings(shapes, mesh, kind))
  folder = exported.folder_of(config.init.run)
  if exported.is_export(folder):
    params, _ = exported.read(folder, whole)
  else:
    averages, frozen = kaleido.split(model, whole)
    with checkpoint.Checkpoints(
      f'{folder}/checkpoints', read_only=True
    ) as checkpoints:
      found = checkpoints.restore({'ema': averages, 'frozen': frozen})
    params = kaleido.join(found['ema'], found['frozen'])
  params['denoiser'] = _grown(
    wanted['denoiser'], params['denoiser'], origins.levels(config, theirs)
  )
  return {part: params[part] for part in plan if plan[part] == 'run'}


def _of_mdm(config, wanted):
  """The denoiser of a `.pth` file, or the inner network that it is."""
  weights = torch_file.state_dict(config.init.mdm)
  levels = _depth(wanted, '/') - _depth(weights, '.')
  if levels < 0:
    raise ValueError(
      f'{config.init.mdm} has more resolutions than config.image_shapes; '
      'configure the denoiser as it was trained.'
    )
  target = origins.inner(wanted, levels)
  inner = mdm.fill(target, weights, source=config.init.mdm)
  return _grown(wanted, inner, levels)


def _depth(tree, sep: str) -> int:
  names = traverse_util.flatten_dict(dict(tree), sep=sep)
  return max(name.count(f'inner_unet{sep}') for name in names)


def _of_t5(config, mesh, part: str, wanted):
  """One half of a pretrained T5, with the rows that latents need."""
  folder, ours = config.init.t5, T5Config(**config.model[part])
  read, halves = origins.format_of(folder), (part,)
  plain = t5.abstract_params(t5.T5(read.load_config(folder)), halves)
  where = sharding.shardings({part: plain}, mesh, config.model.denoiser.kind)
  target = checkpoint.abstract(plain, where[part])
  module, params = read.load(folder, target, halves=halves)
  left = traverse_util.flatten_dict(params, sep='/')
  del params
  wanted = traverse_util.flatten_dict(wanted, sep='/')
  key = jax.random.key(config.seed)
  key = jax.random.fold_in(key, ('encoder', 'decoder').index(part))
  fitted = {}
  for index, path in enumerate(sorted(left)):
    # One by one: there is never a second copy of all of them.
    change = _fitting(module.config, ours, path, jax.random.fold_in(key, index))
    leaf = left.pop(path)
    shapes = {n: s.shape for n, s in jax.eval_shape(change, leaf).items()}
    if shapes == {path: leaf.shape}:
      fitted[path] = leaf
    else:
      place = {name: wanted[name].sharding for name in shapes}
      fitted |= jax.jit(change, out_shardings=place)(leaf)
  return traverse_util.unflatten_dict(fitted, sep='/')


def _fitting(theirs: T5Config, ours: T5Config, path: str, key):
  """What makes one array of theirs ours: new rows, split layers, updates."""

  def change(leaf):
    tree = traverse_util.unflatten_dict({path: leaf}, sep='/')
    config, tree = adaptation.resize_vocabulary(
      theirs, tree, ours.vocab_size, key
    )
    _, tree = adaptation.adapt(
      config,
      tree,
      key,
      frozen_layers=ours.frozen_layers,
      lora_rank=ours.lora_rank,
    )
    return traverse_util.flatten_dict(tree, sep='/')

  return change


def _completed(config, model: Kaleido, wanted, found):
  """Draws what was not read, as a run from nothing draws it."""
  wanted = traverse_util.flatten_dict(dict(wanted), sep='/')
  anew = _anew(config.init.anew, wanted)
  read = {
    path: leaf
    for path, leaf in traverse_util.flatten_dict(found, sep='/').items()
    if isinstance(leaf, jax.Array) and path not in anew
  }
  where = {
    path: leaf.sharding for path, leaf in wanted.items() if path not in read
  }

  def draw(key):
    params = kaleido.init_params(model, key, config.image_shapes)
    flat = traverse_util.flatten_dict(params, sep='/')
    return {path: flat[path] for path in where}

  if where:
    draw = jax.jit(draw, out_shardings=where)
    read |= draw(jax.random.key(config.seed))
  return traverse_util.unflatten_dict(read, sep='/')


def _anew(patterns: tuple[str, ...], paths: Iterable[str]) -> set[str]:
  """The parameters that begin as random numbers, whatever was read."""
  anew = set()
  for pattern in patterns:
    matched = {path for path in paths if re.search(pattern, path)}
    if not matched:
      raise ValueError(
        f'config.init.anew: no parameter has {pattern!r} in its path; one is '
        f'{next(iter(paths))!r}.'
      )
    anew |= matched
  if anew:
    logging.info('random numbers: %s', ', '.join(sorted(anew)))
  return anew
