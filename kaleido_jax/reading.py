"""Latents as the tokens that a model reads, and back.

What a person has made is refused with a sentence if the model could not read
it; what the model itself has written is made such that it can.
"""

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int32

from kaleido_jax import generate
from kaleido_jax.latents import Latents
from kaleido_jax.latents.tokens import Vocabulary

HALF = '\ufffd'  # stands for bytes that make no letter


class Reader:
  """Of one model: its vocabulary, and how long each kind may be."""

  def __init__(self, name: str, words: Vocabulary, lengths: Mapping[str, int]):
    self._name, self._words, self._lengths = name, words, dict(lengths)
    self._kinds = [kind.name for kind in words.kinds]

  def agree(self, latents: Latents) -> None:
    """Refuses latents of other kinds."""
    if list(latents) != self._kinds:
      raise ValueError(
        f'these latents have {list(latents)}, but {self._name} reads '
        f'{self._kinds}.'
      )

  def tokens(self, latents: Latents) -> Int32[np.ndarray, ' m']:
    """All kinds, ended and padded."""
    latents.validate([kind for kind in self._words.kinds if kind.pieces])
    self._refuse_strange(latents)
    z, cut = self._words.encode_latents(latents, self._lengths)
    self._refuse_long(latents, cut)
    return z

  def prefix(self, latents: Latents | None) -> Int32[np.ndarray, '1 _']:
    """The first kinds and the separator behind them, padded."""
    if not latents:  # None, or without any kind
      return generate.nothing(1)
    given = [kind for kind in self._kinds if kind in latents]
    if self._kinds[: len(given)] != list(latents):
      raise ValueError(
        f'a prefix has the first of {self._kinds}, in order; this one has '
        f'{list(latents)}.'
      )
    if len(given) == len(self._kinds):
      raise ValueError('the prefix has all kinds: nothing is left to imagine.')
    latents.validate(self._words.kinds[: len(given)])
    self._refuse_strange(latents)
    z, cut = self._words.encode_prefix(latents, self._lengths)
    self._refuse_long(latents, cut)
    return z[None]

  def latents(self, string: str) -> Latents:
    """What the model wrote, without what it would not read again."""
    room = dict(self._lengths)
    while True:
      string = ''.join(c for c in string if not self._strange(c))
      latents, _ = Latents.parse(string, self._words.kinds)
      _, cut = self._words.encode_latents(latents, self._lengths)
      if not cut:
        return latents
      z, _ = self._words.encode_latents(latents, room)
      string = self._words.decode(z)
      # What is cut may have more pieces when it is read again: then less room.
      room = {n: max(v - (n in cut), 0) for n, v in room.items()}

  def _strange(self, text: str) -> str | None:
    half = [c for c in text if c == HALF or unicodedata.category(c) == 'Cs']
    return half[0] if half else self._words.strange(text)

  def _refuse_strange(self, latents: Latents) -> None:
    for kind, string in latents.to_strings().items():
      if letter := self._strange(string):
        raise ValueError(
          f'the {kind} of these latents has {letter!r}, which is not in the '
          'vocabulary of this model; use other words.'
        )

  def _refuse_long(self, latents: Latents, cut: Sequence[str]) -> None:
    if cut:
      kind = cut[0]
      raise ValueError(
        f'the {kind} of these latents is longer than the '
        f'{self._lengths[kind]} tokens that the model has seen: '
        f'{latents.to_strings()[kind][:60]}... Shorten it.'
      )
