"""Writes tiny T5X checkpoints, and what T5X's own network computes from them.

T5X is not on the package index, so this runs by hand and its output is kept.
Networks, optimizer and checkpoint writer are T5X's own code, unmodified, at
commit cc342d419ec3e3e9c4bf1df33c82330cafdc1e16 (2026-04-21). From the folder
that holds this file, with T5X a clone at that commit:

  python3.11 -m venv venv
  venv/bin/pip install jax==0.4.38 flax==0.10.2 optax==0.2.5 numpy==2.0.2 \
    orbax-checkpoint==0.10.3 tensorstore==0.1.86 tensorflow-cpu==2.18.1 \
    tensorflow-text==2.18.1 tensorflow-datasets==4.9.9 \
    tensorflow-metadata==1.17.2 seqio==0.0.20 sentencepiece==0.2.0 clu==0.0.12 \
    fiddle==0.3.1 gin-config==0.5.0 jestimator==0.3.3 cached_property
  JAX_PLATFORMS=cpu PYTHONPATH=$T5X venv/bin/python make.py

Two imports need help; neither takes part in computing or writing. `airio` (data
pipelines) is not on the package index: four empty classes stand for it.
`jestimator` (the Amos optimizer) looks for PartitionSpec at its former place.

In the scalable layout every layer has a relative position bias of its own. In
`scalable` all of them are equal, so it computes what `minimal` does; in
`scalable_untied` they differ, as they do after training.
"""

import pathlib
import shutil
import sys
import tempfile
import types

import flax
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental import pjit

airio = types.ModuleType('airio.core')
for _name in ('AirIODatasetIterator', 'DatasetProviderBase', 'Mixture', 'Task'):
  setattr(airio, _name, type(_name, (), {}))
sys.modules['airio'] = types.ModuleType('airio')
sys.modules['airio'].core = sys.modules['airio.core'] = airio
pjit.PartitionSpec = jax.sharding.PartitionSpec

# ruff: noqa: E402
from t5x import adafactor, checkpoints, partitioning, train_state
from t5x.examples.scalable_t5 import network as scalable
from t5x.examples.t5 import network as minimal

HERE = pathlib.Path(__file__).parent
SIZES = dict(vocab_size=64, emb_dim=16, num_heads=2, head_dim=8, mlp_dim=32)
V1_1 = dict(
  **SIZES,
  num_encoder_layers=3,
  num_decoder_layers=3,
  mlp_activations=('gelu', 'linear'),
  logits_via_embedding=False,
)
V1_0 = dict(
  **SIZES,
  num_encoder_layers=2,
  num_decoder_layers=2,
  mlp_activations=('relu',),
  logits_via_embedding=True,
)

rng = np.random.default_rng(0)


def draw(shape, mean=0.0, std=1.0):
  """Normal float32 values with 12 bits of fraction, which compress better.

  That is still more than bfloat16 (7) and float16 (10) can hold.
  """
  values = (mean + std * rng.standard_normal(shape)).astype(np.float32)
  return (values.view(np.uint32) & np.uint32(0xFFFFF800)).view(np.float32)


def draw_parameter(name, shape):
  if name.endswith('scale'):
    return draw(shape, 1.0, 0.2)
  std = 1.0 if name.endswith('embedding') else shape[0] ** -0.5
  if name.endswith('query/kernel'):  # T5 does not scale its attention logits.
    std *= SIZES['head_dim'] ** -0.5
  return draw(shape, 0.0, std)


def make_inputs():
  encoder = rng.integers(1, SIZES['vocab_size'], (3, 7))
  for row, length in enumerate((7, 5, 2)):
    encoder[row, length:] = 0
  targets = rng.integers(1, SIZES['vocab_size'], (3, 5))
  shifted = np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], 1)
  tokens = dict(
    encoder_input_tokens=encoder,
    decoder_input_tokens=shifted,
    decoder_target_tokens=targets,
  )
  return {k: v.astype(np.int32) for k, v in tokens.items()}


