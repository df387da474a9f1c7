"""Seconds per call of the denoiser, beside the original in PyTorch.

  OMP_NUM_THREADS=2 python benchmarks/denoiser.py
  OMP_NUM_THREADS=2 python benchmarks/denoiser.py --reference=FOLDER

The NestedUNet of `tests/data/mdm/bench_config.json`: 72,637,478 parameters,
64x64 and 16x16, batch 4, 32 tokens of which 20 count, float32. The reference is
a clone of apple/ml-mdm with torch, einops and what else it imports installed;
both have the same weights and have to agree.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from kaleido_jax.convert import mdm

DATA = pathlib.Path(__file__).parent.parent / 'tests/data/mdm'
RUNS = 7


def inputs() -> dict:
  rng = np.random.default_rng(0)

  def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)

  return dict(
    xs=(normal(4, 64, 64, 3), normal(4, 16, 16, 3)),
    times=np.array([0, 37, 500, 999]),
    features=normal(4, 32, 512),
    mask=np.repeat((np.arange(32) < 20)[None], 4, 0).astype(np.float32),
  )


def timed(function) -> float:
  function()
  seconds = []
  for _ in range(RUNS):
    start = time.perf_counter()
    function()
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds)


def ours(config, given):
  """Seconds forward, seconds forward and backward, weights, outputs."""
  module = mdm.denoiser(config)
  shapes = mdm.abstract_params(module, config)
  key = jax.random.key(0)
  params = jax.tree.map(
    lambda leaf: (
      jax.random.normal(key, leaf.shape) / np.prod(leaf.shape[:-1]) ** 0.5
    ),
    shapes,
  )
  args = tuple(jax.tree.map(jnp.asarray, tuple(given.values())))

  def total(params):
    return sum(y.sum() for y in module.apply({'params': params}, *args))

  forward = jax.jit(lambda p: module.apply({'params': p}, *args))
  backward = jax.jit(jax.grad(total))
  seconds = timed(lambda: jax.block_until_ready(forward(params)))
  both = timed(lambda: jax.block_until_ready(backward(params)))
  return seconds, both, mdm.save(module, params), forward(params)


def theirs(folder, config, given, weights):
  sys.path.insert(0, folder)
  import torch
  from ml_mdm.models import nested_unet, unet

  def parsed(kind, values):
    values = dict(values)
    values['resnet_config'] = unet.ResNetConfig(**values['resnet_config'])
    if 'inner_config' in values:
      values['inner_config'] = parsed(unet.UNetConfig, values['inner_config'])
    return kind(**values)

  torch.set_num_threads(2)
  settings = parsed(nested_unet.NestedUNetConfig, config)
  network = nested_unet.NestedUNet(3, 3, settings).eval()
  tensors = {k: torch.from_numpy(np.array(v)) for k, v in weights.items()}
  network.load_state_dict(tensors)
  xs = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in given['xs']]
  rest = [torch.from_numpy(given[k]) for k in ('times', 'features', 'mask')]

  def call():
    return network(xs, rest[0], rest[1], rest[2], {})

  @torch.no_grad()
  def forward():
    return call()

  def backward():
    network.zero_grad()
    sum(y.sum() for y in call()).backward()

  outputs = [y.numpy().transpose(0, 2, 3, 1) for y in forward()]
  return timed(forward), timed(backward), outputs


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--reference', help='the folder that holds ml_mdm/')
  reference = parser.parse_args().reference
  config = json.loads((DATA / 'bench_config.json').read_text())
  given = inputs()
  forward, both, weights, outputs = ours(config, given)
  print(f'kaleido_jax  forward {forward:.3f} s, with backward {both:.3f} s')
  if not reference:
    return
  forward, both, expected = theirs(reference, config, given, weights)
  print(f'reference    forward {forward:.3f} s, with backward {both:.3f} s')
  error = max(
    float(np.abs(a - b).max()) for a, b in zip(outputs, expected, strict=True)
  )
  print(f'largest difference {error:.1e}')


if __name__ == '__main__':
  main()
