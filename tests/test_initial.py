"""Parameters that a run begins with: of a T5, of Matryoshka, of another run."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import t5_models
from filling import filled
from flax import traverse_util

from configs import cc12m, shapes, toy
from kaleido_jax import checkpoint, exported, initial, origins, sharding, train
from kaleido_jax import state as states
from kaleido_jax.convert import mdm, torch_file
from kaleido_jax.models import kaleido

T5X = t5_models.DATA / 't5x'
V1_1 = t5_models.FOLDER / 'v1_1'


def toy_of_t5(folder: pathlib.Path, **decoder):
  """The toy, with a T5 of the folder's size and eight tokens more."""
  config = toy.get_config()
  theirs = dataclasses.asdict(
    origins.format_of(str(folder)).load_config(str(folder))
  )
  free = {'dtype', 'remat', 'dropout', 'frozen_layers', 'lora_rank'}
  theirs = {k: v for k, v in theirs.items() if k not in free}
  config.model.encoder.update(theirs)
  config.model.decoder.update(theirs)
  config.model.decoder.vocab_size += 8
  config.model.decoder.update(decoder)
  config.model.denoiser.update(width=16, num_layers=1)
  config.init.t5 = str(folder)
  return config


def begin(config, devices: int = 1):
  """(model, parameters, state) of a run that begins."""
  mesh = sharding.create_mesh(config.mesh, jax.devices()[:devices])
  model = kaleido.from_config(config)
  state = initial.create(config, model, mesh)
  return model, kaleido.join(state.trained, state.frozen), state


def equal(found, wanted) -> None:
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def from_nothing(config):
  """The parameters that a run has with nothing to read."""
  config = config.copy_and_resolve_references()
  config.init.update(t5='', mdm='', run='')
  config.mesh.update(fsdp=1, tensor=1)
  return begin(config)[1]


@pytest.fixture(scope='module')
def golden():
  """What transformers and T5X compute from the committed folders."""
  hugging = {
    name.partition('/')[2]: array
    for name, array in t5_models.golden('v1_1').items()
    if name.startswith('ragged/')
  }
  tokens = np.load(T5X / 'golden.npz')
  return {
    V1_1: [
      hugging[name]
      for name in ('input_ids', 'attention_mask', 'decoder_input_ids')
      + ('encoded', 'logits')
    ],
    T5X / 'minimal': [
      tokens['encoder_input_tokens'],
      tokens['encoder_input_tokens'] > 0,
      *(tokens[n] for n in ('decoder_input_tokens', 'encoded', 'logits')),
    ],
  }


@pytest.mark.parametrize(
  'folder, decoder',
  [
    (V1_1, {}),
    (V1_1, {'frozen_layers': 1, 'lora_rank': 3}),
    (T5X / 'minimal', {'frozen_layers': 3}),
  ],
)
def test_a_t5_reads_and_writes_as_before_beside_new_tokens(
  golden, folder, decoder
):
  model, params, _ = begin(toy_of_t5(folder, **decoder))
  ids, mask, z, encoded, logits = golden[folder]

  @t5_models.jit
  def run(params):
    memory = model.apply({'params': params}, ids, mask, method='encode')
    t5 = {'params': params['decoder']}
    return memory, model.decoder.apply(t5, memory, mask, z, method='decode')[1]

  memory, found = run(params)
  old = logits.shape[-1]
  used = mask.astype(bool)
  np.testing.assert_allclose(memory[used], encoded[used], atol=1e-4)
  np.testing.assert_allclose(found[..., :old], logits, atol=2e-4, rtol=1e-4)
  new = np.asarray(found[..., old:])
  assert new.shape[-1] == 8 and len(np.unique(new[0, 0])) == 8


def test_what_is_read_lies_where_training_wants_it():
  config = toy_of_t5(V1_1)
  config.mesh.update(fsdp=2, tensor=2)
  # Large enough to be split.
  model, params, state = begin(config, devices=8)
  mesh = sharding.create_mesh(config.mesh)
  _, where = states.shardings(config, model, mesh)
  assert jax.tree.all(
    jax.tree.map(
      lambda leaf, s: leaf.sharding.is_equivalent_to(s, leaf.ndim), state, where
    )
  )
  query = params['encoder']['encoder']['layers']['attention']['query']['kernel']
  assert query.addressable_shards[0].data.size == query.size // 2
  equal(state.ema, state.trained)
  assert int(state.counts.step) == 0
  # What no file has is what a run from nothing has.
  equal(params['denoiser'], from_nothing(config)['denoiser'])


