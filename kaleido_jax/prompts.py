"""What people type: checked, and as token ids."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from kaleido_jax.latents import Latents
from kaleido_jax.latents.tokens import Vocabulary, pad

MULTIPLE = 32  # ids are padded to multiples of it: few sizes to compile


def several(prompt: str | Sequence[str]) -> list[str]:
  """One prompt, or a list of them."""
  texts = [prompt] if isinstance(prompt, str) else list(prompt)
  if not texts:
    raise ValueError('there is no prompt; say what to draw.')
  return texts


def paired(
  texts: list[str], latents: list[Latents]
) -> tuple[list[str], list[Latents]]:
  """As many of the one as of the other; a single one goes with all."""
  count = max(len(texts), len(latents))
  texts = texts * count if len(texts) == 1 else texts
  latents = latents * count if len(latents) == 1 else latents
  if len(texts) != len(latents):
    raise ValueError(
      f'{len(texts)} prompts and {len(latents)} latents do not go together; '
      'give as many of both, or one of either.'
    )
  return texts, latents


def ids(text: str, words: Vocabulary, length: int) -> Int32[np.ndarray, ' l']:
  """Token ids, padded to a bucket; refuses what a model cannot read."""
  shown = repr(text if len(text) <= 60 else f'{text[:57]}...')
  if not text.strip():
    raise ValueError('the prompt is empty; say what to draw.')
  control = [c for c in text if unicodedata.category(c) in ('Cc', 'Cs')]
  if control:
    raise ValueError(
      f'the prompt {shown} has the control character {control[0]!r}; leave it '
      'out.'
    )
  strange = words.strange(text)
  if strange:
    raise ValueError(
      f'the prompt {shown} has {strange!r}, which is not in the vocabulary of '
      'this model; use other words.'
    )
  found, cut = words.encode_caption(text, length)
  if cut:
    raise ValueError(
      f'the prompt {shown} is longer than the {length - 1} tokens that the '
      'model has seen; shorten it.'
    )
  used = int((found != 0).sum())
  return pad(
    found[:used].tolist(), min(length, -(-used // MULTIPLE) * MULTIPLE)
  )
