"""What is trained, and what training costs."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import traverse_util
from small_kaleido import DECODER, build, losses

from kaleido_jax.models import adaptation, kaleido
from kaleido_jax.models.t5_layers import T5Config


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
