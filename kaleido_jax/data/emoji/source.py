"""Reads what `prepare` wrote."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from kaleido_jax.data import records
from kaleido_jax.data.emoji import joining
from kaleido_jax.data.emoji.rendering import KINDS
from kaleido_jax.data.example import BadRecord, Example
from kaleido_jax.latents import Latents

COMMAND = 'python -m kaleido_jax.data.emoji --out=FOLDER --size=64'


class Emoji:
  """The emoji of a split, drawn on white."""

  def __init__(
    self,
    folder: str | pathlib.Path,
    *,
    split: str = 'train',
    kinds: Sequence[str] = KINDS,
  ):
    """Latents of other kinds than `kinds` are not looked at."""
    if split not in joining.SPLITS:
      raise ValueError(
        f'split={split!r} of emoji is not one of {joining.SPLITS}.'
      )
    self.kinds = tuple(kind for kind in KINDS if kind in kinds)
    self._records = records.Records(
      pathlib.Path(folder) / split, kind='emoji', command=COMMAND
    )
    self.fingerprint = self._records.fingerprint

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    record = self._records[index]
    try:
      picture = Image.open(io.BytesIO(record['image']))
      image = np.asarray(picture.convert('RGB'))
    except (OSError, SyntaxError) as error:
      raise BadRecord('unreadable image', record['key'], str(error)) from None
    try:
      latents = Latents.from_strings(record['latents'], self.kinds)
    except ValueError as error:
      raise BadRecord('malformed latents', record['key'], str(error)) from None
    return Example(record['key'], image, record['caption'], latents)
