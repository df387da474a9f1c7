"""Writes `vis_model_tiny.pth` as Apple's ml-mdm writes its checkpoints.

That is `torch.save({'state_dict': ..., **other_items})`, where `other_items`
holds counters, losses and the parsed arguments: a Namespace of ml-mdm's own
dataclasses and enums, which a reader without ml-mdm meets all the same. The
arguments here come from ml-mdm's own parser. The state dict is not a U-Net's:
it has a small tensor of each kind that such a file may hold. `expected.npz` has
their values (bfloat16 as float32).

Made on 2026-11-21 with Python 3.11 and ml-mdm at commit
de8cde2b047563f069bdfe3204643e7339506838, which is not on the package index.
From the folder that holds this file, with MDM a clone at that commit:

  python3.11 -m venv venv
  venv/bin/pip install torch==2.13.0 numpy==2.4.6 sentencepiece==0.2.3 tqdm \
    pyyaml
  venv/bin/pip install --no-deps simple-parsing==0.1.5 einops==0.8.2 \
    docstring-parser==0.18.0 dataclass-wizard==0.22.3 mlx-data==0.1.0 \
    torchinfo==1.8.0
  PYTHONPATH=$MDM/ml-mdm-matryoshka venv/bin/python make.py

torchvision and boto3, which ml-mdm imports for other ends, are empty here.
"""

import collections
import pathlib
import sys
import unittest.mock

import numpy as np
import torch
from torch import nn

for _name in ('torchvision.utils', 'boto3.session', 'boto3.s3.transfer'):
  for _part in (_name.split('.')[0], _name.rpartition('.')[0], _name):
    sys.modules.setdefault(_part, unittest.mock.MagicMock())

# ruff: noqa: E402
from ml_mdm import config

HERE = pathlib.Path(__file__).parent


def state_dict():
  """An OrderedDict with `_metadata`, as every `Module.state_dict()` is."""
  torch.manual_seed(0)
  state = nn.ModuleDict(
    {'conv_in': nn.Conv2d(3, 4, 3), 'norm_out': nn.GroupNorm(2, 4)}
  ).state_dict()
  shared = torch.randn(24)
  state |= collections.OrderedDict(
    float16=torch.randn(3, 5).half(),
    bfloat16=torch.randn(3, 5).bfloat16(),
    float64=torch.randn(2, 2).double(),
    int64=torch.tensor([-1, 0, 2**40]),
    uint8=torch.arange(5, dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    scalar=torch.tensor(0.25),  # no dimensions
    empty=torch.zeros(0, 3),
    transposed=torch.randn(4, 6).T,  # strides 1, 6
    shared_a=shared[:8].view(2, 4),  # one storage, offsets 0 and 10, and
    shared_b=shared[10:22:2],  # a stride of 2
    parameter=nn.Parameter(torch.randn(2, 3)),
  )
  return state


def main():
  state = state_dict()
  # Kinds of values as the training loop leaves them: these three are NumPy's.
  other_items = {
    'batch_num': 100,
    'loss': 0.5,
    'best_avg_loss': np.float64(0.25),
    'exp_avg_loss': np.float64(0.25),
    'exp_avg_loss_var': np.float64(0.125),
    'args': config.get_arguments(['--model', 'nested_unet'], mode='trainer'),
  }
  path = HERE / 'vis_model_tiny.pth'
  torch.save({'state_dict': state, **other_items}, path)
  assert torch.equal(
    torch.load(path, weights_only=False)['state_dict']['shared_b'],
    state['shared_b'],
  )
  expected = {
    name: (value.float() if value.dtype == torch.bfloat16 else value)
    .detach()
    .numpy()
    for name, value in state.items()
  }
  np.savez_compressed(HERE / 'expected.npz', **expected)


if __name__ == '__main__':
  main()
