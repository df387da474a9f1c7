import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models
from flax import traverse_util

from kaleido_jax.models import adaptation, decoding, t5

KEY = jax.random.key(0)
TABLES = {'token_embedder/embedding': 0, 'decoder/logits_dense/kernel': 1}


@pytest.fixture(scope='module')
def plain():
  config = t5_models.tiny()
  return config, t5_models.random_params(config)


@pytest.fixture(scope='module')
def inputs():
  ids = jax.random.randint(jax.random.key(1), (2, 5), 2, 40)
  targets = jax.random.randint(jax.random.key(2), (2, 7), 2, 40)
  return ids, jnp.arange(5) < jnp.array([5, 3])[:, None], targets


def flat(params) -> dict:
  return traverse_util.flatten_dict(params, sep='/')


def rows(params) -> dict:
  """One row per token, of the embedding and, if there is one, the head."""
  params = flat(params)
  return {
    k: np.moveaxis(params[k], i, 0) for k, i in TABLES.items() if k in params
  }


@pytest.mark.parametrize('tied_head', [True, False])
def test_a_larger_vocabulary_keeps_every_bit_and_the_logits(tied_head, inputs):
  config = t5_models.tiny(tied_head=tied_head)
  params = t5_models.random_params(config)
  larger, grown = adaptation.resize_vocabulary(config, params, 55, KEY)
  assert larger == t5_models.tiny(tied_head=tied_head, vocab_size=55)
  shapes = t5.abstract_params(t5.T5(larger))
  assert jax.tree.map(jnp.shape, grown) == jax.tree.map(jnp.shape, shapes)

  old, new = rows(params), rows(grown)
  assert len(old) == (1 if tied_head else 2)
  for name in old:
    np.testing.assert_array_equal(new[name][:40], old[name])
  for name, leaf in flat(params).items():
    if name not in old:
      np.testing.assert_array_equal(flat(grown)[name], leaf)

  *states, logits = t5_models.run(t5.T5(config), params, *inputs)
  *same, more = t5_models.run(t5.T5(larger), grown, *inputs)
  for a, b in zip(states, same, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
  np.testing.assert_allclose(more[..., :40], logits, rtol=0, atol=1e-5)


def test_new_rows_have_the_mean_and_spread_of_the_old_in_every_dimension():
  config = t5_models.tiny(vocab_size=400)
  params = t5_models.random_params(config)
  # Dimensions that no common mean and no common spread describe.
  spread = np.linspace(0.1, 2, 16, dtype=np.float32)
  shift = np.linspace(-3, 3, 16, dtype=np.float32)
  embedding = params['token_embedder']['embedding']
  params['token_embedder']['embedding'] = embedding * spread + shift
  _, grown = adaptation.resize_vocabulary(config, params, 400 + 8192, KEY)
  new = {name: table[400:] for name, table in rows(grown).items()}
  for name, old in rows(params).items():
    # Five standard errors of 8192 draws.
    error = 5 * old.std(0) / 8192**0.5
    assert (np.abs(new[name].mean(0) - old.mean(0)) < error).all()
    np.testing.assert_allclose(new[name].std(0), old.std(0), rtol=0.05)
    assert len(np.unique(new[name][:, 0])) > 8000  # all differ
  # Drawn apart: an embedding tells nothing of its column in the head.
  a, b = ((x - x.mean(0)) / x.std(0) for x in new.values())
  assert np.abs((a * b).mean(0)).max() < 5 / 8192**0.5


def test_a_vocabulary_cannot_shrink(plain):
  with pytest.raises(ValueError, match='has 40 tokens and cannot shrink to 39'):
    adaptation.resize_vocabulary(*plain, 39, KEY)


@pytest.mark.parametrize(
  'parts',
  [
    dict(frozen_layers=3),
    dict(lora_rank=2),
    dict(frozen_layers=1, lora_rank=2),
    dict(frozen_layers=4, lora_rank=2),
  ],
  ids=str,
)
def test_adapted_parameters_compute_the_same_and_come_back_exactly(
  plain, inputs, parts
):
  config, params = plain
  adapted_config, adapted = adaptation.adapt(config, params, KEY, **parts)
  assert adapted_config == t5_models.tiny(**parts)
  shapes = t5.abstract_params(t5.T5(adapted_config))
  assert jax.tree.map(jnp.shape, adapted) == jax.tree.map(jnp.shape, shapes)
  expected = t5_models.run(t5.T5(config), params, *inputs)
  found = t5_models.run(t5.T5(adapted_config), adapted, *inputs)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
  back_config, back = adaptation.restore(adapted_config, adapted)
  assert back_config == config
  t5_models.assert_equal(back, params)


@pytest.fixture(scope='module')
def trained(plain):
  """An adapted model whose updates have left zero."""
  config, params = adaptation.adapt(*plain, KEY, frozen_layers=2, lora_rank=3)
  params = flat(params)
  for i, name in enumerate(sorted(params)):
    if name.endswith('/lora_up'):
      noise = jax.random.normal(jax.random.key(i), params[name].shape)
      params[name] = 0.5 * noise
  return config, traverse_util.unflatten_dict(params, sep='/')


def test_joined_updates_compute_what_they_did_apart(plain, trained, inputs):
  config, params = trained
  joined_config, joined = adaptation.restore(config, params)
  assert joined_config == plain[0]
  found = t5_models.run(t5.T5(joined_config), joined, *inputs)
  apart = t5_models.run(t5.T5(config), params, *inputs)
  start = t5_models.run(t5.T5(plain[0]), plain[1], *inputs)
  for a, b in zip(found, apart, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=5e-5)
  assert jnp.abs(found[2] - start[2]).max() > 0.1
  # Only kernels of the layers above have changed.
  for name, leaf in flat(plain[1]).items():
    changed = (flat(joined)[name] != leaf).reshape(leaf.shape[0], -1).any(1)
    adapted = name.startswith('decoder/layers/') and name.endswith('/kernel')
    assert changed.tolist() == [adapted and i >= 2 for i in range(len(leaf))]


def test_an_adapted_model_decodes_what_the_joined_one_does(trained, inputs):
  ids, mask, _ = inputs
  results = []
  for config, params in (trained, adaptation.restore(*trained)):
    module = t5.T5(config)

    def generate(params, module=module):
      variables = {'params': params}
      return decoding.generate(
        module,
        params,
        module.apply(variables, ids, mask, method='encode'),
        mask,
        jax.random.split(KEY, 2),
        prefix=jnp.array([[5, 9], [8, 0]]),
        prefix_lengths=jnp.array([2, 1]),
        num_tokens=6,
        rule=decoding.SamplingRule(),
      )

    results.append(t5_models.jit(generate)(params))
  adapted, joined = results
  np.testing.assert_array_equal(adapted.ids, joined.ids)
  np.testing.assert_allclose(adapted.states, joined.states, atol=5e-5)
  np.testing.assert_array_equal(adapted.ids[:, 0], [5, 8])


def test_adapting_twice_is_refused(trained):
  with pytest.raises(ValueError, match='adapted already.*restore first'):
    adaptation.adapt(*trained, KEY, lora_rank=1)
