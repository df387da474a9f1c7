"""What is drawn: which captions, under which settings; and what is real."""

import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from kaleido_jax import options, steering
from kaleido_jax.api import Kaleido
from kaleido_jax.data import images, sources
from kaleido_jax.pictures import Asked

SPLIT = 'test'  # captions that training has not seen


class Setting(NamedTuple):
  """One point of a curve."""

  way: str  # methods beside the weight, joined by '+'; '' is none
  guidance: float

  @property
  def changed(self) -> dict[str, Any]:
    """For `Kaleido.asked`."""
    methods = tuple(filter(None, self.way.split('+')))
    return {'guidance': self.guidance, 'methods': methods}

  def __str__(self) -> str:
    return f'{self.way or "guidance"} {self.guidance:g}'


class Reference(NamedTuple):
  """Captions, and pictures that are real."""

  captions: list[str]
  images: np.ndarray  # uint8 [n, h, w, 3]
  source: str  # what they are of


def check(wanted: ConfigDict) -> None:
  """Refuses what would fail only after everything has been drawn."""
  for way in wanted.ways:
    for name in filter(None, way.split('+')):
      if name not in steering.METHODS:
        raise ValueError(
          f'config.evaluate.ways names {name!r}; there are '
          f'{", ".join(steering.METHODS)}, joined by +.'
        )
  least = {
    **dict(num_captions=2, per_caption=1, resamples=2, neighbours=1, steps=0),
    'real': wanted.neighbours + 1,
  }
  for name, number in least.items():
    if wanted[name] < number:
      raise ValueError(
        f'config.evaluate.{name}={wanted[name]} is too small; give {number} or '
        'more.'
      )
  for name in ('guidance', 'ways'):
    if not wanted[name]:
      raise ValueError(f'config.evaluate.{name} is empty: nothing to draw.')


def settings(wanted: ConfigDict) -> list[Setting]:
  """Every way under every weight."""
  return list(itertools.starmap(Setting, _pairs(wanted)))


def _pairs(wanted: ConfigDict) -> Iterator[tuple[str, float]]:
  return itertools.product(wanted.ways, map(float, wanted.guidance))


def reference(model: Kaleido, wanted: ConfigDict) -> Reference:
  """The first of a split: captions of some, pictures of more."""
  if len(model.config.image_shapes[0]) < 3:
    raise ValueError(
      f'{model.name} draws points; benchmarks/guidance_toy.py looks at those.'
    )
  data = model.config.data.copy_and_resolve_references()
  size = model.config.image_shapes[0][0]
  recipe = sources.recipe(data, (), size)
  source = sources.alone(data, recipe, split=SPLIT)
  captions: dict[str, None] = {}  # in order, each once
  pictures = []
  for index in range(
    min(len(source), 100 * (wanted.real + wanted.num_captions))
  ):
    if len(captions) == wanted.num_captions and len(pictures) == wanted.real:
      break
    example = source[index]
    if len(captions) < wanted.num_captions:
      captions[example.caption] = None
    if len(pictures) < wanted.real:
      pictures.append(
        images.preprocess(example.image, size, style=data.preprocess)
      )
  if len(captions) < wanted.num_captions:
    raise ValueError(
      f'the {SPLIT} split of {data.source} has {len(captions)} captions, fewer '
      f'than config.evaluate.num_captions={wanted.num_captions}.'
    )
  return Reference(
    captions=list(captions),
    images=np.stack(pictures),
    source=f'{source.fingerprint}, {size} pixels, {data.preprocess}',
  )


def asked(
  model: Kaleido, captions: list[str], setting: Setting, wanted: ConfigDict
) -> list[Asked]:
  """Caption by caption; every picture has noise of its own."""
  told = options.settings(model.asked(**setting.changed))
  if wanted.steps:
    told['steps'] = wanted.steps
  return [
    Asked(caption, None, wanted.seed, number * wanted.per_caption + n, told)
    for number, caption in enumerate(captions)
    for n in range(wanted.per_caption)
  ]


def mark(model: Kaleido, pictures: list[Asked]) -> str:
  """Changes when anything does that the pictures depend on."""
  told = [each.to_json() for each in pictures]
  text = json.dumps([model.step, told], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:8]
