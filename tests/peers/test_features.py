"""Live: extractors beside the packages that their weights come from."""

import numpy as np
import pytest

from kaleido_jax.metrics import features
from kaleido_jax.metrics.features import dinov2, efficientnet_lite0

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings('ignore')]
torch = pytest.importorskip('torch')
# Mean and deviation of its pixels, red, green, blue.
IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
efficientnet = pytest.importorskip('efficientnet_lite_pytorch')


def test_efficientnet_lite0_sees_what_pytorchs_sees():
  images = np.random.default_rng(0).integers(
    0, 256, (4, 224, 224, 3), dtype=np.uint8
  )
  images[1] = images[1, :1, :1]  # of one colour
  theirs = efficientnet.EfficientNet.from_pretrained(
    'efficientnet-lite0', weights_path=str(efficientnet_lite0.find())
  ).eval()
  x = torch.tensor((images.astype(np.float32) - 127) / 128)
  with torch.no_grad():
    expected = theirs.extract_features(x.permute(0, 3, 1, 2)).mean((2, 3))
  found = features.create('efficientnet_lite0')(images)['features']
  np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-4)


def test_inception_sees_what_torch_fidelitys_sees(tmp_path):
  """On random weights, from pictures of a size that has to be changed."""
  fidelity = pytest.importorskip('torch_fidelity.feature_extractor_inceptionv3')
  random = torch.Generator().manual_seed(0)
  theirs = build(fidelity).eval()
  for name, value in theirs.state_dict().items():
    if name.endswith('running_var'):
      value.uniform_(0.5, 1.5, generator=random)
    elif name.endswith('conv.weight'):
      value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=random)
    elif value.is_floating_point():
      value.normal_(0.1, 0.2, generator=random)
    if name.endswith('bn.weight'):
      value.add_(1)
  torch.save(theirs.state_dict(), tmp_path / 'inception.pth')
  images = np.random.default_rng(0).integers(
    0, 256, (2, 48, 40, 3), dtype=np.uint8
  )
  seen = []
  theirs.Mixed_6d.branch1x1.register_forward_hook(
    lambda module, inputs, output: seen.append(output)
  )
  with torch.no_grad():
    pooled, logits = theirs(torch.tensor(images).permute(0, 3, 1, 2))
  ours = features.create('inception_v3', tmp_path / 'inception.pth')
  found = ours._replace(batch_size=2)(images)
  for one, other in (('features', pooled), ('logits', logits)):
    scale = float(other.abs().max())
    np.testing.assert_allclose(found[one], other, atol=1e-4 * scale)
  # ADM's order: rows, columns, then seven channels.
  spatial = seen[0][:, :7].permute(0, 2, 3, 1).reshape(2, -1)
  scale = float(spatial.abs().max())
  np.testing.assert_allclose(found['spatial'], spatial, atol=1e-4 * scale)


def build(module):
  """Their network, without the download of its weights."""
  kind = module.FeatureExtractorInceptionV3
  path = module.load_state_dict_from_url
  try:
    module.load_state_dict_from_url = lambda *args, **kwargs: None
    original = kind.load_state_dict
    kind.load_state_dict = lambda self, *args, **kwargs: None
    return kind('inception', ['2048', 'logits_unbiased'])
  finally:
    module.load_state_dict_from_url = path
    kind.load_state_dict = original


def test_dinov2_sees_what_transformers_sees(tmp_path):
  """On random weights, with and without a grid of positions to resize."""
  transformers = pytest.importorskip('transformers')
  config = transformers.Dinov2Config(
    hidden_size=128,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=224,
    patch_size=14,
    layerscale_value=0.7,
  )
  torch.manual_seed(0)
  theirs = transformers.Dinov2Model(config).eval()
  for value in theirs.parameters():
    torch.nn.init.normal_(value, std=0.1)
  torch.save(published(theirs.state_dict()), tmp_path / 'dinov2.pth')
  images = np.random.default_rng(0).integers(
    0, 256, (3, 224, 224, 3), dtype=np.uint8
  )
  x = (images / 255 - IMAGENET[0]) / IMAGENET[1]
  x = torch.tensor(x, dtype=torch.float32)
  with torch.no_grad():
    expected = theirs(x.permute(0, 3, 1, 2)).pooler_output
  extractor = features.create('dinov2', tmp_path / 'dinov2.pth')
  found = extractor._replace(batch_size=3)(images)['features']
  np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_a_program_of_pytorchs_is_run(tmp_path):
  """As SSCD is: pictures at its size, normalised, channels first."""

  class Program(torch.nn.Module):
    def forward(self, x):
      return torch.stack([x.mean((1, 2, 3)), x[:, 0].mean((1, 2))], 1)

  torch.jit.script(Program()).save(str(tmp_path / 'sscd.pt'))
  images = np.random.default_rng(0).integers(
    0, 256, (5, 288, 288, 3), dtype=np.uint8
  )
  extractor = features.create('sscd', tmp_path / 'sscd.pt')
  found = extractor._replace(batch_size=2)(images)['features']
  x = (images / 255 - IMAGENET[0]) / IMAGENET[1]
  expected = np.stack([x.mean((1, 2, 3)), x[..., 0].mean((1, 2))], 1)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  (tmp_path / 'text.pt').write_text('no program')
  with pytest.raises(ValueError, match='text.pt is no TorchScript program'):
    features.create('sscd', tmp_path / 'text.pt')


