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
  found = features.create('efficientnet_lite0')(images)
  np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-4)
