"""Perplexity of real latents, token by token; and of who knows nothing."""

import collections

import jax
import numpy as np
import pytest
import small_models

from kaleido_jax import api
from kaleido_jax.data import sources
from kaleido_jax.evaluation import surprise
from kaleido_jax.models import kaleido

pytestmark = pytest.mark.usefixtures('one_device')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  found = api.load(small_models.export(tmp_path_factory.mktemp('runs') / 'a'))
  found.config.evaluate.update(real=5, batch_size=3, resamples=10)
  return found


def test_surprise_is_that_of_each_token(model):
  module = kaleido.from_config(model.config)
  recipe = sources.recipe_of(model.config)
  source = sources.alone(model.config.data, recipe, split='test')
  nats = collections.defaultdict(list)
  for place in np.linspace(0, len(source) - 1, 5).astype(int):
    arrays = recipe(source[int(place)], np.random.default_rng(0)).arrays
    ids, z = arrays['ids'][None], arrays['z']
    variables, mask = {'params': model.params}, ids != 0
    memory = module.apply(variables, ids, mask, method='encode')
    _, logits = module.apply(variables, z[None], memory, mask, method='prior')
    kinds = iter(model.kinds)
    kind = next(kinds)
    for token, row in zip(z, np.asarray(logits[0], np.float64), strict=True):
      if token == 0:
        break
      nats[kind].append(np.log(np.exp(row - row[token]).sum()))
      if token == model.words.separator:  # it ends a kind, and is its last
        kind = next(kinds)
  found = surprise.of(model, model.config.evaluate)
  assert [*found] == ['text', 'bbox', 'color']
  for kind, figure in found.items():
    assert figure.value == pytest.approx(np.exp(np.mean(nats[kind])), rel=1e-5)
    low, high = figure.interval()[1:]
    assert 1 <= low < figure.value < high


def test_who_knows_nothing_chooses_among_all_tokens(model, monkeypatch):
  nothing = jax.tree.map(np.zeros_like, model.params)
  monkeypatch.setattr(model, 'params', nothing)
  found = surprise.of(model, model.config.evaluate)
  tokens = model.config.model.decoder.vocab_size
  assert [f.value for f in found.values()] == pytest.approx([tokens] * 3)
  assert all(f.others.std() < 1e-3 * tokens for f in found.values())


def test_where_no_latents_are_known_there_is_none(model, monkeypatch):
  elsewhere = model.config.copy_and_resolve_references()
  elsewhere.data.update(source='emoji', path='nowhere')
  monkeypatch.setattr(model, 'config', elsewhere)
  assert surprise.of(model, elsewhere.evaluate) == {}
  monkeypatch.setattr(model, 'kinds', ())
  assert surprise.of(model, elsewhere.evaluate) == {}
