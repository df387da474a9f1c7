"""What is done to one example: cropped, mirrored, measured, written as tokens.

image   uint8 [size, size, 3]  (the toy: float32 [2]); `images.normalise` makes
                               it what the networks see
ids     int32 [l]              the caption, ended and padded
z       int32 [m]              the latents, ended and padded; not without kinds
memory  [l, d]                 cached states of the caption, if there are any
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from kaleido_jax.data import images
from kaleido_jax.data.example import Example
from kaleido_jax.latents import Latents, colors, words
from kaleido_jax.latents.tokens import PAD, Vocabulary


class Prepared(NamedTuple):
  """An example, ready to be stacked."""

  key: str
  arrays: dict[str, np.ndarray]
  cut: tuple[str, ...]  # what was too long: 'caption', or kinds of latents


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """Turns an `Example` and randomness into arrays."""

  vocabulary: Vocabulary  # its kinds are the latents, in order
  caption_length: int
  lengths: Mapping[str, int]  # of each kind, in tokens
  size: int | None  # of the picture; None leaves it as it is
  style: str = 'mdm'
  flip: bool = False
  # Kinds that are measured on the picture itself, after all is done to it.
  measured: Mapping[str, Callable] = dataclasses.field(
    default_factory=lambda: {'color': colors.of}
  )

  def __post_init__(self):
    names = [kind.name for kind in self.vocabulary.kinds]
    if self.flip and 'voken' in set(names) - set(self.measured):
      raise ValueError(
        'config.data.flip=True, but vokens of a store cannot be mirrored. Turn '
        'flips off, or leave out the kind voken.'
      )
    self.vocabulary.length_of(self.lengths)  # or it says what is missing

  def needs(self) -> set[str]:
    """The kinds that a source has to bring."""
    return {kind.name for kind in self.vocabulary.kinds} - set(self.measured)

  def __call__(self, example: Example, rng: np.random.Generator) -> Prepared:
    image, caption, latents = example.image, example.caption, example.latents
    if self.size is not None:
      image = images.preprocess(image, self.size, style=self.style)
    if self.flip and rng.random() < 0.5:
      image, caption = image[:, ::-1], words.mirror(caption)
      latents = latents.flip()
    ids, shorter = self.vocabulary.encode_caption(caption, self.caption_length)
    arrays = {'image': np.ascontiguousarray(image), 'ids': ids}
    cut = ['caption'] * shorter
    if self.vocabulary.kinds:
      arrays['z'], kinds = self.vocabulary.encode_latents(
        self._measure(latents, image), self.lengths
      )
      cut += kinds
    if example.memory is not None:
      arrays['memory'] = _padded(example.memory, arrays['ids'], example.key)
    return Prepared(example.key, arrays, tuple(cut))

  def _measure(self, latents: Latents, image: np.ndarray) -> Latents:
    wanted = [kind.name for kind in self.vocabulary.kinds]
    found = {
      name: measure(image)
      for name, measure in self.measured.items()
      if name in wanted and name not in latents
    }
    return Latents(**{**latents, **found}) if found else latents


def _padded(memory: np.ndarray, ids: np.ndarray, key: str) -> np.ndarray:
  tokens = int((ids != PAD).sum())
  if len(memory) != tokens:
    raise ValueError(
      f'{key}: the cached states are of {len(memory)} tokens, the caption has '
      f'{tokens}. They were made with another vocabulary or length.'
    )
  return np.pad(memory, ((0, len(ids) - tokens), (0, 0)))
