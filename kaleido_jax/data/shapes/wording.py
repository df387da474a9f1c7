"""Scenes of shapes in words, and back.

  caption  a star and a red circle
  text     a large striped yellow star at the top and a red circle tilted left
           at the bottom right on dotted navy

The description says everything, but for what goes without saying: medium,
plain, upright.
"""

import dataclasses
import functools
import re

from kaleido_jax.data.shapes import world
from kaleido_jax.data.shapes.world import Facts, Thing

USUAL = {'size': 'medium', 'texture': 'plain', 'tilt': 'upright'}


def caption(said: Facts) -> str:
  """Everything that is said."""
  ground = ' '.join(filter(None, (said.pattern, said.tone)))
  things = listed([_phrase(thing) for thing in said.things])
  return f'{things} on {ground}' if ground else things


def text(facts: Facts) -> str:
  """The complete description of a scene."""
  things = []
  for thing in facts.things:
    usual = [k for k, v in USUAL.items() if getattr(thing, k) == v]
    things.append(dataclasses.replace(thing, **dict.fromkeys(usual)))
  return caption(dataclasses.replace(facts, things=tuple(things)))


def read(caption: str) -> Facts:
  """What a caption says. Undoes `caption`."""
  things, _, ground = caption.partition(' on ')
  phrase, backdrop = _patterns()
  matches = [phrase.fullmatch(part) for part in re.split(', | and ', things)]
  behind = backdrop.fullmatch(ground)
  if not all(matches) or not behind:
    raise ValueError(
      f'{caption!r} is no caption of shapes; one is "a red circle and a star".'
    )
  return Facts(
    things=tuple(Thing(**match.groupdict()) for match in matches),
    **behind.groupdict(),
  )


def read_text(text: str) -> Facts:
  """What a description says. Undoes `text`."""
  facts = read(text)
  things = []
  for thing in facts.things:
    unsaid = {k: v for k, v in USUAL.items() if getattr(thing, k) is None}
    things.append(dataclasses.replace(thing, **unsaid))
  return dataclasses.replace(facts, things=tuple(things))


def label(thing: Thing) -> str:
  """What boxes and blobs are called."""
  return f'{thing.colour} {thing.shape}'


def listed(parts: list) -> str:
  """a, b and c."""
  *first, last = parts
  return f'{", ".join(first)} and {last}' if first else last


def _phrase(thing: Thing) -> str:
  words = [thing.size, thing.texture, thing.colour, thing.shape, thing.tilt]
  phrase = ' '.join(filter(None, words))
  phrase = f'{"an" if phrase[0] in "aeiou" else "a"} {phrase}'
  if thing.place:
    phrase += f' {"in" if thing.place == "middle" else "at"} the {thing.place}'
  return phrase


@functools.cache
def _patterns() -> tuple[re.Pattern, re.Pattern]:
  """Of a phrase, and of what follows the word "on"."""

  def group(attribute):
    # The longest first: 'top' must not win over 'top left'.
    values = sorted(world.values(attribute), key=len, reverse=True)
    return f'(?P<{attribute}>{"|".join(values)})'

  adjectives = [f'(?:{group(a)} )?' for a in ('size', 'texture', 'colour')]
  thing = group('shape') + f'(?: {group("tilt")})?'
  place = f'(?: (?:at|in) the {group("place")})?'
  phrase = f'an? {"".join(adjectives)}{thing}{place}'
  ground = f'(?:(?:{group("pattern")} )?{group("tone")})?'
  return re.compile(phrase), re.compile(ground)
