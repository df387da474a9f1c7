"""What networks see. (Beside PyTorch: `tests/peers/test_features.py`.)"""

import numpy as np
import pytest

from kaleido_jax.data.shapes import Shapes
from kaleido_jax.metrics import features
from kaleido_jax.metrics.features import efficientnet_lite0


@pytest.fixture(scope='module')
def extractor():
  return features.create('efficientnet_lite0')._replace(batch_size=4)


def test_pictures_are_seen_one_by_one(extractor):
  """Neither the batch nor what fills it up matters."""
  source = Shapes(size=32, kinds=())
  images = np.stack([source[i].image for i in range(5)])
  found = extractor(images)
  assert found.shape == (5, 1280) and np.isfinite(found).all()
  np.testing.assert_allclose(found[4:], extractor(images[4:]), atol=1e-4)
  assert np.linalg.norm(found[0] - found[1]) > 1


def test_what_was_recorded_of_one_picture(extractor):
  """A ramp at the network's own size; recorded from the PyTorch package."""
  ramp = np.arange(224, dtype=np.uint8)
  image = np.stack(np.broadcast_arrays(ramp, ramp[:, None], 99), axis=-1)
  found = extractor(image[None].astype(np.uint8))[0]
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
  with pytest.raises(ValueError, match='there are efficientnet_lite0'):
    features.create('resnet')
  with pytest.raises(ValueError, match='no pictures'):
    extractor(np.zeros((0, 32, 32, 3), np.uint8))
  monkeypatch.setattr(efficientnet_lite0, 'PACKAGE', 'not_there_model')
  with pytest.raises(FileNotFoundError, match='pip install not-there-model'):
    features.create('efficientnet_lite0')
