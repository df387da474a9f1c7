"""Visual tokens: ids of an image tokenizer's codebook (the paper's `voken`)."""

import dataclasses
from collections.abc import Sequence

from kaleido_jax.latents import ids
from kaleido_jax.latents.ids import Ids
from kaleido_jax.latents.words import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vokens:
  """As many ids as the tokenizer makes of a picture; SEED's by default."""

  name: str = 'voken'
  attribute: str = 'vokens'
  pieces: int = 8192  # the size of the codebook
  count: int = 32

  def freeze(self, value: Sequence[int]) -> Ids:
    return ids.freeze(self.name, value)

  def encode(self, value: Ids) -> str:
    return ids.encode(value)

  def parse(self, string: str) -> tuple[Ids, list[Problem]]:
    return ids.parse(
      string, name=self.name, limit=self.pieces, count=self.count
    )

  def check(self, value: Ids) -> list[Problem]:
    return ids.check(value, name=self.name, limit=self.pieces, count=self.count)

  def get(self, value: Ids) -> Ids:
    return value

  def put(self, value: Ids | None, new: Sequence[int]) -> Ids:
    return self.freeze(new)

  def flip(self, value: Ids) -> Ids:
    raise ValueError(
      'vokens cannot be mirrored: what they mean is known to their tokenizer '
      'alone. Turn flips off, or leave out the kind voken.'
    )

  def overlay(self, draw, value: Ids, width: int, height: int, said) -> None:
    """Only the tokenizer's decoder could draw them."""
