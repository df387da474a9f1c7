"""Every test runs on eight fake CPU devices, so that sharding is real."""

import os

os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import pathlib
import tempfile

import jax
import pytest

# Compiled programs outlive the process: a second run of the suite is quick.
jax.config.update(
  'jax_compilation_cache_dir',
  os.path.join(tempfile.gettempdir(), 'kaleido_jax_test_cache'),
)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


@pytest.fixture(scope='session')
def data() -> pathlib.Path:
  """The folder of committed fixtures."""
  return pathlib.Path(__file__).parent / 'data'
