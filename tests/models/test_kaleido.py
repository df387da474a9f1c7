import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models
from filling import filled
from flax import traverse_util
from ml_collections import ConfigDict

from kaleido_jax.models import adaptation, kaleido, t5
from kaleido_jax.models.kaleido import Kaleido
from kaleido_jax.models.mlp import MLP
from kaleido_jax.models.nested_unet import NestedUNet
from kaleido_jax.models.t5_layers import T5Config
from kaleido_jax.models.unet import UNet

# The encoder's widths are its own, so that its kernels can be told by shape.
ENCODER = T5Config(
  vocab_size=40,
  width=16,
  num_heads=2,
  head_dim=12,
  mlp_dim=56,
  num_encoder_layers=2,
  num_decoder_layers=1,
)
DECODER = T5Config(
  vocab_size=48,
  width=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=3,
)
NULL = (1,)


def build(decoder=DECODER, **kwargs) -> Kaleido:
  return Kaleido(
    encoder=t5.T5(ENCODER),
    decoder=None if decoder is None else t5.T5(decoder),
    denoiser=MLP(width=20, num_layers=1),
    **kwargs,
  )


@pytest.fixture(scope='module')
def batch():
  keys = jax.random.split(jax.random.key(0), 3)
  mask = jnp.arange(5) < jnp.array([5, 3, 2])[:, None]
  z = jax.random.randint(keys[1], (3, 6), 2, 48)
  lengths = jnp.array([6, 4, 2])[:, None]
  z = jnp.where(jnp.arange(6) < lengths - 1, z, t5.EOS)
  return dict(
    ids=jnp.where(mask, jax.random.randint(keys[0], (3, 5), 2, 40), t5.PAD),
    mask=mask,
    z=jnp.where(jnp.arange(6) < lengths, z, t5.PAD),
    xs=(jax.random.normal(keys[2], (3, 2)),),
    times=jnp.array([0, 500, 999]),
  )


def parameters(model: Kaleido) -> dict:
  return filled(lambda key: kaleido.init_params(model, key, ((2,),)))


@pytest.fixture(scope='module')
def model():
  return build()


@pytest.fixture(scope='module')
def params(model):
  return parameters(model)


def losses(model, params, batch, eta, **dropped):
  """Both losses, against arbitrary targets: what matters is their gradient."""
  (prediction,), logits = model.apply({'params': params}, **batch, **dropped)
  total = jnp.square(prediction - 1).mean()
  if logits is not None:
    picked = jnp.take_along_axis(
      jax.nn.log_softmax(logits), batch['z'][..., None], -1
    )[..., 0]
    total -= eta * jnp.where(batch['z'] != t5.PAD, picked, 0).mean()
  return total


def gradient_step(model, eta=0.0):
  """The gradient with respect to what is trained, as a step takes it."""

  def step(params, batch):
    trained, frozen = kaleido.split(model, params)
    return jax.grad(
      lambda trained: losses(model, kaleido.join(trained, frozen), batch, eta)
    )(trained)

  return step


def largest(gradients) -> dict[str, float]:
  flat = traverse_util.flatten_dict(gradients, sep='/')
  return {path: float(jnp.abs(g).max()) for path, g in flat.items()}


def products(jaxpr) -> set[tuple[int, ...]]:
  """The shapes of all matrix products in a program, inner ones included."""
  shapes = set()
  for equation in jaxpr.eqns:
    if equation.primitive.name == 'dot_general':
      shapes |= {variable.aval.shape for variable in equation.outvars}
    for value in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda v: hasattr(v, 'eqns') or hasattr(v, 'jaxpr'),
    ):
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        shapes |= products(inner)
  return shapes


def encoder_kernels(params) -> set[tuple[int, ...]]:
  """Shapes of the encoder's kernels, also transposed, without the layers."""
  flat = traverse_util.flatten_dict(params['encoder']['encoder'])
  shapes = {v.shape[1:] for path, v in flat.items() if path[-1] == 'kernel'}
  return shapes | {shape[::-1] for shape in shapes}


@pytest.mark.parametrize('freeze', [True, False])
def test_a_frozen_encoder_has_no_gradient_in_the_step(params, batch, freeze):
  """The gradient of a kernel is a matrix product of the kernel's shape."""
  step = gradient_step(build(freeze_encoder=freeze))
  shapes = products(jax.make_jaxpr(step)(params, batch).jaxpr)
  kernels = encoder_kernels(params)
  assert bool(shapes & kernels) is not freeze
  gradients = jax.eval_shape(step, params, batch)
  assert ('encoder' in gradients) is not freeze


def test_the_compiled_step_spends_no_more_on_a_frozen_encoder(params, batch):
  """Training it costs a backward pass more, which the frozen step lacks."""

  def flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()['flops']

  def forward(params, batch):
    return build().apply(
      {'params': params}, batch['ids'], batch['mask'], method='encode'
    )

  frozen = flops(gradient_step(build()), params, batch)
  trained = flops(gradient_step(build(freeze_encoder=False)), params, batch)
  once = flops(forward, params, batch)
  # A backward pass costs about twice a forward one.
  assert 1.2 * once < trained - frozen < 3.5 * once


