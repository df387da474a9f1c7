"""From `config.data` to batches: which source, which latents, which recipe."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from kaleido_jax.data import pipeline, records, store
from kaleido_jax.data.example import Source
from kaleido_jax.data.recipe import Recipe
from kaleido_jax.latents import colors, named
from kaleido_jax.latents.blobs import BLOBS
from kaleido_jax.latents.boxes import BOXES
from kaleido_jax.latents.latents import Kind
from kaleido_jax.latents.tokens import Vocabulary
from kaleido_jax.latents.vokens import Vokens


def toy(data, split: str, size, kinds) -> Source:
  from kaleido_jax.data.toy import Toy

  return Toy(split=split)


def shapes(data, split: str, size: int, kinds) -> Source:
  from kaleido_jax.data.shapes import Shapes

  return Shapes(size=size, split=split, kinds=kinds)


def emoji(data, split: str, size: int, kinds) -> Source:
  from kaleido_jax.data.emoji import Emoji

  return Emoji(data.path, split=split, kinds=kinds)


def webdataset(data, split: str, size: int, kinds) -> Source:
  from kaleido_jax.data.webdataset import WebDataset

  return WebDataset(data.path)


def tfds(data, split: str, size: int, kinds) -> Source:
  from kaleido_jax.data.tfds import Tfds

  name = data.source.partition(':')[2]
  return Tfds(name, data.path, split=split)


# Sources are imported when they are used: shapes need no TFDS.
SOURCES: dict[str, Callable[..., Source]] = {
  'toy': toy,
  'shapes': shapes,
  'emoji': emoji,
  'tfds': tfds,  # tfds:NAME
  'webdataset': webdataset,
}

PHOTOGRAPHS = ('tfds', 'webdataset')  # whose latents are all in a store


def kinds(data, latents: tuple[str, ...]) -> tuple[Kind, ...]:
  """The kinds of a run, as its data has them."""
  own = {
    'voken': Vokens(pieces=data.voken_codes, count=data.voken_count),
    'bbox': dataclasses.replace(BOXES, lines=data.box_lines),
    'blob': dataclasses.replace(BLOBS, lines=data.box_lines),
  }
  return tuple(own.get(kind) or named(kind) for kind in latents)


def vocabulary(data, latents: tuple[str, ...]) -> Vocabulary:
  """The tokens of a run: words, and whole tokens for its latents."""
  return Vocabulary(
    data.vocabulary,
    kinds=kinds(data, latents),
    rows=data.vocabulary_rows or None,
  )


def recipe(data, latents: tuple[str, ...], size: int | None) -> Recipe:
  """What is done to every example of a run."""
  measured = {'color': colors.of}
  if size is None:  # points have no pixels
    measured = {}
  if data.caption_length < 1 or min(data.lengths.values()) < 1:
    raise ValueError(
      'config.data.caption_length and config.data.lengths count tokens: at '
      'least one.'
    )
  if data.vokens_from_pixels and size is not None:
    from kaleido_jax.models import vq

    if (data.voken_codes, data.voken_count) != (vq.CODES, vq.TOKENS):
      raise ValueError(
        f'config.data.vokens_from_pixels=True gives {vq.TOKENS} of {vq.CODES} '
        f'codes; set config.data.voken_codes={vq.CODES} and '
        f'config.data.voken_count={vq.TOKENS}.'
      )
    measured['voken'] = vq.of
  return Recipe(
    vocabulary=vocabulary(data, latents),
    caption_length=data.caption_length,
    lengths=dict(data.lengths),
    size=size,
    style=data.preprocess,
    flip=data.flip,
    measured=measured,
  )


def alone(data, made: Recipe, *, split: str) -> Source:
  """The examples of a split, with the latents that the source itself has."""
  return _open(data, split, made.size, made.needs())


def _open(data, split: str, size: int | None, kinds) -> Source:
  name = data.source.partition(':')[0]
  if name not in SOURCES:
    raise ValueError(
      f'config.data.source={data.source!r} is not one of {list(SOURCES)}.'
    )
  return SOURCES[name](data, split, size, tuple(kinds))


def source(data, made: Recipe, *, split: str, encoder: str = '') -> Source:
  """The examples of a split, joined to the latents that they lack."""
  found = alone(data, made, split=split)
  missing = made.needs() - set(found.kinds)
  if not (missing or encoder):
    return found
  if encoder and made.flip:
    raise ValueError(
      'config.data.flip mirrors captions, but cached states are of captions as '
      'they were. Turn off one of config.data.flip and '
      'config.data.cached_memory.'
    )
  if not data.store and not missing:
    raise ValueError(
      'config.data.cached_memory=True, but there is no store of encoder '
      'states. Make one with --mode=extract --config.extract.t5=FOLDER '
      '--config.data.store=FOLDER.'
    )
  if not data.store:
    raise ValueError(_no_store(data, missing))
  wanted = [k for k in made.vocabulary.kinds if k.name in missing]
  return store.Joined(found, data.store, kinds=wanted, encoder=encoder)


def _no_store(data, kinds: set[str]) -> str:
  return (
    f'{data.source} knows nothing of {sorted(kinds)}; '
    'they come from a latent store. Make one with\n'
    f'  {store.COMMAND}\n'
    'and give its folder as --config.data.store=FOLDER, or train on colours, '
    'which need no store: --config.latents="(\'color\',)".'
  )


def batches(
  config: Any,
  *,
  held_out: bool = False,
  first: int = 0,
  parts: Sequence[int] = (0,),
  num_parts: int = 1,
  encoder: str = '',
):
  """This process's share of a run's batches, from the given one on."""
  data, made = config.data, recipe_of(config)
  split = data.split
  if held_out:
    data, split = _held_out(config), config.train.held_out
  return pipeline.batches(
    source(data, made, split=split, encoder=encoder),
    made,
    batch_size=data.batch_size,
    seed=config.seed,
    first=first,
    parts=parts,
    num_parts=num_parts,
    num_workers=data.num_workers,
    num_threads=data.num_threads,
  )


def _held_out(config: Any):
  """The data of a run with the latents of its held-out split."""
  data = config.data.copy_and_resolve_references()
  if data.store and not config.train.held_out_store:
    raise ValueError(
      f'config.train.held_out={config.train.held_out!r} needs latents of its '
      'own. Extract them (--mode=extract with that --config.data.split) and '
      'give their folder as --config.train.held_out_store, or measure nothing: '
      '--config.train.held_out='
    )
  data.store = config.train.held_out_store
  return data


def missing(config: Any) -> list[str]:
  """What has to be fetched or made, a sentence for each that is not there."""
  data, lacking, source = config.data, [], None
  try:
    vocabulary(data, config.latents)
  except FileNotFoundError as error:
    folder = pathlib.Path(data.vocabulary).parent
    lacking.append(
      f'{error} Fetch it with\n  pip install huggingface_hub\n'
      f'  hf download google/{folder.name} spiece.model --local-dir {folder}'
    )
  needed = set(config.latents) - {'color'}
  needed -= {'voken'} if data.vokens_from_pixels else set()
  try:
    source = _open(data, data.split, _size(config), needed)
  except FileNotFoundError as error:
    lacking.append(str(error))
  if source is not None:
    needed -= set(source.kinds)
  elif data.source.partition(':')[0] not in PHOTOGRAPHS:
    return lacking  # which latents it will bring is not known yet
  if needed and not data.store:
    lacking.append(_no_store(data, needed))
  elif needed:
    try:
      records.Records(data.store, kind=store.KIND, command=store.COMMAND)
    except FileNotFoundError as error:
      lacking.append(str(error))
  return lacking


def check(config: Any) -> Vocabulary:
  """The vocabulary of a run. Says what is missing before anything is built."""
  data, shape = config.data, config.image_shapes[0]
  if len(set(config.latents)) < len(config.latents):
    raise ValueError(f'config.latents={config.latents} has a kind twice.')
  if (data.source == 'toy') is (len(shape) == 3) or shape[0] != shape[-2:][0]:
    raise ValueError(
      f'config.image_shapes[0]={shape} is not what {data.source} gives: the '
      'toy gives points, (2,), and all else squares, (64, 64, 3).'
    )
  words = vocabulary(data, config.latents)
  sizes = {'encoder': words.rows}
  if config.latents:
    sizes['decoder'] = words.size
  for part, needed in sizes.items():
    rows = config.model[part].vocab_size
    if rows < needed:
      raise ValueError(
        f'config.model.{part}.vocab_size={rows}, but the vocabulary has '
        f'{needed} tokens; use at least as many.'
      )
  open_ = alone if data.cached_memory else source
  open_(data, recipe_of(config), split=data.split)
  if config.train.held_out:
    open_(_held_out(config), recipe_of(config), split=config.train.held_out)
  return words


def recipe_of(config: Any) -> Recipe:
  """The recipe of a whole configuration."""
  return recipe(config.data, config.latents, _size(config))


def _size(config: Any) -> int | None:
  """Of the pictures; points have none."""
  shape = config.image_shapes[0]
  return shape[0] if len(shape) == 3 else None