def build(network, config, inputs):
  """The module, its axis names, and the shapes of its parameters."""
  module = network.Transformer(config=network.T5Config(**config))
  variables = module.init(jax.random.key(0), **inputs, enable_dropout=False)
  variables = flax.core.unfreeze(variables)
  shapes = flatten_dict(variables.pop('params'), sep='/')
  return module, variables, {k: v.shape for k, v in shapes.items()}


def stack(parameters, shapes):
  """Parameters of the minimal layout, stacked for the scalable one."""
  stacked = {}
  for name, shape in shapes.items():
    side, *rest = name.split('/')
    if side == rest[0]:  # 'encoder/encoder/...': one of the scanned layers'.
      tail = '/'.join(rest[1:])
      layers = [f'{side}/layers_{i}/{tail}' for i in range(shape[1])]
      if tail.startswith('relpos_bias'):
        layers = [f'{side}/{tail}'] * shape[1]
      one = shape[:1] + shape[2:]
      stacked[name] = np.stack([parameters[k].reshape(one) for k in layers], 1)
    else:
      stacked[name] = parameters[name]
  return stacked


def run(module, parameters, inputs):
  variables = {'params': unflatten_dict(parameters, sep='/')}
  tokens = inputs['encoder_input_tokens']
  encoded = module.apply(
    variables, tokens, enable_dropout=False, method='encode'
  )
  logits = module.apply(variables, **inputs, enable_dropout=False)
  return dict(encoded=np.asarray(encoded), logits=np.asarray(logits))


def save(folder, parameters, axes, optimizer=True, **options):
  """Has T5X write a checkpoint; with `optimizer`, after one step at rate 0."""
  nested = jax.tree.map(jax.numpy.asarray, unflatten_dict(parameters, sep='/'))
  variables = flax.core.freeze({'params': nested, **axes})
  if optimizer:
    # The released models' settings, but for a smaller bound on what to factor.
    definition = adafactor.Adafactor(
      decay_rate=0.8,
      step_offset=0,
      logical_factor_rules=adafactor.standard_logical_factor_rules(),
      min_dim_size_to_factor=8,
    )
    state = train_state.FlaxOptimTrainState.create(definition, variables)
    grads = jax.tree.map(lambda x: jax.numpy.asarray(draw(x.shape)), nested)
    state = state.apply_gradient(flax.core.freeze(grads), learning_rate=0.0)
  else:
    state = train_state.InferenceState.create(variables)
  partitioner = partitioning.PjitPartitioner(num_partitions=1)
  with tempfile.TemporaryDirectory() as tmp:
    checkpoints.Checkpointer(state, partitioner, tmp, **options).save(state)
    (written,) = pathlib.Path(tmp).iterdir()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.move(written, folder)


def main():
  inputs = make_inputs()

  module, axes, shapes = build(minimal, V1_1, inputs)
  parameters = {k: draw_parameter(k, v) for k, v in sorted(shapes.items())}
  outputs = run(module, parameters, inputs)
  save(HERE / 'minimal', parameters, axes)
  np.savez_compressed(HERE / 'golden.npz', **inputs, **outputs, **parameters)

  module, axes, shapes = build(scalable, V1_1, inputs)
  stacked = stack(parameters, shapes)
  for name, value in run(module, stacked, inputs).items():
    np.testing.assert_allclose(value, outputs[name], rtol=0, atol=1e-5)
  save(HERE / 'scalable', stacked, axes)

  biases = {k: draw(v) for k, v in sorted(shapes.items()) if 'relpos' in k}
  outputs = run(module, {**stacked, **biases}, inputs)
  save(HERE / 'scalable_untied', {**stacked, **biases}, axes, optimizer=False)
  path = HERE / 'golden_scalable_untied.npz'
  np.savez_compressed(path, **outputs, **biases)

  module, axes, shapes = build(minimal, V1_0, inputs)
  parameters = {k: draw_parameter(k, v) for k, v in sorted(shapes.items())}
  outputs = run(module, parameters, inputs)
  save(HERE / 'minimal_v1_0', parameters, axes, optimizer=False)
  np.savez_compressed(HERE / 'golden_minimal_v1_0.npz', **outputs, **parameters)


if __name__ == '__main__':
  main()
