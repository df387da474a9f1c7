"""Every test runs on eight fake CPU devices, so that sharding is real."""

import os

# Before jax is imported, hence before anything else here.
# Most of the suite's time goes to a compiler: this one tries less. At level 0
# programs are so slow that it is lost again.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=1',
  ]
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Tests run side by side: NumPy's threads would wait for each other's cores,
# and keep them busy meanwhile.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

import gc  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import pathlib  # noqa: E402
import tempfile  # noqa: E402

import jax  # noqa: E402
import packing  # noqa: E402
import pytest  # noqa: E402
import sentencepiece  # noqa: E402

from kaleido_jax.convert import mdm  # noqa: E402

# Compiled programs outlive the process: a second run of the suite is quick.
jax.config.update(
  'jax_compilation_cache_dir',
  os.path.join(tempfile.gettempdir(), 'kaleido_jax_test_cache'),
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)

DATA = pathlib.Path(__file__).parent / 'data'


def pytest_collection_finish():
  """Python's collector went through all of this again and again.

  It took a quarter of the suite's time: tracing makes many objects.
  """
  gc.collect()
  gc.freeze()
  gc.set_threshold(200_000, 50, 100)


@pytest.fixture(scope='session')
def data() -> pathlib.Path:
  """The folder of committed fixtures."""
  return DATA


@pytest.fixture(scope='module')
def one_device():
  """What draws finds one, as on most machines; eight draw 64 rows at a time."""
  first = jax.devices()[:1]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'devices', lambda: first)
    yield


@pytest.fixture(scope='session')
def nested_tiny():
  """The reference's small nested network: module, parameters."""
  return _load('nested_tiny')


@pytest.fixture(scope='session')
def unet_tiny():
  """The reference's small plain network: module, parameters."""
  return _load('unet_tiny')


def _load(name: str):
  config = json.loads((DATA / f'mdm/{name}_config.json').read_text())
  weights = packing.read(DATA / f'mdm/{name}_weights.npz.xz')
  return mdm.load(config, weights)


@pytest.fixture(scope='session')
def t5_like(tmp_path_factory):
  """A vocabulary as T5's is: normalising, without bytes, 40 pieces."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['a dog and a cat, 0 1 2 3 4 5 6 7 8 9 | ( )'] * 99),
    model_writer=model,
    vocab_size=40,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  path = tmp_path_factory.mktemp('t5') / 'spiece.model'
  path.write_bytes(model.getvalue())
  return str(path)
