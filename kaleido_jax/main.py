"""The command line: flags, and nothing else.

python -m kaleido_jax.main --config=configs/toy.py
"""

import contextlib
import importlib
import logging
import os
import pathlib
import re
import sys
import traceback

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

# A mode is imported when it is used: training needs no web page.
MODES = {
  'train': 'kaleido_jax.train',
  'extract': 'kaleido_jax.extract.pipeline',
  'compile': 'kaleido_jax.compile',
}
# Processes of these know nothing of each other: --config.extract.part says who
# does what. What is compiled for other machines is compiled by one process.
ALONE = ('extract', 'compile')

_MODE = flags.DEFINE_enum('mode', 'train', list(MODES), 'What to do.')
_CONFIG = config_flags.DEFINE_config_file(
  'config',
  None,
  'The run, as a file: configs/NAME.py or configs/NAME.py:VARIANT. Override a '
  'field with --config.NAME=VALUE.',
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run lives; runs/NAME-VARIANT by default.'
)
_COORDINATOR = flags.DEFINE_string(
  'coordinator',
  None,
  'HOST:PORT of process 0, where no cluster tells the processes of each other.',
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Of the run.')
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'Of them, this one.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(
      f'unexpected {argv[1]!r}: every argument is a flag, such as '
      f'--mode={argv[1]} or --config=configs/{argv[1]}.py.'
    )
  if _CONFIG.value is None:
    raise app.UsageError(
      'which run? Give --config=configs/NAME.py; configs/toy.py runs anywhere.'
    )
  workdir = _WORKDIR.value or default_workdir(
    flags.FLAGS['config'].config_filename
  )
  mode = importlib.import_module(MODES[_MODE.value])
  try:
    with _joined():
      mode.run(_CONFIG.value, workdir=workdir)
  except Exception as error:
    if sentence := explain(error):
      sys.exit(sentence)
    raise


def _joined() -> contextlib.AbstractContextManager[None]:
  """The other processes of this run, if there are any."""
  if _MODE.value in ALONE:
    return contextlib.nullcontext()
  from kaleido_jax import hosts  # which imports jax

  given = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  return hosts.joined(*given, explain=explain)


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
  # Orbax tells thirty things of every checkpoint.
  absl_logging.get_absl_handler().addFilter(
    lambda record: 'orbax' not in record.pathname or record.levelno > 20
  )
  app.run(main)
