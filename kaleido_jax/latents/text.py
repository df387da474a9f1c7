"""Latents in plain words: the paper's detailed description."""

import dataclasses

from kaleido_jax.latents import words
from kaleido_jax.latents.words import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
  """A string, as it is."""

  name: str = 'text'
  attribute: str = 'text'
  pieces: int = 0

  def freeze(self, value: str) -> str:
    if not isinstance(value, str):
      raise TypeError(f'text is a string, not {type(value).__name__}.')
    return value

  def encode(self, value: str) -> str:
    return words.escape(value)

  def parse(self, string: str) -> tuple[str, list[Problem]]:
    return words.unescape(string), []

  def check(self, value: str) -> list[Problem]:
    return []

  def get(self, value: str) -> str:
    return value

  def put(self, value: str | None, new: str) -> str:
    return new

  def flip(self, value: str) -> str:
    return words.mirror(value)

  def overlay(self, draw, value: str, width: int, height: int, said) -> None:
    """Words are not drawn: they go under the picture."""