def test_positions_are_resized_as_pytorch_does():
  places = np.random.default_rng(0).normal(size=(37 * 37, 5))
  grid = torch.tensor(places).reshape(1, 37, 37, 5).permute(0, 3, 1, 2)
  expected = torch.nn.functional.interpolate(
    grid, scale_factor=(16 + dinov2.OFFSET) / 37, mode='bicubic'
  )
  assert expected.shape[2:] == (16, 16)
  np.testing.assert_allclose(
    dinov2.resized(places, 16),
    expected[0].permute(1, 2, 0).reshape(256, 5).numpy(),
    atol=1e-9,
  )


def published(theirs) -> dict:
  """By the names of the files that Meta published."""
  found = {
    'cls_token': theirs['embeddings.cls_token'],
    'pos_embed': theirs['embeddings.position_embeddings'],
    'norm.weight': theirs['layernorm.weight'],
    'norm.bias': theirs['layernorm.bias'],
  }
  for end in ('weight', 'bias'):
    found[f'patch_embed.proj.{end}'] = theirs[
      f'embeddings.patch_embeddings.projection.{end}'
    ]
    for number in range(3):
      new, old = f'blocks.{number}', f'encoder.layer.{number}'
      found[f'{new}.attn.qkv.{end}'] = torch.cat(
        [theirs[f'{old}.attention.{n}_proj.{end}'] for n in 'qkv']
      )
      for ours, name in (
        ('attn.proj', 'attention.o_proj'),
        *((n, n) for n in ('norm1', 'norm2', 'mlp.fc1', 'mlp.fc2')),
      ):
        found[f'{new}.{ours}.{end}'] = theirs[f'{old}.{name}.{end}']
  for number in range(3):
    for n in (1, 2):
      found[f'blocks.{number}.ls{n}.gamma'] = theirs[
        f'encoder.layer.{number}.layer_scale{n}.lambda1'
      ]
  return found


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  """Of random weights, as a folder of Hugging Face."""
  transformers = pytest.importorskip('transformers')
  small = dict(
    hidden_size=128,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=4,  # of 32 numbers: not always 64
  )
  words = ['a', 'red', 'circle', 'heart', '<start>', '<end>']
  config = transformers.CLIPConfig(
    vision_config=dict(**small, image_size=64, patch_size=16),
    text_config=dict(
      **small,
      vocab_size=len(words),
      max_position_embeddings=7,
      eos_token_id=len(words) - 1,
    ),
    projection_dim=48,
  )
  torch.manual_seed(0)
  theirs = transformers.CLIPModel(config).eval()
  for value in theirs.parameters():
    torch.nn.init.normal_(value, std=0.2)
  folder = tmp_path_factory.mktemp('clip')
  theirs.save_pretrained(folder)
  write_tokenizer(folder / 'tokenizer.json', words)
  return theirs, folder / 'model.safetensors'


def write_tokenizer(path, words):
  """Of whole words, between two marks, as CLIP's is of their parts."""
  tokenizers = pytest.importorskip('tokenizers')
  ids = {word: number for number, word in enumerate(words)}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token='a'))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single='<start> $A <end>',
    special_tokens=[(mark, ids[mark]) for mark in ('<start>', '<end>')],
  )
  made.save(str(path))


def test_clip_sees_and_reads_what_transformers_does(clip):
  theirs, file = clip
  images = np.random.default_rng(0).integers(
    0, 256, (3, 64, 64, 3), dtype=np.uint8
  )
  mean = [0.48145466, 0.4578275, 0.40821073]
  deviation = [0.26862954, 0.26130258, 0.27577711]
  x = torch.tensor((images / 255 - mean) / deviation, dtype=torch.float32)
  captions = ['a red circle', 'a heart', 'a red red red red red red circle']
  # The last is cut, its end is not.
  ids = [[4, 0, 1, 2, 5, 5, 5], [4, 0, 3, 5, 5, 5, 5], [4, 0, *[1] * 4, 5]]
  with torch.no_grad():
    seen = theirs.get_image_features(x.permute(0, 3, 1, 2)).pooler_output
    said = theirs.get_text_features(torch.tensor(ids)).pooler_output
  extractor = features.create('clip', file)._replace(batch_size=3)
  found = extractor(images)['features']
  np.testing.assert_allclose(found, seen, atol=1e-4 * float(seen.abs().max()))
  found = extractor.read(captions)
  np.testing.assert_allclose(found, said, atol=1e-4 * float(said.abs().max()))
