"""`python -m kaleido_jax.main --config=configs/imagenet.py`, as it is typed."""

import io
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from kaleido_jax import progress
from kaleido_jax.data import imagenet

ROOT = pathlib.Path(__file__).parent.parent
LINE = 'python -m kaleido_jax.main --config=configs/imagenet.py'


@pytest.fixture
def call(tmp_path):
  """Types a line where there is nothing but the configurations."""
  (tmp_path / 'configs').symlink_to(ROOT / 'configs')

  def typed(line: str) -> subprocess.CompletedProcess:
    return subprocess.run(
      [sys.executable, *line.split()[1:]],
      cwd=tmp_path,
      env={
        **os.environ,  # eight fake devices
        # To compile takes nearly all of the time.
        'XLA_FLAGS': os.environ['XLA_FLAGS']
        + ' --xla_backend_optimization_level=0',
        'PYTHONPATH': str(ROOT),
        'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
      },
      capture_output=True,
      text=True,
      timeout=600,
    )

  return typed


def photograph(seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (5, 6, 3), np.uint8)
  stream = io.BytesIO()
  Image.fromarray(pixels).resize((60, 48)).save(stream, 'JPEG')
  return stream.getvalue()


@pytest.fixture
def photographs(tmp_path) -> None:
  """ImageNet in miniature, made ready as BUILD.md says."""
  source = tmp_path / 'downloaded'
  for split in ('train', 'val'):
    for label in ('n01440764', 'n02123045'):
      (source / split / label).mkdir(parents=True)
      for n in range(8):
        path = source / split / label / f'{label}_{split}_{n}.JPEG'
        path.write_bytes(photograph(n))
  imagenet.prepare(source, tmp_path / 'data')


def test_the_line_trains(call, photographs, tmp_path):
  small = '--config.train.num_steps=3 --config.train.log_every=1'
  # No sheet: `test_trials` draws those.
  quick = '--config.train.sample_count=0 --config.train.held_out='
  inner = ' --config.model.denoiser.inner_unet.'
  flat = f'{inner}channels=32,{inner}num_resnets=1,{inner}num_attention=1,'
  done = call(f'{LINE}:tiny {small} {quick}{flat}')
  assert done.returncode == 0, done.stderr
  told = progress.read(tmp_path / 'runs/imagenet-tiny')
  losses = [line['loss'] for line in told if 'loss' in line]
  assert len(losses) == 3 and np.isfinite(losses).all()
  assert {'diffusion_loss/32', 'diffusion_loss/16', 'accuracy/color'} <= set(
    told[0]
  )
  mesh = re.search(r'sharding on data=(\d) x fsdp=(\d) x tensor=1', done.stderr)
  assert int(mesh[1]) * int(mesh[2]) == 8
  assert (tmp_path / 'runs/imagenet-tiny/checkpoints/3').is_dir()


def test_the_line_says_all_that_it_lacks(call, tmp_path):
  done = call(LINE)
  assert done.returncode == 2
  assert 'Traceback' not in done.stderr
  said = done.stderr.partition('error: ')[2]
  commands = re.findall(r'^  (\S.*)$', said, re.MULTILINE)
  assert commands == [
    'pip install huggingface_hub',
    'hf download google/flan-t5-xl spiece.model --local-dir flan-t5-xl',
    'python -m kaleido_jax.data.imagenet --source=FOLDER --out=data',
    'python -m kaleido_jax.main --mode=extract --config=CONFIG '
    '--config.extract.file=LATENTS.jsonl --config.data.store=FOLDER',
    'pip install huggingface_hub',
    "hf download google/flan-t5-xl --include '*.json' '*.safetensors' "
    "'*.model' --local-dir flan-t5-xl",
  ]
  assert 'https://image-net.org' in said and 'config.init.t5' in said
  assert [int(n) for n in re.findall(r'^(\d)\. ', said, re.MULTILINE)] == [
    *range(1, 5)
  ]
  assert len(said.splitlines()) < 25
  # The manual gives the same ones.
  manual = (ROOT / 'BUILD.md').read_text()
  assert commands[2] in manual and commands[-1] in manual
  # Nothing was begun.
  assert not (tmp_path / 'runs').exists()


def test_who_wants_the_trace_has_it(call):
  done = call(f'{LINE}:tiny -v=1')
  assert 'Traceback' in done.stderr and 'holds no prepared' in done.stderr
