"""Real pictures: which they are, and in what order they are read."""

import numpy as np
import pytest
import small_models

from kaleido_jax.data import shapes
from kaleido_jax.data.example import Example
from kaleido_jax.evaluation import reference, scores
from kaleido_jax.evaluation.reference import Reference
from kaleido_jax.latents import Latents


@pytest.fixture
def config():
  found = small_models.config()
  found.evaluate.update(num_captions=6, per_caption=3, real=20, resamples=10)
  return found


def test_captions_and_pictures_of_the_reference(config):
  """Captions are different ones; pictures are as the source has them."""
  real = Reference(config, config.evaluate)
  captions = real.captions(30)
  assert len(set(captions)) == 30 and captions[:6] == real.captions(6)
  of = real.of_captions(captions)
  assert len(of) == config.evaluate.real
  # Both come in one order: each is of a caption that was there, or of the next.
  assert [*dict.fromkeys(of)] == [*range(max(of) + 1)]
  assert (real.of_captions(captions[:1]) == -1).sum() >= 15
  found = real.part(0)
  assert len(found) == 20 and real.parts == 1
  name = str(real)
  config.evaluate.split = 'train'
  assert str(Reference(config, config.evaluate)) != name


def test_a_reference_of_some_captions(config, monkeypatch):
  """All pictures of these, or of all others."""

  class Ten:
    """Captions in turn; in the second split, from the other end."""

    fingerprint = 'ten'

    def __init__(self, split):
      self.step = 1 if split == 'test' else -1

    def __len__(self):
      return 40

    def __getitem__(self, i):
      image = np.full((32, 32, 3), i, np.uint8)
      caption = f'caption {i * self.step % 10}'
      return Example(f'ten-{i}', image, caption, Latents())

  monkeypatch.setattr(
    reference.sources, 'alone', lambda data, recipe, split: Ten(split)
  )
  real = Reference(config, config.evaluate)
  some = ['caption 3', 'caption 7']
  own = real.other(only=some, real=50)
  assert sorted(key for key, _ in own.said) == sorted(
    f'ten-{10 * n + i}' for n in range(4) for i in (3, 7)
  )
  assert sorted(own.part(0)[:, 0, 0, 0]) == [3, 7, 13, 17, 23, 27, 33, 37]
  assert own.whole().said == own.said and str(own) != str(real)
  assert 'of 2 captions' in str(own)
  few = real.other(only=some, real=3)
  assert few.said == own.said[:3] and few.whole().said == own.said
  assert sorted(set(own.of_captions(some))) == [0, 1]
  others = real.other(split='train', without=some, real=50)
  assert len(others.said) == 32
  assert not {caption for _, caption in others.said} & {*some}
  assert len(others.ceiling().said) == 18  # as many as are drawn, of any


def test_without_other_real_pictures_the_remedy_is_told(config, monkeypatch):
  """A model may be evaluated where its training data is not."""

  def alone(data, recipe, split):
    if split == 'train':
      raise FileNotFoundError('/data/train is not there.')
    return shapes.Shapes(split=split, size=32)

  monkeypatch.setattr(reference.sources, 'alone', alone)
  real = Reference(config, config.evaluate)
  remedy = r'train is not there\.\n.* --config\.evaluate\.ceiling=$'
  with pytest.raises(FileNotFoundError, match=remedy):
    real.ceiling()
  config.evaluate.ceiling = ''
  assert Reference(config, config.evaluate).ceiling() is None


@pytest.mark.parametrize('count', [1, 2, 3, 12, 100, 1117])
def test_a_reference_is_read_all_over_and_once(count):
  stride = reference._stride(count)
  order = [place * stride % count for place in range(count)]
  assert sorted(order) == [*range(count)]
  # Of ten classes in a row, the first twenty pictures show nearly all.
  if count > 99:
    assert len({index * 10 // count for index in order[:20]}) >= 9


def test_a_reference_of_adm(config, tmp_path):
  """Its pictures are seen; its statistics count where Inception looked."""
  random = np.random.default_rng(0)
  images = random.integers(256, size=(9, 32, 32, 3), dtype=np.uint8)
  mean, path = np.arange(3.0), tmp_path / 'adm.npz'
  np.savez(path, arr_0=images, mu=mean, sigma=np.eye(3))
  config.evaluate.reference = str(path)
  real = Reference(config, config.evaluate)
  np.testing.assert_array_equal(real.part(0), images)
  x = {'features': random.normal(size=(9, 3)), 'logits': np.zeros((9, 4))}
  found = scores.truth(x, {'features': 'fid'}, config.evaluate, path)
  np.testing.assert_array_equal(found.gaussians['fid'].mean, mean)
  found = scores.truth(x, {'features': 'frechet'}, config.evaluate, path)
  np.testing.assert_allclose(
    found.gaussians['frechet'].mean, x['features'].mean(0)
  )
  with pytest.raises(ValueError, match='of Inception alone'):
    scores.truth({}, {'features': 'frechet'}, config.evaluate, path)
  found = scores.truth({}, {'features': 'fid'}, config.evaluate, path)
  assert found.reached is None
  config.evaluate.update(num_captions=3, per_caption=4)
  x = {'features': random.normal(size=(12, 3)), 'logits': np.eye(12)}
  figures = scores.of(found, x, {'features': 'fid'}, config.evaluate)
  assert list(figures) == [
    *('fid', 'inception_score', 'mss', 'mss_with_diagonal', 'vendi')
  ]
  np.savez(path, arr_0=images[:, :16])
  with pytest.raises(ValueError, match=r'pictures of \[16, 32, 3\], and the'):
    Reference(config, config.evaluate).part(0)
