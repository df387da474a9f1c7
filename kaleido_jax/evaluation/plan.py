"""What is drawn: which captions, under which settings."""

import ast
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from kaleido_jax import options, steering
from kaleido_jax.api import Kaleido
from kaleido_jax.pictures import Asked


class Setting(NamedTuple):
  """One point of a curve."""

  way: str  # what changes beside the weight, joined by '+'; '' is nothing
  guidance: float

  @property
  def changed(self) -> dict[str, Any]:
    """For `Kaleido.asked`: 'cads+steps=50' is a method, and a field."""
    parts = _parts(self.way)
    fields = dict(part.split('=', 1) for part in parts if '=' in part)
    return {name: _value(text) for name, text in fields.items()} | {
      'guidance': self.guidance,
      'methods': tuple(part for part in parts if '=' not in part),
    }

  def __str__(self) -> str:
    return f'{self.way or "guidance"} {self.guidance:g}'


def _parts(way: str) -> list[str]:
  """Of 'solver=sde-dpm+++steps=50' two: a name may end with a plus."""
  return list(filter(None, re.split(r'\+(?=[a-z])', way)))


def _value(text: str) -> Any:
  """0.7 is a number, ddpm a word."""
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text


def check(wanted: ConfigDict) -> None:
  """Refuses what would fail only after everything has been drawn."""
  for way in wanted.ways:
    for part in _parts(way):
      if part not in steering.METHODS and '=' not in part:
        raise ValueError(
          f'config.evaluate.ways names {part!r}; there are '
          f'{", ".join(steering.METHODS)}, and fields of config.sample '
          '(temperature=0.7), joined by +.'
        )
  least = {
    **dict(num_captions=2, per_caption=1, resamples=2, neighbours=1),
    'real': wanted.neighbours + 1,
  }
  for name, number in least.items():
    if wanted[name] < number:
      raise ValueError(
        f'config.evaluate.{name}={wanted[name]} is too small; give {number} or '
        'more.'
      )
  if wanted.num_captions * wanted.per_caption <= wanted.neighbours:
    raise ValueError(
      f'{wanted.num_captions} captions with {wanted.per_caption} pictures each '
      f'are too few for config.evaluate.neighbours={wanted.neighbours}.'
    )
  if wanted.matched and wanted.reference:
    raise ValueError(
      'config.evaluate.matched wants real pictures of the drawn captions, and '
      f'{wanted.reference} has no captions: leave out one of them.'
    )
  if wanted.ceiling == wanted.split:
    raise ValueError(
      f'config.evaluate.ceiling={wanted.ceiling!r} is the split that is '
      "compared with: give another one, or '' for none."
    )
  for name in ('guidance', 'ways'):
    if not wanted[name]:
      raise ValueError(f'config.evaluate.{name} is empty: nothing to draw.')


def settings(wanted: ConfigDict) -> list[Setting]:
  """Every way under every weight."""
  weights = map(float, wanted.guidance)
  return list(
    itertools.starmap(Setting, itertools.product(wanted.ways, weights))
  )


def asked(
  model: Kaleido, captions: Sequence[str], setting: Setting, wanted: ConfigDict
) -> list[Asked]:
  """Caption by caption; every picture has noise of its own."""
  told = options.settings(model.asked(**setting.changed))
  return [
    Asked(caption, None, wanted.seed, number * wanted.per_caption + n, told)
    for number, caption in enumerate(captions)
    for n in range(wanted.per_caption)
  ]


def digest(model: Kaleido) -> str:
  """Of the parameters: two runs may be of one name, and as many steps."""
  found = hashlib.sha256()
  for leaf in jax.tree.leaves(model.params):
    found.update(np.ascontiguousarray(jax.device_get(leaf)).view(np.uint8))
  return found.hexdigest()[:8]


def folder(
  model: Kaleido, weights: str, setting: Setting, pictures: list[Asked]
) -> str:
  """A name that changes when anything does that the pictures depend on."""
  told = [each.to_json() for each in pictures]
  if 'particles' in pictures[0].settings['methods']:
    told.append(model.batch_rows)  # only those of a batch push each other
  text = json.dumps([weights, told], sort_keys=True)
  mark = hashlib.sha256(text.encode()).hexdigest()[:8]
  return re.sub('[^a-zA-Z0-9.]+', '-', f'{setting} {mark}')
