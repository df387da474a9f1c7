"""The command line, as people use it: in a process of its own."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from kaleido_jax import main

ROOT = pathlib.Path(__file__).parent.parent


def call(*args: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'kaleido_jax.main', *args],
    cwd=ROOT,
    env={**os.environ, 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
  )


def readme_command(title: str) -> str:
  """The command line that follows a sentence in the README."""
  text = (ROOT / 'README.md').read_text()
  return re.search(rf'{title}[^\n]*\n\n    ([^\n]+)\n', text)[1]


def test_the_readme_command_runs(tmp_path):
  command = readme_command('Set up and run').rpartition('&&')[2].split()
  assert command[1:3] == ['-m', 'kaleido_jax.main']
  fewer = '--config.train.num_steps=12'
  done = call(*command[3:], f'--workdir={tmp_path}', fewer)
  assert done.returncode == 0, done.stderr
  assert 'step 12: loss' in done.stderr
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['latents'] == ['text']


def test_a_field_is_overridden_and_a_variant_chosen(tmp_path):
  done = call(
    '--config=configs/toy.py:mdm',
    '--config.model.denoiser.width=32',
    '--config.train.num_steps=2',
    *('--config.train.sample_count=0', '--config.train.held_out='),
    f'--workdir={tmp_path}',
  )
  assert done.returncode == 0, done.stderr
  assert 'prior_loss' not in done.stderr
  saved = json.loads((tmp_path / 'config.json').read_text())
  assert saved['model']['denoiser']['width'] == 32


@pytest.mark.parametrize(
  'args, message',
  [
    ([], r'Give --config=configs/NAME\.py'),
    (['evaluate'], "unexpected 'evaluate'.*--mode=evaluate"),
    (['--mode=paint'], 'train'),
    (['--config.model.decodr.width=3'], 'decodr'),
    (['--config=configs/toy.py:mbm'], "'mbm' is not 'mdm'"),
    (['--config=configs/tyo.py'], 'tyo.py'),
    (['--config=configs/toy.py', '--config.eta=much'], 'could not convert'),
    (['--config=configs/toy.py', '--config.etta=1'], "no such field: 'etta'"),
    (['--config=configs/toy.py', '--mode=extract'], 'data.store=FOLDER'),
  ],
)
def test_mistakes_end_with_a_sentence(args, message):
  done = call(*args)
  assert done.returncode == 2
  assert re.search(message, done.stderr + done.stdout, re.DOTALL)
  assert 'Traceback' not in done.stderr


@pytest.mark.parametrize(
  'config, workdir',
  [
    ('configs/imagenet.py', 'runs/imagenet'),
    ('configs/imagenet.py:mdm', 'runs/imagenet-mdm'),
    ('my/own.py:64,small', 'runs/own-64-small'),
  ],
)
def test_the_workdir_names_the_variant(config, workdir):
  assert main.default_workdir(config) == workdir


def test_the_first_of_several_workdirs_has_the_configuration():
  argv = ['--workdir=a', '--workdir', 'b', '--seed=1', '--seed=2']
  assert main.flags_in(argv) == {'workdir': 'a', 'seed': '2'}
