"""Encoder states of captions, so that training need not run the encoder."""

from collections.abc import Sequence

import jax
import numpy as np
from absl import logging

from kaleido_jax.convert import huggingface
from kaleido_jax.data import store
from kaleido_jax.latents.tokens import PAD, Vocabulary


class States:
  """A pretrained encoder, applied to captions in batches."""

  def __init__(
    self,
    folder: str,
    vocabulary: Vocabulary,
    *,
    length: int,
    dtype: str,
    batch_size: int,
  ):
    """`folder` has a T5 in Hugging Face's format."""
    self._module, params = huggingface.load(
      folder, halves=('encoder',), dtype=dtype
    )
    self.name = store.encoder_name(params, dtype, vocabulary, length)
    logging.info('encoder states of %s: %s', folder, self.name)
    self._params, self._vocabulary = params, vocabulary
    self._length, self._batch_size = length, batch_size
    self._encode = jax.jit(
      lambda params, ids: self._module.apply(
        {'params': params}, ids, ids != PAD, method='encode'
      )
    )

  def __call__(self, captions: Sequence[str]) -> list[np.ndarray]:
    """The states of each caption's tokens, without padding."""
    found, size = [], self._batch_size
    for start in range(0, len(captions), size):
      some = captions[start : start + size]
      encode = self._vocabulary.encode_caption
      # The last batch is filled up, or it would be compiled by itself.
      full = [*some, *[''] * (size - len(some))]
      ids = np.stack([encode(text, self._length)[0] for text in full])
      states = np.asarray(self._encode(self._params, ids))
      lengths = (ids != PAD).sum(1)[: len(some)]
      found += [states[i, :length] for i, length in enumerate(lengths)]
    return found
