"""Real pictures with hidden modes: emoji of many vendors.

  python -m kaleido_jax.data.emoji --out=FOLDER --size=64

The caption ('cat face') does not say whose drawing it is; the latents do. The
command fetches pinned packages from npm, once, and needs
`pip install -e '.[emoji]'`; reading needs neither.
"""

import io
import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from absl import app, flags, logging
from PIL import Image

from kaleido_jax.data import emoji_designs, emoji_prepare, emoji_sets, records
from kaleido_jax.data.emoji_drawing import KINDS
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
    if split not in emoji_designs.SPLITS:
      raise ValueError(
        f'split={split!r} of emoji is not one of {emoji_designs.SPLITS}.'
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


def define_flags() -> None:
  """Not when this is imported: flags are for whoever runs the program."""
  flags.DEFINE_string('out', None, 'Where the records go.', required=True)
  flags.DEFINE_integer('size', 64, 'Side of the pictures, in pixels.')
  flags.DEFINE_enum(
    'subset',
    'plain',
    emoji_designs.SUBSETS,
    'plain: no flags, skin tones, symbols.',
  )
  flags.DEFINE_enum(
    'licences',
    'all',
    emoji_sets.LICENCES,
    'permissive: no ShareAlike sets (openmoji, emojione-v1).',
  )
  flags.DEFINE_integer('limit', 0, 'So many captions, to try it; 0: all.')
  flags.DEFINE_integer('workers', os.cpu_count(), 'Processes that draw.')
  flags.DEFINE_string(
    'cache', '~/.cache/kaleido_jax/emoji', 'Where tarballs are kept (60 MB).'
  )
  flags.DEFINE_string(
    'tarballs', None, 'A folder of tarballs that you downloaded; npm not used.'
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unexpected {argv[1]!r}: every argument is a flag.')
  given = flags.FLAGS
  try:
    abouts = emoji_prepare.prepare(
      pathlib.Path(given.out).expanduser(),
      size=given.size,
      subset=given.subset,
      sets=emoji_sets.chosen(given.licences),
      limit=given.limit,
      workers=given.workers,
      cache=pathlib.Path(given.cache).expanduser(),
      tarballs=given.tarballs and pathlib.Path(given.tarballs).expanduser(),
    )
  except (OSError, ValueError, ModuleNotFoundError) as error:
    sys.exit(f'{error}')
  print(f'{given.out}: {emoji_prepare.summary(abouts)}')


if __name__ == '__main__':
  logging.set_verbosity(logging.INFO)
  define_flags()
  app.run(main)