@pytest.fixture(scope='module')
def weights():
  """Of the denoiser at 32x32 and 16x16, by the names of Matryoshka."""
  config = cc12m.get_config('tiny,mdm')
  params = filled(
    lambda key: kaleido.init_params(
      kaleido.from_config(config), key, config.image_shapes
    )
  )
  return params['denoiser'], mdm.to_torch(params['denoiser'])


@pytest.mark.parametrize('which', ['all of it', 'the inner network'])
def test_a_denoiser_is_read_from_matryoshka(weights, tmp_path, which):
  params, tensors = weights
  path = tmp_path / 'vis_model.pth'
  inner = {
    name.removeprefix('inner_unet.'): array
    for name, array in tensors.items()
    if name.startswith('inner_unet.')
  }
  torch_file.write(path, tensors if which == 'all of it' else inner)
  config = cc12m.get_config('tiny,mdm')
  config.init.mdm = str(path)
  found = begin(config)[1]['denoiser']
  equal(found['inner_unet'], params['inner_unet'])
  if which == 'all of it':
    equal(found, params)
  else:  # adapters that start at zero
    assert not found['in_adapter']['kernel'].any()
    assert found['conv_in']['kernel'].any()


def test_matryoshkas_weights_of_another_network_are_named(weights, tmp_path):
  path = tmp_path / 'vis_model.pth'
  torch_file.write(path, weights[1])
  config = cc12m.get_config('64,tiny,mdm')
  config.init.mdm = str(path)
  with pytest.raises(ValueError, match='more resolutions than'):
    begin(config)
  config = cc12m.get_config('tiny,mdm')
  config.init.mdm = str(path)
  config.model.denoiser.channels = (16, 48)
  with pytest.raises(ValueError, match='vis_model.pth: .* mis-shaped'):
    begin(config)


@pytest.fixture(scope='module')
def low(tmp_path_factory):
  """A run at 16x16 alone: its workdir, model, and average."""
  folder = tmp_path_factory.mktemp('runs') / 'low'
  config = cc12m.get_config('64,tiny')
  train.open_workdir(config, str(folder))
  model = kaleido.from_config(config)
  mesh = sharding.create_mesh(config.mesh, jax.devices()[:1])
  params = filled(
    lambda key: kaleido.init_params(model, key, config.image_shapes)
  )
  state = jax.jit(lambda p: states.around(config, model, p))(params)
  state = state._replace(ema=jax.tree.map(lambda x: 0.9 * x, state.ema))
  state = jax.device_put(state, mesh.devices[0, 0, 0])
  with checkpoint.Checkpoints(str(folder / 'checkpoints')) as checkpoints:
    checkpoints.save(7, state._asdict())
    checkpoints.wait()
  return folder, model, state.ema


def test_an_export_is_where_a_run_may_begin(low, tmp_path):
  """Its weights, in bfloat16, as the checkpoint's averages would be read."""
  folder, _, average = low
  theirs = origins.config_of(str(folder))
  older = theirs.copy_and_resolve_references()
  del older.optimizer  # how it was trained is nobody's business
  exported.write(str(tmp_path), older, average, step=7)
  theirs.data.source = 'shapes'  # which is always there
  theirs.init.run = str(tmp_path)
  origins.check(theirs, fresh=True)
  _, params, state = begin(theirs)
  jax.tree.map(
    lambda found, saved: np.testing.assert_array_equal(
      found, jnp.asarray(saved, jnp.bfloat16).astype(found.dtype)
    ),
    params,
    dict(average),
  )
  assert int(state.counts.step) == 0


def test_a_run_may_write_other_latents_than_the_one_it_comes_from():
  config = shapes.get_config()
  config.init.run = 'pretrained:shapes'
  config.latents = ('text', 'blob', 'color')
  origins.check(config, fresh=True)
  assert set(origins.plan(config).values()) == {'run'}


def test_a_baseline_begins_with_what_ships():
  config = shapes.get_config('mdm')
  config.init.run = 'pretrained:shapes'
  origins.check(config, fresh=True)
  assert origins.plan(config) == dict(encoder='run', denoiser='run')


def test_some_parameters_may_begin_anew(low, tmp_path):
  config = origins.config_of(str(low[0]))
  config.data.source = 'shapes'  # which is always there
  config.init.run = str(low[0])
  random, read = from_nothing(config), begin(config)[1]
  config.init.anew = ('encoder/.*relpos_bias',)
  read, params, random = (
    traverse_util.flatten_dict(tree, sep='/')
    for tree in (read, begin(config)[1], random)
  )
  for path, leaf in params.items():
    anew = path == 'encoder/encoder/relpos_bias/rel_embedding'
    np.testing.assert_array_equal(leaf, (random if anew else read)[path])
  config.init.anew = ('encoder/bias',)
  with pytest.raises(ValueError, match="no parameter has 'encoder/bias'"):
    begin(config)


