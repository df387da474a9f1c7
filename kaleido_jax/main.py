"""The command line: flags, and nothing else.

python -m kaleido_jax.main --config=configs/toy.py
"""

import contextlib
import importlib
import itertools
import logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

# A mode is imported when it is used: training needs no web page.
MODES = {
  'train': 'kaleido_jax.train',
  'sample': 'kaleido_jax.sample',
  'extract': 'kaleido_jax.extract.pipeline',
  'evaluate': 'kaleido_jax.evaluate',
  'export': 'kaleido_jax.export',
  'compile': 'kaleido_jax.compile',
}
# Processes of these know nothing of each other: --config.extract.part says who
# does what. What is compiled for other machines is compiled by one process.
ALONE = ('extract', 'compile', 'sample', 'evaluate', 'export')
MISTAKE = 2  # the exit code, as of most programs: starting again does not help
WHICH = 'which run? Give --workdir=runs/NAME, or pretrained:shapes.'
# These read a run, and take its configuration from its workdir.
READING = ('sample', 'evaluate', 'export')

_MODE = flags.DEFINE_enum('mode', 'train', list(MODES), 'What to do.')
_WORKDIR = flags.DEFINE_multi_string(
  'workdir',
  None,
  'Where the run lives; runs/NAME-VARIANT by default. Several are evaluated '
  'side by side.',
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  None,
  'HOST:PORT of process 0, where no cluster tells the processes of each other.',
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Of the run.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Of them, this one.')

# What modes are asked for beside the configuration; see sample.py.
_SAMPLE = {
  'prompt': flags.DEFINE_multi_string('prompt', [], 'What to draw.'),
  'prompts': flags.DEFINE_string(
    'prompts', '', 'A file of prompts: a line each, or .csv, or .jsonl.'
  ),
  'latents': flags.DEFINE_string(
    'latents', '', 'latents.json as a person has edited it, or a PNG of ours.'
  ),
  'num': flags.DEFINE_integer('num', None, 'How many of each prompt: 1.'),
  'seed': flags.DEFINE_integer('seed', None, 'Of latents and noise: 0.'),
  'out': flags.DEFINE_string('out', '', 'A folder; in the workdir by default.'),
  'part': flags.DEFINE_string('part', '0/1', 'Which share, of how many.'),
}

TAKES = {
  'sample': tuple(_SAMPLE),
  'evaluate': ('out', 'part'),
  'export': ('out',),
}


def flags_in(argv: list[str]) -> dict[str, str]:
  """Flags as they stand there, before there is anything to parse them.

  Of several workdirs it is the first whose configuration counts.
  """
  given = {}
  for arg, after in itertools.zip_longest(argv, argv[1:], fillvalue=''):
    name, equals, value = arg.lstrip('-').partition('=')
    if arg.startswith('-') and not (name == 'workdir' and name in given):
      given[name] = value if equals else after
  return given


def define_config(argv: list[str]) -> None:
  """--config: a file, or what the workdir has kept; fields of either."""
  given = flags_in(argv)
  workdir = given.get('workdir')
  if given.get('mode') in READING and 'config' not in given:
    if not workdir:
      raise ValueError(WHICH)
    from kaleido_jax import loading

    config_flags.DEFINE_config_dict(
      'config',
      loading.config_of(workdir),
      "The run's own; override a field with --config.NAME=VALUE.",
    )
    return
  config_flags.DEFINE_config_file(
    'config',
    None,
    'The run, as a file: configs/NAME.py or configs/NAME.py:VARIANT. Override '
    'a field with --config.NAME=VALUE.',
    lock_config=True,
  )


def parse(argv: list[str]) -> list[str]:
  """Flags, or what is wrong with them in a sentence."""
  with _refusing():
    rest = flags.FLAGS(argv)
    # A file that cannot be loaded is told of when it is touched, not before.
    getattr(flags.FLAGS['config'].value, 'keys', None)
    return rest


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
  """Ends the program with a sentence if flags, or their files, are wrong."""
  try:
    yield
    return
  except (AttributeError, KeyError) as error:
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    if 'ml_collections' not in raised_in:
      raise
    said = error.args[0]
    said = said.args[0] if isinstance(said, KeyError) else said
    wrong = f'there is no such field: {" ".join(str(said).split())}'
  except (flags.Error, ValueError, OSError) as error:
    wrong = str(error).rstrip()
    if 'Traceback' in wrong:  # of a configuration's own error
      wrong = wrong.rpartition('Error: ')[2]
  print(f'error: {wrong}', file=sys.stderr)
  sys.exit(MISTAKE)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(
      f'unexpected {argv[1]!r}: every argument is a flag, such as '
      f'--mode={argv[1]} or --config=configs/{argv[1]}.py.',
      MISTAKE,
    )
  name, config = _MODE.value, flags.FLAGS['config'].value
  if config is None:
    raise app.UsageError(
      'which run? Give --config=configs/NAME.py; configs/toy.py runs anywhere.',
      MISTAKE,
    )
  workdir = _WORKDIR.value or [
    default_workdir(flags.FLAGS['config'].config_filename)
  ]
  if name != 'evaluate':
    if len(workdir) > 1:
      raise app.UsageError(f'--mode={name} takes one --workdir.', MISTAKE)
    (workdir,) = workdir
  asked = {field: flag.value for field, flag in _SAMPLE.items() if flag.present}
  if stray := {*asked} - {*TAKES.get(name, ())}:
    raise app.UsageError(f'--{min(stray)} belongs to --mode=sample.', MISTAKE)
  if name in READING:
    if not _WORKDIR.value:
      raise app.UsageError(WHICH, MISTAKE)
    asked['said'] = said = _said(sys.argv[1:])
    sections = ('evaluate', 'sample') if name == 'evaluate' else ('sample',)
    if other := [f for f in said if f.partition('.')[0] not in sections]:
      raise app.UsageError(
        f'--config.{other[0]} is of the run, and stays as it was trained; '
        f'--mode={name} takes --config.{sections[0]}.NAME=VALUE.',
        MISTAKE,
      )
  mode = importlib.import_module(MODES[name])
  try:
    with _joined():
      mode.run(config, workdir=workdir, **asked)
  except Exception as error:
    if sentence := explain(error):
      print(sentence, file=sys.stderr)
      sys.exit(exit_code(error))
    raise


def _said(argv: list[str]) -> tuple[str, ...]:
  """The fields of the configuration that flags override."""
  names = (name for name in flags_in(argv) if name.startswith('config.'))
  return tuple(name.removeprefix('config.') for name in names)


def _joined() -> contextlib.AbstractContextManager[None]:
  """The other processes of this run, if there are any."""
  if _MODE.value in ALONE:
    return contextlib.nullcontext()
  from kaleido_jax import hosts  # which imports jax

  given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  return hosts.joined(*given, explain=explain, exit_code=exit_code)


def explain(error: BaseException) -> str | None:
  """What a user is told of an error that this package raised with words.

  What jax and others raise is a bug, and has to be seen whole.
  """
  kinds = (ValueError, OSError, RuntimeError, FloatingPointError)
  raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
  ours = pathlib.Path(__file__).parent in pathlib.Path(raised_in).parents
  if isinstance(error, kinds) and ours and not absl_logging.vlog_is_on(1):
    return f'error: {error}\n(-v=1 tells where it comes from)'
  return None


def exit_code(error: BaseException) -> int:
  """Whether to start again would help."""
  wrong = isinstance(error, (ValueError, FileNotFoundError))
  return MISTAKE if wrong and explain(error) else 1


def default_workdir(config: str) -> str:
  """Where a run lives: configs/imagenet.py:mdm -> runs/imagenet-mdm."""
  file, _, variant = config.partition(':')
  name = pathlib.Path(file).stem
  return f'runs/{name}-{re.sub("[^a-zA-Z0-9]+", "-", variant)}'.strip('-')


if __name__ == '__main__':
  # Compiled programs are kept: the second start is quick. Jax reads these when
  # it is imported, which is later.
  os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR',
    str(pathlib.Path('~/.cache/kaleido_jax/compiled').expanduser()),
  )
  absl_logging.set_verbosity(absl_logging.INFO)
  # Or each start tells which accelerators this machine does not have.
  logging.getLogger('jax').setLevel('WARNING')
  # Orbax tells thirty things of every checkpoint, and warns of reading.
  absl_logging.get_absl_handler().addFilter(
    lambda record: (
      'orbax' not in record.pathname or record.levelno > logging.WARNING
    )
  )
  with _refusing():
    define_config(sys.argv[1:])
  app.run(main, flags_parser=parse)