def test_with_eta_zero_the_decoder_learns_from_the_denoiser(
  model, params, batch
):
  gradients = largest(jax.jit(gradient_step(model))(params, batch))
  decoder = {k: v for k, v in gradients.items() if k.startswith('decoder/')}
  # All of it learns but the head, which only the next-token loss reads.
  silent = {path for path, value in decoder.items() if value == 0}
  assert silent == {'decoder/decoder/logits_dense/kernel'}


def test_with_eta_the_head_learns_too(model, params, batch):
  gradients = largest(jax.jit(gradient_step(model, eta=1.0))(params, batch))
  assert all(value > 0 for value in gradients.values())


def test_without_latents_it_is_the_denoiser_on_the_memory(batch):
  model = build(decoder=None)
  params = parameters(model)
  assert params.keys() == {'encoder', 'denoiser'}
  batch = {**batch, 'z': None}
  (prediction,), logits = model.apply({'params': params}, **batch)
  assert logits is None

  memory = model.encoder.apply(
    {'params': params['encoder']}, batch['ids'], batch['mask'], method='encode'
  )
  (alone,) = model.denoiser.apply(
    {'params': params['denoiser']},
    batch['xs'],
    batch['times'],
    memory,
    batch['mask'].astype(jnp.float32),
  )
  np.testing.assert_array_equal(prediction, alone)


def test_without_latents_the_parameters_are_those_of_matryoshka(batch):
  inner = UNet(
    channels=(8, 16),
    num_resnets=(1, 1),
    num_attention=(0, 0),
    embedding_dim=32,
    groups=8,
    middle_blocks=False,
  )
  outer = NestedUNet(
    channels=(8, 8),
    num_resnets=(1, 1),
    num_attention=(0, 0),
    embedding_dim=32,
    groups=8,
    inner_unet=inner,
  )
  shapes = (16, 16, 3), (8, 8, 3)

  def init(decoder):
    model = Kaleido(t5.T5(ENCODER), decoder, outer)
    return jax.eval_shape(
      lambda key: kaleido.init_params(model, key, shapes), jax.random.key(0)
    )

  def alone(key):
    xs = tuple(jnp.zeros((1, *shape)) for shape in shapes)
    return outer.init(key, xs, jnp.zeros(1), jnp.zeros((1, 1, 16)))['params']

  expected = jax.eval_shape(alone, jax.random.key(0))
  for decoder in (None, t5.T5(DECODER)):
    assert init(decoder)['denoiser'] == expected


def test_the_prior_scores_each_token_from_those_before_it(model, params, batch):
  """And the last state has seen them all."""
  memory = model.apply(
    {'params': params}, batch['ids'], batch['mask'], method='encode'
  )

  @jax.jit
  def run(z):
    return model.apply(
      {'params': params}, z, memory, batch['mask'], method='prior'
    )

  states, logits = run(batch['z'])
  assert logits.shape == (3, 6, 48)
  changed = batch['z'].at[0, 4].set(7)  # the last before EOS
  assert (changed != batch['z']).any()
  other_states, other_logits = run(changed)
  same = jnp.abs(logits - other_logits).max(-1)[0] < 1e-6
  np.testing.assert_array_equal(same, [True] * 5 + [False])
  assert jnp.abs(states - other_states)[0, 5].max() > 1e-3


def condition(model, params, batch, **dropped):
  def run(module):
    memory = module.encode(batch['ids'], batch['mask'])
    states, _ = module.prior(batch['z'], memory, batch['mask'])
    return module.condition(
      memory, batch['mask'], states, batch['z'] != t5.PAD, **dropped
    )

  return model.apply({'params': params}, method=run)


def test_the_denoiser_reads_memory_and_then_states(model, params, batch):
  tokens = condition(model, params, batch)
  assert tokens.features.shape == (3, 11, 16)
  np.testing.assert_array_equal(tokens.mask[:, :5], batch['mask'])
  np.testing.assert_array_equal(tokens.mask[:, 5:], batch['z'] != t5.PAD)
  np.testing.assert_array_equal(tokens.features[~tokens.mask], 0)


def test_the_null_condition_is_the_empty_caption_without_latents(
  model, params, batch
):
  drop = jnp.array([False, True, False])
  tokens = condition(model, params, batch, drop_caption=drop, drop_latents=drop)
  empty = model.apply(
    {'params': params}, jnp.array([NULL]), jnp.ones((1, 1)), method='encode'
  )
  np.testing.assert_array_equal(tokens.mask[1], [True] + [False] * 10)
  np.testing.assert_allclose(tokens.features[1, 0], empty[0, 0], atol=1e-6)
  kept = condition(model, params, batch)
  for row in (0, 2):
    np.testing.assert_array_equal(tokens.mask[row], kept.mask[row])
    np.testing.assert_array_equal(tokens.features[row], kept.features[row])


