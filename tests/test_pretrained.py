"""The model that ships with the package."""

import json
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import small_runs
from PIL import Image

from configs import default
from kaleido_jax import api, exported
from kaleido_jax.data.shapes import seeing

NAMES = sorted(path.name for path in exported.PRETRAINED.iterdir())


@pytest.fixture(scope='module')
def model(one_device):
  return api.load('pretrained:shapes')


@pytest.mark.parametrize('name', NAMES)
def test_it_is_small_and_says_how_it_was_made(name):
  folder = exported.PRETRAINED / name
  assert sum(file.stat().st_size for file in folder.iterdir()) < 25e6
  card = (folder / 'README.md').read_text()
  loaded = api.load(f'pretrained:{name}')
  saved = json.loads((folder / exported.CONFIG).read_text())
  for section in ('sample', 'evaluate'):  # an installed package has no other
    assert {*saved[section]} == {*default.get_config()[section]}
  file = name.replace('-', '.py:') if '-' in name else f'{name}.py'
  assert f'python -m kaleido_jax.main --config=configs/{file}' in card
  assert f'{loaded.step:,} steps' in card


def test_it_draws_what_it_is_told(model):
  latents = model.imagine('a red circle', num=8, seed=1)
  assert all('red circle' in [b.label for b in z.boxes] for z in latents)
  images = model.render('a red circle', latents, guidance=4.0)
  colours = [[s.colour for s in seeing.things(image)] for image in images]
  assert sum('red' in found for found in colours) >= 7
  assert len({image.tobytes() for image in images}) == 8


@pytest.mark.slow
def test_an_installed_package_draws_in_a_minute(tmp_path):
  """As a wheel has it: without configs/, from a cold start."""
  subprocess.run(
    [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '.', '-w']
    + [str(tmp_path)],
    cwd=small_runs.ROOT,
    check=True,
  )
  (wheel,) = tmp_path.glob('*.whl')
  with zipfile.ZipFile(wheel) as file:
    file.extractall(tmp_path / 'installed')
  assert not (tmp_path / 'installed/configs').exists()
  start = time.monotonic()
  subprocess.run(
    [sys.executable, '-m', 'kaleido_jax.main', '--mode=sample']
    + ['--workdir=pretrained:shapes', '--prompt=a red circle'],
    cwd=tmp_path,
    env={
      **os.environ,
      'JAX_PLATFORMS': 'cpu',
      'PYTHONPATH': str(tmp_path / 'installed'),
      'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'),
      'XLA_FLAGS': '',
    },
    check=True,
  )
  assert time.monotonic() - start < 60
  (drawn,) = tmp_path.glob('runs/pretrained-shapes/drawn/*/000000.png')
  assert np.asarray(Image.open(drawn)).shape == (32, 32, 3)
