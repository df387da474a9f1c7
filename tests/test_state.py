"""One update: equal on every mesh and in any number of parts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_models

from configs import toy
from kaleido_jax import sharding
from kaleido_jax import state as states
from kaleido_jax.data import sources
from kaleido_jax.models import kaleido


def config(**mesh):
  made = toy.get_config()
  made.data.batch_size = 16
  made.model.denoiser.num_layers = 1
  made.mesh.update(mesh)
  made.model.encoder.vocab_size = made.model.decoder.vocab_size = 6144
  return made


@pytest.fixture(scope='module')
def batches():
  found = sources.batches(config())
  taken = [batch.arrays for batch in itertools.islice(found, 5)]
  found.close()
  return taken


def train(made, batches, devices=8):
  """States and metrics of a few steps."""
  mesh = sharding.create_mesh(made.mesh, jax.devices()[:devices])
  model = kaleido.from_config(made)
  state = states.init(made, model, mesh)
  separator = sources.check(made).separator
  step = states.build_step(made, model, mesh, separator)
  told, firsts = [], None
  for arrays in batches:
    state, metrics = step(state, sharding.to_devices(arrays, mesh))
    told.append(jax.device_get(metrics))
    # A first moment after the first step is the gradient, but for a factor.
    firsts = firsts or jax.device_get(optax.tree.get(state.opt_state, 'mu'))
  return state, told, firsts


def apart(a, b) -> float:
  """Two gradients, against the norm of one."""
  return optax.tree.norm(jax.tree.map(np.subtract, a, b)) / optax.tree.norm(b)


def on_one_device(state) -> int:
  """How many numbers of it."""
  first = jax.devices()[0]
  return sum(
    shard.data.size
    for leaf in jax.tree.leaves(state)
    for shard in leaf.addressable_shards
    if shard.device == first
  )


@pytest.fixture(scope='module')
def alone(batches):
  return train(config(data=1), batches, devices=1)


@pytest.mark.parametrize(
  'mesh',
  [
    dict(fsdp=2, tensor=2),  # and data=2: all at once
    pytest.param(dict(data=8), marks=pytest.mark.slow),
    pytest.param(dict(fsdp=8), marks=pytest.mark.slow),
  ],
)
def test_five_losses_agree_on_every_mesh(batches, alone, mesh):
  state, told, gradient = train(config(**mesh), batches)
  for name in ('loss', 'diffusion_loss', 'prior_loss', 'gradient_norm'):
    np.testing.assert_allclose(
      [m[name] for m in told], [m[name] for m in alone[1]], rtol=1e-5
    )
  assert apart(gradient, alone[2]) <= 1e-5
  largest = max(jax.tree.leaves(state.trained), key=lambda leaf: leaf.size)
  parts = mesh.get('fsdp', 1) * mesh.get('tensor', 1)
  assert largest.addressable_shards[0].data.size == largest.size // parts
  # What is too small to be split is a fifteenth.
  whole = on_one_device(alone[0])
  assert on_one_device(state) <= whole * (1 / parts + 0.07)


@pytest.mark.slow  # two large programs
def test_a_nested_unet_has_the_same_gradients_on_a_mesh():
  made = small_models.config()
  made.data.batch_size = 8
  found = sources.batches(made)
  batch = next(found).arrays
  found.close()
  alone, one, whole = train(made, [batch], devices=1)
  made.mesh.update(fsdp=2, tensor=2)
  state, eight, split = train(made, [batch])
  assert eight[0]['loss'] == pytest.approx(one[0]['loss'], rel=1e-5)
  assert apart(split, whole) <= 1e-5
  assert on_one_device(state) < on_one_device(alone)


def test_parts_of_a_batch_add_up_to_it(batches, alone):
  made = config(data=1)
  made.optimizer.accumulate = 4
  _, told, _ = train(made, batches[:2], devices=1)
  for got, want in zip(told, alone[1][:2], strict=True):
    assert got.keys() == want.keys()
    for name in want:
      np.testing.assert_allclose(got[name], want[name], rtol=2e-5, err_msg=name)


def test_a_step_that_is_not_finite_changes_nothing_but_the_counts(batches):
  broken = dict(batches[1], image=batches[1]['image'] * np.nan)
  with_it, told, _ = train(
    config(data=1), [batches[0], broken, batches[1]], devices=1
  )
  assert [int(m['skipped_in_a_row']) for m in told] == [0, 1, 0]
  assert int(with_it.counts.skipped) == 1 and int(with_it.counts.step) == 3
  for leaf in jax.tree.leaves(with_it._replace(frozen=None)):
    assert np.isfinite(leaf).all()
  before, *_ = train(config(data=1), [batches[0]], devices=1)
  after, *_ = train(config(data=1), [batches[0], broken], devices=1)
  for name in ('trained', 'ema', 'opt_state'):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(before, name), getattr(after, name)
    )


def test_the_rate_warms_up_as_in_the_reference():
  made = toy.get_config()
  made.optimizer.update(learning_rate=1.0, warmup_steps=4)
  rate = states.learning_rate(made)
  assert [float(rate(k)) for k in range(7)] == [
    0.25,
    0.25,
    0.5,
    0.75,
    1.0,
    1.0,
    1.0,
  ]


def test_a_run_that_is_to_end_cools_down():
  made = toy.get_config()
  made.optimizer.update(learning_rate=0.5, warmup_steps=1, cooldown_steps=4)
  made.train.num_steps = 10
  rate = states.learning_rate(made)
  found = [float(rate(k)) for k in (1, 5, 6, 7, 9, 10, 12)]
  assert found == [0.5, 0.5, 0.5, 0.375, 0.125, 0.0, 0.0]


def test_some_parameters_may_learn_at_a_rate_of_their_own():
  """After one step of Adam everything has moved by the rate, to its sign."""
  made = toy.get_config()
  made.optimizer.update(learning_rate=0.5, warmup_steps=1)
  made.optimizer.shares = (('qkv|encoder/', 0.1), ('encoder/', 0.5))
  transform = states.optimizer(made)
  kernel = {'kernel': jnp.array([0.1, -0.3])}
  gradient = {'encoder': kernel, 'denoiser': {'qkv': kernel, 'conv': kernel}}
  moved, _ = transform.update(gradient, transform.init(gradient))
  for found, by in (
    (moved['encoder'], 0.05),
    (moved['denoiser']['qkv'], 0.05),
    (moved['denoiser']['conv'], 0.5),
  ):
    np.testing.assert_allclose(found['kernel'], [-by, by], rtol=1e-5)
  made.optimizer.shares = (('prior/', 0.1),)
  with pytest.raises(ValueError, match="no trained parameter has 'prior/'"):
    states.optimizer(made).init(gradient)


def test_long_gradients_are_cut_and_short_ones_are_not():
  transform = states.clip(2.0)
  long = {'a': jnp.full(4, 10.0)}
  cut, _ = transform.update(long, transform.init(long))
  np.testing.assert_allclose(optax.tree.norm(cut), 2.0, rtol=1e-6)
  short = {'a': jnp.full(4, 0.1)}
  kept, _ = transform.update(short, transform.init(short))
  np.testing.assert_array_equal(kept['a'], short['a'])


def test_the_average_follows_the_parameters(batches):
  """After one update nine tenths of it are new, and at last ema_decay stays."""
  made = config(data=1)
  one, *_ = train(made, batches[:1], devices=1)
  start = states.init(
    made,
    kaleido.from_config(made),
    sharding.create_mesh(made.mesh, jax.devices()[:1]),
  )
  jax.tree.map(
    lambda ema, old, new: np.testing.assert_allclose(
      ema, 0.1 * old + 0.9 * new, atol=1e-6
    ),
    one.ema,
    start.trained,
    one.trained,
  )
  assert states.averaging(made.optimizer, 10**6) == np.float32(
    made.optimizer.ema_decay
  )