def test_caption_and_latents_can_be_dropped_apart(model, params, batch):
  drop = jnp.ones(3, bool)
  kept = condition(model, params, batch)
  only_latents = condition(model, params, batch, drop_caption=drop)
  only_caption = condition(model, params, batch, drop_latents=drop)
  np.testing.assert_array_equal(only_latents.mask[:, 5:], kept.mask[:, 5:])
  np.testing.assert_array_equal(only_caption.mask[:, :5], kept.mask[:, :5])
  assert not only_caption.mask[:, 5:].any()


def test_dropping_the_condition_leaves_the_prior_alone(model, params, batch):
  drop = jnp.ones(3, bool)
  _, logits = model.apply({'params': params}, **batch)
  (dropped,), same = model.apply(
    {'params': params}, **batch, drop_caption=drop, drop_latents=drop
  )
  np.testing.assert_array_equal(logits, same)
  # A dropped example depends on nothing of its condition.
  other = {**batch, 'ids': batch['ids'][::-1], 'mask': batch['mask'][::-1]}
  (again,), _ = model.apply(
    {'params': params}, **other, drop_caption=drop, drop_latents=drop
  )
  np.testing.assert_array_equal(dropped, again)


def test_cached_states_stand_in_for_the_encoder(model, params, batch):
  memory = t5_models.jit(
    lambda p: model.apply(
      {'params': p}, batch['ids'], batch['mask'], method='encode'
    )
  )(params)

  def run(params, memory):
    inputs = [batch[name] for name in ('ids', 'mask', 'xs', 'times', 'z')]
    return model.apply({'params': params}, *inputs, memory=memory)

  nothing = jax.tree.map(jnp.zeros_like, params['encoder'])
  (x,), logits = t5_models.jit(lambda p: run(p, None))(params)
  (cached_x,), cached_logits = t5_models.jit(run)(
    params | {'encoder': nothing}, memory
  )
  np.testing.assert_allclose(cached_x, x, atol=1e-6)
  np.testing.assert_allclose(cached_logits, logits, atol=1e-5)


def test_an_empty_caption_longer_than_the_batch_is_refused(batch):
  model = build(empty_caption=(3, 4, 5, 6, 7, 1))
  params = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, ((2,),)), jax.random.key(0)
  )
  with pytest.raises(ValueError, match='has 6 tokens.*padded to 5'):
    jax.eval_shape(
      lambda p: model.apply(
        {'params': p}, **batch, drop_caption=jnp.ones(3, bool)
      ),
      params,
    )


def trained_paths(decoder: T5Config, **kwargs) -> set[str]:
  model = build(decoder, **kwargs)
  params = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, ((2,),)), jax.random.key(0)
  )
  trained, frozen = jax.eval_shape(lambda p: kaleido.split(model, p), params)
  joined = jax.eval_shape(kaleido.join, trained, frozen)
  assert jax.tree.structure(joined) == jax.tree.structure(params)
  flat = traverse_util.flatten_dict(trained, sep='/')
  return {path for path in flat if path.startswith('decoder/')}


def test_only_the_last_layers_train_if_the_first_are_frozen():
  decoder = dataclasses.replace(DECODER, frozen_layers=2)
  paths = trained_paths(decoder)
  assert 'decoder/token_embedder/embedding' in paths
  assert 'decoder/decoder/layers/mlp/wo/kernel' in paths
  assert not any('frozen_layers' in p or 'relpos' in p for p in paths)
  paths = trained_paths(decoder, train_embedder=False)
  assert 'decoder/token_embedder/embedding' not in paths


@pytest.mark.parametrize('fields', [{'frozen_layers': 2}, {'lora_rank': 2}])
def test_partial_training_computes_no_other_gradient(batch, params, fields):
  config, adapted = adaptation.adapt(
    DECODER, params['decoder'], jax.random.key(3), **fields
  )
  model = build(config, train_embedder=False)
  params = {**params, 'decoder': adapted}
  step = gradient_step(model, eta=1.0)
  gradients = largest(jax.jit(step)(params, batch))
  decoder = {k: v for k, v in gradients.items() if k.startswith('decoder/')}
  kernels = [k for k in decoder if '/layers/' in k and 'norm' not in k]
  if config.lora_rank:
    assert kernels and all('/lora_' in k for k in kernels)
    # At the start the product of both factors is zero because `up` is.
    assert all(decoder[k] > 0 for k in kernels if k.endswith('lora_up'))
    # Gradients of the kernels themselves would have the kernels' shape.
    shapes = products(jax.make_jaxpr(step)(params, batch).jaxpr)
    assert not {(16, 32), (32, 16)} & shapes
  else:
    assert all(v > 0 for v in decoder.values())
    assert adapted['decoder']['layers']['mlp']['wo']['kernel'].shape[0] == 1


def test_encoder_and_decoder_of_different_widths_are_refused():
  section = dict(
    width=16, num_heads=2, mlp_dim=8, num_encoder_layers=1, num_decoder_layers=1
  )
  config = ConfigDict(
    dict(
      latents=('color',),
      model=dict(encoder=section, decoder={**section, 'width': 32}),
    )
  )
  with pytest.raises(ValueError, match='width=16 and.*width=32; make them'):
    kaleido.from_config(config)
