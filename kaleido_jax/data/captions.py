"""What is said of a picture: bytes that should be text, names of classes.

The classes of ImageNet are called by numbers of WordNet, n01440764; their words
stand in imagenet_classes.tsv, whose lines are in the order of the labels.
"""

import functools
import importlib.resources
import re

from kaleido_jax.data.example import BadRecord

_WORDNET = re.compile(r'n\d{8}')


def decode(text: bytes, key: str) -> str:
  """A caption in UTF-8."""
  try:
    caption = text.decode('utf-8').strip()
  except UnicodeDecodeError as error:
    raise BadRecord('caption is not text', key, str(error)) from None
  if not caption:
    raise BadRecord('no caption', key)
  return caption


def of_class(name: str) -> str:
  """'n01440764' -> 'tench', the first of its words; 'polar_bear' as written."""
  if _WORDNET.fullmatch(name):
    words = imagenet_classes().get(name)
    return words.partition(', ')[0] if words else name
  return name.replace('_', ' ')


@functools.cache
def imagenet_classes() -> dict[str, str]:
  """{'n01440764': 'tench, Tinca tinca', ...} in the order of the labels."""
  path = importlib.resources.files('kaleido_jax.data') / 'imagenet_classes.tsv'
  lines = path.read_text(encoding='utf-8').splitlines()
  return dict(line.split('\t') for line in lines if not line.startswith('#'))
