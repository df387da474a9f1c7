"""Plain files of a model, and back."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models

from kaleido_jax import api, export, exported, loading
from kaleido_jax.convert import huggingface
from kaleido_jax.models import t5

PROMPT = 'a red circle'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return small_models.export(tmp_path_factory.mktemp('export'))


def test_an_export_of_an_export_is_the_same(folder, tmp_path):
  made = small_models.config()
  export.run(made, workdir=folder, out=str(tmp_path / 'again'))
  for name in (exported.WEIGHTS, exported.CONFIG):
    first, second = (
      pathlib.Path(f) / name for f in (tmp_path / 'again', folder)
    )
    assert first.read_bytes() == second.read_bytes()


def test_a_run_is_not_hidden_by_its_export(folder, tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(ValueError, match='would be hidden by its export'):
    export.run(small_models.config(), workdir=folder, out=str(tmp_path))


def test_the_prior_writes_what_transformers_reads(folder, tmp_path):
  """The same scores, where captions stand behind the latents' tokens."""
  loaded = loading.load(folder, jax.devices()[:1])
  export.write_prior(tmp_path, loaded)
  told = json.loads((tmp_path / 'kaleido.json').read_text())
  offset = told['offset']
  assert told == {'latents': ['text', 'bbox', 'color'], 'offset': 1152}
  module, params = huggingface.load(tmp_path)
  ids = np.int32([[5, 80, 300, 1], [9, 1, 0, 0]])
  mask = ids != t5.PAD
  z = np.int32([[20, 30, 1], [700, 1100, 1]])
  shifted = np.where(mask, ids + offset, t5.PAD)

  @jax.jit
  def theirs(params):
    memory = module.apply({'params': params}, shifted, mask, method='encode')
    inputs = jnp.pad(z[:, :-1], ((0, 0), (1, 0)))
    return module.apply(
      {'params': params}, memory, mask, inputs, method='decode'
    )[1]

  @jax.jit
  def ours(params):
    memory = loaded.model.apply({'params': params}, ids, mask, method='encode')
    return loaded.model.apply(
      {'params': params}, z, memory, mask, method='prior'
    )[1]

  np.testing.assert_allclose(
    theirs(params)[..., :offset], ours(loaded.params), atol=1e-4
  )
  rules = json.loads((tmp_path / 'generation_config.json').read_text())
  assert rules['suppress_tokens'] == list(range(1152, 2304))


def test_files_that_do_not_fit_are_sentences(folder, tmp_path):
  made = small_models.config()
  loaded = loading.load(folder, jax.devices()[:1])
  made.model.decoder.mlp_dim = 48
  exported.write(str(tmp_path), made, loaded.params, step=3)
  with pytest.raises(ValueError, match='decoder/.* and not .*48'):
    api.load(str(tmp_path))
  (tmp_path / exported.WEIGHTS).write_bytes(b'half')
  with pytest.raises(ValueError, match='cannot be read'):
    api.load(str(tmp_path))
