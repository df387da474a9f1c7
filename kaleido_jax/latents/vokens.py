"""Visual tokens: ids of an image tokenizer's codebook (the paper's `voken`)."""

import dataclasses

from kaleido_jax.latents.ids import Ids, Listed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vokens(Listed):
  """As many ids as the tokenizer makes of a picture; SEED's by default."""

  name: str = 'voken'
  attribute: str = 'vokens'
  pieces: int = 8192  # the size of the codebook
  count: int = 32

  def flip(self, value: Ids) -> Ids:
    raise ValueError(
      'vokens cannot be mirrored: what they mean is known to their tokenizer '
      'alone. Turn flips off, or leave out the kind voken.'
    )

  def overlay(self, draw, value: Ids, width: int, height: int, said) -> None:
    """Only the tokenizer's decoder could draw them."""
