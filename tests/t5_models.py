"""The small T5s that tests of several modules share, each read only once."""

import functools
import pathlib

import jax
import numpy as np
from flax import traverse_util

from kaleido_jax.convert import huggingface
from kaleido_jax.models import t5
from kaleido_jax.models.t5_layers import T5Config

DATA = pathlib.Path(__file__).parent / 'data'
FOLDER = DATA / 't5_huggingface'
VERSIONS = ('v1_0', 'v1_1')

# Compiling takes nearly all the time of such tests: a third of it without the
# optimiser. No number depends on that by more than rounding.
jit = functools.partial(
  jax.jit, compiler_options={'xla_backend_optimization_level': 0}
)


def tiny(**fields) -> T5Config:
  """A configuration in which no two sizes are equal."""
  sizes = dict(
    vocab_size=40,
    width=16,
    num_heads=3,
    head_dim=8,
    mlp_dim=32,
    num_encoder_layers=2,
    num_decoder_layers=4,
  )
  return T5Config(**sizes | fields)


def random_params(config: T5Config, seed: int = 0) -> dict:
  """Parameters none of which is zero or one, as initial ones may be."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    x = rng.standard_normal(leaf.shape).astype(np.float32)
    if path[-1] == 'scale':
      return 1 + 0.2 * x
    if path[-1] in ('embedding', 'rel_embedding'):
      return x
    return x * leaf.shape[-2] ** -0.5

  shapes = traverse_util.flatten_dict(t5.abstract_params(t5.T5(config)))
  params = {path: draw(path, leaf) for path, leaf in sorted(shapes.items())}
  return jax.device_put(traverse_util.unflatten_dict(params))


@functools.cache
def golden(version: str) -> dict[str, np.ndarray]:
  """What transformers computes from the committed folder."""
  return dict(np.load(FOLDER / f'{version}_golden.npz'))


@functools.cache
def load(version: str) -> tuple[t5.T5, dict]:
  """The committed folder as our module and parameters."""
  return huggingface.load(FOLDER / version)


@functools.partial(jit, static_argnums=0)
def run(module: t5.T5, params: dict, ids, mask, decoder_ids):
  """Encoder states, decoder states, logits."""

  def apply(method, *args):
    return module.apply({'params': params}, *args, method=method)

  memory = apply('encode', ids, mask)
  return memory, *apply('decode', memory, mask, decoder_ids)


@functools.cache
def run_golden(version: str, batch: str):
  """Our outputs for the inputs of one golden batch, as numpy arrays."""
  names = ('input_ids', 'attention_mask', 'decoder_input_ids')
  inputs = [golden(version)[f'{batch}/{name}'] for name in names]
  return jax.device_get(run(*load(version), *inputs))


def assert_equal(a: dict, b: dict) -> None:
  """Equal trees: names, shapes, types and every bit."""
  a = traverse_util.flatten_dict(a, sep='/')
  b = traverse_util.flatten_dict(b, sep='/')
  assert sorted(a) == sorted(b)
  for name in a:
    assert a[name].dtype == b[name].dtype, name
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)
