"""Live: extractors beside the packages that their weights come from."""

import numpy as np
import pytest

from kaleido_jax.metrics import features
from kaleido_jax.metrics.features import efficientnet_lite0

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings('ignore')]
torch = pytest.importorskip('torch')
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
