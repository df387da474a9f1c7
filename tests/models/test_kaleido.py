import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models
from ml_collections import ConfigDict
from small_kaleido import DECODER, ENCODER, NULL, build, parameters

from kaleido_jax.models import kaleido, t5
from kaleido_jax.models.kaleido import Kaleido
from kaleido_jax.models.nested_unet import NestedUNet
from kaleido_jax.models.unet import UNet


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
