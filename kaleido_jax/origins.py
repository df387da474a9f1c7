"""What `config.init` names: whether it is there, and of this very model.

All is said before anything is built, and all that has to be fetched at once.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from etils import epath
from flax import traverse_util
from ml_collections import ConfigDict

from kaleido_jax import checkpoint, exported
from kaleido_jax.convert import huggingface, t5x
from kaleido_jax.data import sources
from kaleido_jax.models.t5_layers import T5Config

# Fields that may change from run to run with the same parameters.
FREE = ('dtype', 'remat', 'dropout')


# Fields that give parameters their meaning.
MEANING = (
  *('data.vocabulary', 'data.vocabulary_rows', 'data.box_lines'),
  *('data.voken_codes', 'data.voken_count', 'data.preprocess'),
  *('diffusion.schedule', 'diffusion.num_times', 'diffusion.shift_power'),
  'diffusion.prediction',
)


def plan(config: ConfigDict) -> dict[str, str]:
  """Which field of config.init each part comes from; '' is nothing."""
  given = config.init
  origins = {part: 't5' if given.t5 else '' for part in t5_parts(config)}
  origins['denoiser'] = 'mdm' if given.mdm else ''
  if given.run:
    theirs = config_of(given.run)
    if not theirs.latents:
      return origins | {'encoder': 'run', 'denoiser': 'run'}
    origins = dict.fromkeys(origins, 'run')
  return origins


def t5_parts(config: ConfigDict) -> tuple[str, ...]:
  return ('encoder', 'decoder') if config.latents else ('encoder',)


def missing(config: ConfigDict) -> list[str]:
  """What has to be fetched, a sentence for each file that is not there."""
  given, lacking = config.init, []
  if given.run and not _has_weights(given.run):
    lacking.append(
      f'there is no checkpoint of a run in {given.run} (config.init.run). Give '
      'the --workdir of a run that has saved, an export, or what ships: '
      'pretrained:shapes.'
    )
    config = config.copy_and_resolve_references()
    config.init.run = ''  # what else would be needed
  origins = plan(config).values()
  folder = pathlib.Path(given.t5)
  if 't5' in origins and not (
    (folder / 'config.json').is_file() or _is_t5x(folder)
  ):
    lacking.append(
      f'there is no T5 in {folder} (config.init.t5). Fetch it with\n'
      f'  {fetch(folder)}'
    )
  if 'mdm' in origins and not pathlib.Path(given.mdm).is_file():
    lacking.append(
      f'there is no file {given.mdm} (config.init.mdm). Matryoshka Diffusion '
      'publishes vis_model_64x64.pth and vis_model_256x256.pth with its code: '
      'https://github.com/apple/ml-mdm.'
    )
  return lacking


def _has_weights(run: str) -> bool:
  return checkpoint.has_saved(run) or exported.is_export(
    exported.folder_of(run)
  )


def fetch(folder: pathlib.Path) -> str:
  """The command that brings a T5 of the Hugging Face hub, and its words."""
  name = folder.name
  name = name if name.startswith(('flan-t5-', 't5-')) else 'flan-t5-xl'
  return (
    'pip install huggingface_hub\n'
    f"  hf download google/{name} --include '*.json' '*.safetensors' '*.model' "
    f'--local-dir {folder}'
  )


def check(config: ConfigDict, *, fresh: bool) -> None:
  """Names all that has to be fetched; refuses files of another model.

  A run that is not fresh has its parameters in its workdir.
  """
  lacking = sources.missing(config) + (missing(config) if fresh else [])
  if lacking:
    numbered = (f'{i}. {text}' for i, text in enumerate(lacking, 1))
    raise FileNotFoundError(
      'not everything is there that this run reads:\n\n' + '\n\n'.join(numbered)
    )
  if fresh:
    _check_model(config)


def _check_model(config: ConfigDict) -> None:
  origins = plan(config)
  if config.init.anew and not any(origins.values()):
    raise ValueError(
      'config.init.anew says what is not taken from a run or a file, and '
      'config.init names none: everything is new.'
    )
  if config.model.freeze_encoder and not origins['encoder']:
    raise ValueError(
      'config.model.freeze_encoder=True, but the encoder would begin as random '
      'numbers and stay so. Give a T5 as config.init.t5, or train it: '
      '--config.model.freeze_encoder=False.'
    )
  for part in t5_parts(config):
    if origins[part] == 't5':
      theirs = format_of(config.init.t5).load_config(config.init.t5)
      ours = T5Config(**config.model[part])
      _agree_with_t5(config.init.t5, part, ours, theirs)
  if 'run' in origins.values():
    _agree_with_run(config, origins)


def _agree_with_t5(folder: str, part: str, ours: T5Config, theirs: T5Config):
  half = 'decoder' if part == 'encoder' else 'encoder'
  # What adapts to a run, and what belongs to the half that is not read.
  free = {*FREE, 'vocab_size', 'frozen_layers', 'lora_rank'}
  free |= {f'num_{half}_layers', 'tied_head' if half == 'decoder' else ''}
  _same(
    folder,
    {k: v for k, v in dataclasses.asdict(theirs).items() if k not in free},
    {k: v for k, v in dataclasses.asdict(ours).items() if k not in free},
    f'model.{part}.',
  )
  if ours.vocab_size < theirs.vocab_size:
    raise ValueError(
      f'{folder} has {theirs.vocab_size} tokens, but config.model.{part}.'
      f'vocab_size={ours.vocab_size}; use at least as many.'
    )


def _agree_with_run(config: ConfigDict, origins: Mapping[str, str]) -> None:
  source = config.init.run
  theirs = config_of(source)
  for part in t5_parts(config):
    if origins[part] == 'run':
      _same(source, theirs.model[part], config.model[part], f'model.{part}.')
  # Rows of embeddings mean the tokens that they meant, and numbers that the
  # denoiser gives what they were.
  known = [name for name in MEANING if at(theirs, name) is not None]
  means = ({name: at(c, name) for name in known} for c in (theirs, config))
  _same(source, *means, '')
  if origins.get('decoder') == 'run':
    ours, rows = _rows(config), _rows(theirs)
    _same(
      source,
      {kind: row for kind, row in rows.items() if kind in ours},
      {kind: row for kind, row in ours.items() if kind in rows},
      'first token of ',
    )
  _same(
    source,
    theirs.model.denoiser,
    inner(config.model.denoiser, levels(config, theirs)),
    'model.denoiser.',
  )


def _rows(config: ConfigDict) -> dict[str, int]:
  """Where the tokens of a kind begin, behind the pieces of words.

  A run may write other kinds than the one that it comes from, as long as what
  they share are the same rows.
  """
  found, row = {}, 0
  for kind in sources.kinds(config.data, config.latents):
    if kind.pieces:
      found[kind.name] = row
      row += kind.pieces
  return found


def _same(source: str, theirs, ours, path: str) -> None:
  """Compares two sections of configurations."""
  theirs, ours = (
    traverse_util.flatten_dict(
      section.to_dict() if isinstance(section, ConfigDict) else section, sep='.'
    )
    for section in (theirs, ours)
  )
  different = [
    f'{path}{name}={theirs.get(name)} there and {ours.get(name)} here'
    for name in sorted({*theirs, *ours})
    if theirs.get(name) != ours.get(name)
    and name.rpartition('.')[2] not in FREE
  ]
  if different:
    raise ValueError(
      f'{source} is of another model: {"; ".join(different)}. Make the '
      'configuration agree with it.'
    )


def at(config: ConfigDict, path: str) -> Any:
  """The field at 'data.vocabulary'; None if a run is older than the field."""
  return functools.reduce(lambda c, n: c and c.get(n), path.split('.'), config)


def config_of(run: str) -> ConfigDict:
  """The configuration of a run or an export, by its folder."""
  path = epath.Path(exported.folder_of(run)) / exported.CONFIG
  if not path.exists():
    raise FileNotFoundError(
      f'{run} is no workdir of a run: there is no {path.name} in it. Give the '
      '--workdir that training had.'
    )
  try:
    values = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f'{path} cannot be read: {error}.') from error
  return ConfigDict(_tuples(values))


def _tuples(value):
  """JSON has made lists of tuples."""
  if isinstance(value, dict):
    return {name: _tuples(inside) for name, inside in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def levels(config: ConfigDict, theirs: ConfigDict) -> int:
  """How many resolutions ours has around those of theirs."""
  ours = [tuple(shape) for shape in config.image_shapes]
  given = [tuple(shape) for shape in theirs.image_shapes]
  count = len(ours) - len(given)
  if count < 0 or ours[count:] != given:
    raise ValueError(
      f'{config.init.run} draws {given}, which are not the lower resolutions '
      f'of config.image_shapes={ours}.'
    )
  return count


def inner(tree, levels: int):
  """The network inside so many others."""
  for _ in range(levels):
    tree = tree['inner_unet']
  return tree


def format_of(folder: str):
  """The module that reads a folder of T5."""
  return t5x if _is_t5x(pathlib.Path(folder)) else huggingface


def _is_t5x(folder: pathlib.Path) -> bool:
  return (folder / 'checkpoint').is_file()