@pytest.mark.slow  # of the network alone: test_nested_unet
def test_a_larger_network_begins_with_the_smaller_ones_pictures(low):
  folder, small, average = low
  config = cc12m.get_config('256,tiny')
  config.init.run = str(folder)
  large, params, state = begin(config)
  keys = jax.random.split(jax.random.key(3), 3)
  xs = tuple(
    jax.random.normal(key, (2, *shape))
    for key, shape in zip(keys, config.image_shapes, strict=False)
  )
  ids = jax.random.randint(keys[2], (2, 9), 3, 99)
  rest = jnp.array([3, 700]), ids[:, :5]

  def run(model):
    return t5_models.jit(
      lambda params, xs: model.apply(
        {'params': params}, ids, ids > 0, xs, *rest
      )
    )

  (picture,), logits = run(small)(average, xs[1:])
  (_, inner), same_logits = run(large)(params, xs)
  np.testing.assert_allclose(inner, picture, atol=1e-5)
  np.testing.assert_allclose(same_logits, logits, atol=1e-5)
  assert np.abs(picture).max() > 0.1
  assert int(state.counts.step) == 0
  equal(state.ema, state.trained)


def test_the_run_comes_first_and_what_it_lacks_from_elsewhere(low, tmp_path):
  config = cc12m.get_config('tiny')
  parts = ('encoder', 'decoder', 'denoiser')
  assert origins.plan(config) == dict.fromkeys(parts, '')
  config.init.update(t5='t5', mdm='x.pth')
  assert origins.plan(config) == dict(
    encoder='t5', decoder='t5', denoiser='mdm'
  )
  config.init.run = str(low[0])
  assert origins.plan(config) == dict.fromkeys(parts, 'run')
  baseline = str(tmp_path / 'baseline')
  train.open_workdir(cc12m.get_config('64,mdm,tiny'), baseline)
  config.init.run = baseline
  assert origins.plan(config) == dict(
    encoder='run', decoder='t5', denoiser='run'
  )


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'model.encoder.width': 16}, 'model.encoder.width=32 there and 16 here'),
    ({'model.decoder.vocab_size': 80}, 'has 96 tokens, .*vocab_size=80'),
    ({'init.t5': ''}, 'encoder would begin as random numbers and stay so'),
    (
      {'init.t5': '', 'init.anew': ('encoder',)},
      'names none: everything is new',
    ),
    ({'init.t5': 'x/flan-t5-xl'}, '(?s)no T5 in x/flan.*google/flan-t5-xl'),
    ({'init.mdm': 'x.pth'}, r'no file x\.pth .*ml-mdm'),
    ({'init.run': 'runs/nowhere'}, 'no checkpoint of a run in runs/nowhere'),
    ({'init.run': 'pretrained:all'}, 'pretrained:all does not ship'),
  ],
)
def test_files_that_do_not_fit_are_refused_in_words(t5_like, changed, message):
  config = toy_of_t5(V1_1)
  config.data.update(vocabulary=t5_like, vocabulary_rows=96)
  config.model.freeze_encoder = True
  origins.check(config, fresh=True)
  config.update_from_flattened_dict(changed)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    origins.check(config, fresh=True)
  origins.check(config, fresh=False)  # it has its parameters already


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'model.denoiser.inner_unet.heads': 4}, 'denoiser.heads=2 there and 4'),
    ({'model.decoder.mlp_dim': 64}, 'decoder.mlp_dim=128 there and 64 here'),
    (
      {'latents': ('voken', 'color'), 'data.vokens_from_pixels': True},
      'first token of color=0 there and 8192 here',
    ),
    ({'image_shapes': ((64, 64, 3), (32, 32, 3))}, 'not the lower resolutions'),
  ],
)
def test_a_run_of_another_model_is_refused(low, changed, message):
  config = cc12m.get_config('tiny')
  config.data.source = 'shapes'
  config.init.run = str(low[0])
  origins.check(config, fresh=True)
  config.model.denoiser.inner_unet.remat = 'full'  # which changes no numbers
  origins.check(config, fresh=True)
  config.update_from_flattened_dict(changed)
  with pytest.raises(ValueError, match=message):
    origins.check(config, fresh=True)
