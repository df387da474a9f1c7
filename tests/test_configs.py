import importlib
import math
import pathlib

import jax
import pytest
from ml_collections import ConfigDict

from kaleido_jax.models import kaleido

ROOT = pathlib.Path(__file__).parent.parent
VARIANTS = [
  ('default', ()),
  ('imagenet', ()),
  ('imagenet', ('mdm',)),
  ('imagenet', ('64',)),
  ('imagenet', ('tiny',)),
  ('imagenet', ('tiny,mdm',)),
  ('cc12m', ('64',)),
  ('cc12m', ('64,mdm',)),
  ('cc12m', ('256',)),
  ('cc12m', ('256,mdm',)),
  ('cc12m', ('64,tiny',)),
  ('cc12m', ('tiny',)),
  ('emoji', ()),
  ('emoji', ('mdm',)),
  ('emoji', ('tiny',)),
  ('emoji', ('small,text',)),
  ('emoji', ('small,text,bbox,voken',)),
  ('emoji', ('small,mdm',)),
  ('emoji', ('large,color',)),
  ('shapes', ()),
  ('shapes', ('mdm',)),
  ('shapes', ('mdm,16',)),
  ('toy', ()),
  ('toy', ('mdm',)),
]


def load(name: str, variant: tuple[str, ...]) -> ConfigDict:
  return importlib.import_module(f'configs.{name}').get_config(*variant)


def count(config: ConfigDict) -> dict[str, int]:
  model = kaleido.from_config(config)
  params = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, config.image_shapes),
    jax.random.key(0),
  )
  return {
    part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    for part, tree in params.items()
  }


def test_every_configuration_is_listed_here():
  names = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  assert names - {'sizes'} == {
    name for name, _ in VARIANTS
  }  # no run of its own


@pytest.mark.parametrize('name, variant', VARIANTS)
def test_it_builds_without_allocating(name, variant):
  config = load(name, variant)
  counts = count(config)
  assert ('decoder' in counts) is bool(config.latents)
  if name in ('default', 'imagenet') and variant in ((), ('mdm',)):
    assert counts['denoiser'] == 452_458_822  # appendix B.1
    assert counts['encoder'] == 1_223_527_424  # T5-XL


@pytest.mark.parametrize('tiny', ['', ',tiny'])
def test_the_64_model_of_cc12m_is_inside_the_256_one(tiny):
  small, large = (load('cc12m', (n + tiny,)) for n in ('64', '256'))
  inner = large.model.denoiser.inner_unet.to_dict()
  assert inner == small.model.denoiser.to_dict()
  assert large.image_shapes[1:] == small.image_shapes
  assert large.model.decoder == small.model.decoder
  assert large == load('cc12m', (tiny.strip(','),))


@pytest.mark.parametrize('name', ['imagenet', 'cc12m', 'emoji', 'toy'])
def test_an_unknown_variant_is_refused(name):
  with pytest.raises(ValueError, match="'mbm' is not .*mdm"):
    load(name, ('mbm',))


@pytest.mark.parametrize(
  'name, variant',
  [
    ('cc12m', '64,256'),
    ('imagenet', '64,256'),
    ('emoji', 'small,tiny'),
    ('emoji', 'tiny,large'),
    ('emoji', 'mdm,text'),
  ],
)
def test_a_run_is_not_two(name, variant):
  with pytest.raises(ValueError, match='are two runs'):
    load(name, (variant,))


@pytest.mark.parametrize('name', ['imagenet', 'cc12m'])
def test_the_paper_s_hyper_parameters(name):
  """As appendix B has them, and in its words."""
  config = load(name, ())
  outer, inner = config.model.denoiser, config.model.denoiser.inner_unet
  # B.1
  assert config.image_shapes == ((256, 256, 3), (64, 64, 3))
  resolutions = [256 // 2**level for level in range(len(outer.channels))]
  assert resolutions == [256, 128, 64]
  resolution_channels, num_res_blocks, num_attn_layers_per_block = (
    [64, 128, 256],
    [2, 2, 1],
    [0, 0, 0],
  )
  assert list(outer.channels) == resolution_channels
  assert list(outer.num_resnets) == num_res_blocks
  assert list(outer.num_attention) == num_attn_layers_per_block
  assert [64 // 2**level for level in range(len(inner.channels))] == [
    64,
    32,
    16,
  ]
  assert list(inner.channels) == [256, 512, 768]
  assert list(inner.num_resnets) == [2, 2, 2]
  assert list(inner.num_attention) == [0, 1, 5]
  assert inner.heads == 8
  assert inner.embedding_dim == outer.embedding_dim == 1024  # emb_channels
  assert inner.num_condition_blocks == 2  # num_lm_attn_layers
  assert inner.condition_dim == 1024  # lm_feature_projected_channels
  for part in ('encoder', 'decoder'):  # T5-XL, of Raffel et al.
    t5 = config.model[part]
    assert (t5.width, t5.mlp_dim, t5.num_heads) == (2048, 5120, 32)
    assert t5.num_encoder_layers == t5.num_decoder_layers == 24
  assert config.init.t5 and config.model.freeze_encoder
  assert not (
    config.model.decoder.frozen_layers or config.model.decoder.lora_rank
  )
  # B.2
  assert config.data.batch_size == 512
  assert config.train.num_steps == 400_000  # num_updates
  assert config.optimizer.b1 == 0.9  # adam_beta1
  assert config.optimizer.b2 == 0.99
  assert config.optimizer.eps == 1e-8
  assert config.optimizer.learning_rate == 1e-4
  assert config.optimizer.warmup_steps == 10_000
  assert config.optimizer.clip == 2.0  # gradient_clip_norm
  assert config.optimizer.ema_decay == 0.9999
  for part in ('encoder', 'decoder', 'denoiser'):
    assert config.model[part].dtype == 'bfloat16'
  # B.3, and 32 SEED ids of a codebook of 8192 (Ge et al., 2023)
  if name == 'imagenet':
    assert config.latents == ('text', 'bbox', 'voken')  # "combined"
  assert (config.data.voken_count, config.data.voken_codes) == (32, 8192)
  assert config.model.decoder.vocab_size == 32128 + 8192


def test_the_baseline_differs_in_latents_alone():
  """ "The same training parameters for both" (B.2)."""
  ours, baseline = load('imagenet', ()), load('imagenet', ('mdm',))
  assert baseline.latents == ()
  baseline.latents = ours.latents
  assert baseline == ours


def test_values_are_of_kinds_that_the_command_line_can_override():
  def check(section):
    for key, value in section.items():
      if isinstance(value, ConfigDict):
        check(value)
      else:
        assert isinstance(value, str | int | float | bool | tuple), key

  check(load('default', ()))


def test_a_mistyped_name_in_a_file_is_an_error():
  config = load('default', ())
  with pytest.raises(AttributeError, match='batchsize'):
    config.data.batchsize = 4
  with pytest.raises(KeyError, match='batchsize'):
    config.data.update(batchsize=4)
