"""Runs and exports in a bucket, of an emulator of Google's storage."""

import subprocess
import sys

import pytest
import small_models
import small_runs

from kaleido_jax import progress

pytestmark = pytest.mark.peers
pytest.importorskip('gcsfs')
pytest.importorskip('gcp_storage_emulator')

# A server, and programs that find it in place of Google's. Unlike Google's it
# does not say which generation of a file is read, which tensorstore asks for.
SERVE = """
import socket, time
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server

def download(request, response, storage, *args, **kwargs):
  names = request.params['bucket_name'], request.params['object_id']
  try:
    found = storage.get_file_obj(*names)
    response['x-goog-generation'] = found['generation']
  except NotFound:
    pass
  return told_less(request, response, storage, *args, **kwargs)

told_less, objects.download = objects.download, download
with socket.create_server(('localhost', 0)) as free:
  port = free.getsockname()[1]
server = create_server(
  'localhost', port, in_memory=True, default_bucket='bucket'
)
server.start()
print(port, flush=True)
time.sleep(3600)
"""
# Copies a folder into it, and a file out of it.
COPY = """
import pathlib, sys
from etils import epath
for path in pathlib.Path(sys.argv[1]).iterdir():
  (epath.Path(sys.argv[2]) / path.name).write_bytes(path.read_bytes())
"""
READ = """
import sys
from etils import epath
print(epath.Path(sys.argv[1]).read_text(), end='')
"""


@pytest.fixture(scope='module')
def cloud():
  with subprocess.Popen(
    [sys.executable, '-c', SERVE],
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  ) as server:
    url = f'http://localhost:{int(server.stdout.readline())}'
    yield {
      'STORAGE_EMULATOR_HOST': url,
      'TENSORSTORE_GCS_HTTP_URL': url,
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',  # it asks Google
    }
    server.kill()


def call(cloud, *command: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, *command],
    cwd=small_runs.ROOT,
    env=small_runs.environment(1, **cloud),
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_a_run_in_a_bucket_goes_on_as_one_that_is_here(cloud, tmp_path):
  fields = {'train.num_steps': 8, 'train.save_every': 2}
  for workdir in ('gs://bucket/run', str(tmp_path)):
    for steps in (4, 8):
      flags = small_runs.flags(workdir, **fields | {'train.num_steps': steps})
      done = call(cloud, '-m', 'kaleido_jax.main', *flags)
      assert done.returncode == 0, done.stderr
      assert ('restored step 4 ' in done.stderr) is (steps == 8)
  copy = tmp_path / 'copy' / progress.METRICS
  copy.parent.mkdir()
  done = call(cloud, '-c', READ, f'gs://bucket/run/{progress.METRICS}')
  copy.write_text(done.stdout)
  assert small_runs.told(copy.parent) == small_runs.told(tmp_path)
  assert small_runs.told(tmp_path)[-1]['step'] == 8
  other = small_runs.flags('gs://bucket/run', **{'model.denoiser.width': 16})
  done = call(cloud, '-m', 'kaleido_jax.main', *other)
  assert done.returncode == 2 and 'holds a run of another model' in done.stderr


def test_an_export_in_a_bucket_draws(cloud, tmp_path):
  folder = small_models.export(tmp_path / 'export')
  assert call(cloud, '-c', COPY, folder, 'gs://bucket/export').returncode == 0
  flags = ['--mode=sample', '--prompt=a star', f'--out={tmp_path / "drawn"}']
  done = call(
    cloud, '-m', 'kaleido_jax.main', '--workdir=gs://bucket/export', *flags
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / 'drawn' / '000000.png').exists()
  done = call(
    cloud, '-m', 'kaleido_jax.main', '--workdir=gs://bucket/nowhere', *flags
  )
  assert done.returncode == 2 and 'is no workdir of a run' in done.stderr
