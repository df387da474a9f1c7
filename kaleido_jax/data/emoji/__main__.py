"""The command that prepares emoji; see `prepare`."""

import os
import pathlib
import sys

from absl import app, flags, logging

from kaleido_jax.data.emoji import joining, prepare, vendors


def define_flags() -> None:
  """Not when this is imported: flags are for whoever runs the program."""
  flags.DEFINE_string('out', None, 'Where the records go.', required=True)
  flags.DEFINE_integer('size', 64, 'Side of the pictures, in pixels.')
  flags.DEFINE_enum(
    'subset',
    'plain',
    joining.SUBSETS,
    'plain: no flags, skin tones, symbols.',
  )
  flags.DEFINE_enum(
    'licences',
    'all',
    vendors.LICENCES,
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
    abouts = prepare.prepare(
      pathlib.Path(given.out).expanduser(),
      size=given.size,
      subset=given.subset,
      sets=vendors.chosen(given.licences),
      limit=given.limit,
      workers=given.workers,
      cache=pathlib.Path(given.cache).expanduser(),
      tarballs=given.tarballs and pathlib.Path(given.tarballs).expanduser(),
    )
  except (OSError, ValueError, ModuleNotFoundError) as error:
    sys.exit(f'{error}')
  print(f'{given.out}: {prepare.summary(abouts)}')


if __name__ == '__main__':
  logging.set_verbosity(logging.INFO)
  define_flags()
  app.run(main)
