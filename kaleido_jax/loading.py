"""A trained model from a workdir or an export, onto the devices there are."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kaleido_jax import checkpoint, exported, origins, sharding, steering
from kaleido_jax.data import sources
from kaleido_jax.latents.tokens import Vocabulary
from kaleido_jax.models import kaleido
from kaleido_jax.render import Render, Weaker

LARGE = 10**9  # parameters; more are split over the devices

# Where two networks that draw one picture agree. (Of vocabularies the pieces
# count, wherever the file is.)
ONE_PICTURE = {*origins.MEANING, 'image_shapes', 'latents'} - {
  'data.vocabulary'
}


class Loaded(NamedTuple):
  """What sampling needs of a run."""

  name: str
  step: int
  config: ConfigDict
  model: kaleido.Kaleido
  params: Any  # averaged
  mesh: Mesh
  words: Vocabulary


def load(
  workdir: str,
  devices=None,
  *,
  mesh: Mesh | None = None,
  step: int | None = None,
) -> Loaded:
  """Reads the averages alone: no optimizer, no second copy.

  `mesh` is where another model lies already; `step` None is the last.
  """
  _keep_programs()
  folder = exported.folder_of(str(workdir))
  config = config_of(folder)
  model = kaleido.from_config(config)
  shapes = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, config.image_shapes),
    jax.random.key(0),
  )
  mesh = mesh or _mesh(shapes, devices)
  kind = config.model.denoiser.kind
  wanted = checkpoint.abstract(shapes, sharding.shardings(shapes, mesh, kind))
  if exported.is_export(folder):
    if step is not None:
      raise ValueError(f'{workdir} has one step alone: leave out @{step}.')
    params, step = exported.read(folder, wanted)
  else:
    params, step = _of_run(folder, model, wanted, step)
  words = sources.vocabulary(config.data, config.latents)
  return Loaded(str(workdir), step, config, model, params, mesh, words)


def renders(
  config: ConfigDict, model: kaleido.Kaleido, mesh: Mesh, words: Vocabulary
) -> Callable[[Any], Render]:
  """What draws as a section like config.sample says.

  A weaker run that it names is read when it is first asked for.
  """

  @functools.lru_cache(maxsize=3)  # each has its parameters
  def beside(name: str) -> Render:
    weaker = _weaker(name, config, mesh, words) if name else None
    return Render(config, model, mesh, weaker=weaker)

  return lambda sample: beside(steering.weaker(sample))


@functools.cache  # or it would change while pictures are drawn
def pinned(name: str) -> str:
  """runs/NAME as runs/NAME@STEP: it goes on, and would draw another picture."""
  workdir, step = _parted(name)
  if step is not None or exported.is_export(exported.folder_of(workdir)):
    return name
  origins.config_of(workdir)  # or a sentence that it is none
  path = str(epath.Path(workdir) / 'checkpoints')
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    step = saved.latest()
  return name if step is None else f'{name}@{step}'


def _parted(name: str) -> tuple[str, int | None]:
  """runs/NAME@2000 in two, unless that is a folder."""
  workdir, at, step = name.rpartition('@')
  if not at or not step.isdecimal() or pathlib.Path(name).is_dir():
    return name, None
  return workdir, int(step)


def _weaker(name: str, config, mesh: Mesh, words: Vocabulary) -> Weaker:
  """Of runs/NAME, the last checkpoint; of runs/NAME@STEP, that one."""
  workdir, step = _parted(name)
  found = load(workdir, mesh=mesh, step=step)
  fields = {
    field: tuple(origins.at(each, field) for each in (found.config, config))
    for field in sorted(ONE_PICTURE)
  }
  different = [
    f'{field} is {theirs} there and {ours} here'
    for field, (theirs, ours) in fields.items()
    if theirs not in (ours, None)
  ]
  if found.words.fingerprint != words.fingerprint:
    different.append('their vocabularies differ')
  if different:
    raise ValueError(
      f'{name} cannot be the weaker network: {"; ".join(different)}.'
    )
  return Weaker(found.model, found.params, found.config.model.denoiser.kind)


def config_of(workdir: str) -> ConfigDict:
  """A run's own, with ways to draw and to judge that are newer than it."""
  folder = exported.folder_of(workdir)
  config = origins.config_of(folder)
  own = pathlib.Path(folder) / exported.VOCABULARY
  if own.is_file():
    config.data.vocabulary = str(own)
  newer = _newest()
  if newer is None:
    return config
  for section in ('diffusion', 'sample', 'evaluate'):
    _keep(newer[section], config.get(section, {}))
    config[section] = newer[section]
  return config


def _newest() -> ConfigDict | None:
  """What this version's own configs/ say; none is installed with it."""
  try:
    from configs import default
  except ImportError:
    return None
  # Somebody else's folder of that name is none of ours.
  ours = pathlib.Path(__file__).parents[1] / 'configs' / 'default.py'
  same = pathlib.Path(default.__file__).resolve() == ours.resolve()
  return default.get_config() if same else None


def _keep(newer: ConfigDict, own: Any) -> None:
  """What a run says of the fields that there still are."""
  for name, value in own.items():
    if isinstance(newer.get(name), ConfigDict):
      _keep(newer[name], value)
    elif name in newer:
      newer[name] = value


def _keep_programs() -> None:
  """Compiled ones, unless somebody has said where: the next start is quick."""
  if not jax.config.jax_compilation_cache_dir:
    folder = pathlib.Path('~/.cache/kaleido_jax/compiled').expanduser()
    jax.config.update('jax_compilation_cache_dir', str(folder))


def _mesh(shapes, devices) -> Mesh:
  devices = jax.devices() if devices is None else devices
  size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  split = {'fsdp': -1, 'data': 1} if size > LARGE else {'fsdp': 1, 'data': -1}
  return sharding.create_mesh({**split, 'tensor': 1, 'slices': 1}, devices)


def _of_run(folder: str, model, wanted, step) -> tuple[Any, int]:
  trained, frozen = kaleido.split(model, wanted)
  path = str(epath.Path(folder) / 'checkpoints')
  with checkpoint.Checkpoints(path, read_only=True) as saved:
    step = saved.latest() if step is None else step
    found = saved.restore({'ema': trained, 'frozen': frozen}, step)
  return kaleido.join(found['ema'], found['frozen']), step
