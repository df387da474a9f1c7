"""What the README shows runs as it stands there."""

import json
import pathlib
import re
import textwrap

import jax.numpy as jnp
import numpy as np
import packing
import pytest
from feature_sets import pair

from kaleido_jax.convert import torch_file

pytestmark = pytest.mark.usefixtures('one_device')
README = (pathlib.Path(__file__).parent.parent / 'README.md').read_text()


def snippet(title: str) -> str:
  """The code under a heading."""
  section = README.partition(f'## {title}\n')[2].partition('\n## ')[0]
  lines = re.findall(r'^(?:    .*)?\n', section, re.MULTILINE)
  code = textwrap.dedent(''.join(lines))
  assert 'import' in code
  return code


@pytest.fixture
def folder(data, tmp_path, monkeypatch):
  """Where the files lie that the README names, small ones in their place."""
  (tmp_path / 'flan-t5-xl').symlink_to(data / 't5_huggingface/v1_1')
  weights = packing.read(data / 'mdm/nested_tiny_weights.npz.xz')
  torch_file.write(tmp_path / 'vis_model_256x256.pth', weights)
  monkeypatch.chdir(tmp_path)


@pytest.mark.slow  # each file by itself: tests/convert
def test_weights_from_elsewhere(folder, data):
  config = json.loads((data / 'mdm/nested_tiny_config.json').read_text())
  names = dict(
    config={**config, 'conditioning_feature_dim': 24},
    ids=jnp.array([[5, 6, 1]]),
    mask=jnp.ones((1, 3)),
    z=jnp.array([[0, 7, 8]]),
    x256=jnp.zeros((1, 32, 32, 3)),
    x64=jnp.zeros((1, 16, 16, 3)),
    times=jnp.array([3]),
  )
  code = snippet('Weights from elsewhere')
  # The small denoiser reads another width than the small T5 writes.
  code = code.replace('times, memory, mask', 'times, memory[..., :24], mask')
  exec(code, names)
  assert names['logits'].shape == (1, 3, 96)
  assert names['high'].shape == (1, 32, 32, 3)
  assert names['low'].shape == (1, 16, 16, 3)


def test_diffusion_by_itself():
  names = dict(
    network=lambda xs, times, condition: tuple(
      0 * x + condition[:, None, None] for x in xs
    ),
    null=jnp.zeros((1, 3)),
    condition=jnp.ones((1, 3)),
    seed=0,
  )
  exec(snippet('Diffusion by itself'), names)
  images = np.asarray(names['images'])
  assert images.shape == (8, 256, 256, 3) and np.abs(images).max() <= 1


def test_imagine_render_edit(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  code = snippet('Imagine, render, edit').partition('python -m')[0]
  names = {}
  exec(code.replace('steps=50', 'steps=8'), names)
  assert names['images'].shape == (8, 32, 32, 3)
  assert names['moved'].boxes[0].x1 == 100
  np.testing.assert_array_equal(names['again'][0], names['image'])
  assert 'plain navy' in names['navy'].text


def test_metrics_by_themselves():
  real, fake = pair()
  code = snippet('Evaluation').partition('python -m')[2].partition('\n')[2]
  names = dict(real=real, fake=fake)
  exec(code, names)
  assert names['frechet'].distance(real, fake) > 0


def test_latents_by_themselves():
  names = dict(image=np.zeros((64, 64, 3), np.uint8))
  exec(snippet('Latents'), names)
  assert not names['problems'] and names['picture'].any()
