"""Hidden modes are told from pictures, and their shares from the data."""

import numpy as np
import pytest

from kaleido_jax.data.shapes import Shapes
from kaleido_jax.evaluation import modes, styles
from kaleido_jax.evaluation.reference import Reference
from kaleido_jax.evaluation.seen import Seen


def test_tones_are_read_off_pictures():
  tones = modes.Tones()
  scenes = [Shapes(split='test', size=32).scene(i) for i in range(20)]
  images = np.stack([Shapes(split='test', size=32)[i].image for i in range(20)])
  found = [tones.names[number] for number in tones.read(images, {})]
  assert found == [scene.facts.tone for scene in scenes]
  truth = tones.truth(['a circle', 'a circle on navy'])
  np.testing.assert_allclose(truth.sum(1), 1)
  assert truth[0].max() < 1 and truth[1, tones.names.index('navy')] == 1


def test_styles_are_learned():
  """Of sets whose drawings lie apart; two names begin alike."""
  random = np.random.default_rng(0)
  sets = ['noto', 'noto-v1', 'twemoji']

  class Pictures(Reference):
    said = ()

    def __init__(self, count):
      which = random.integers(3, size=count)
      self.sets = [sets[n] for n in which]
      keys = [f'{sets[n]}-1f{i}' for i, n in enumerate(which)]
      self.said = [(key, f'caption {i % 5}') for i, key in enumerate(keys)]
      x = 3 * np.eye(3)[which] + random.normal(size=(count, 3))
      self.features = {'features': np.hstack([x, 0 * x])}

  class Looked(Seen):
    def __init__(self, pictures):
      self.pictures, self.read = pictures, lambda: pictures.features

  train, test = Pictures(300), Pictures(60)
  known = styles.Styles(Looked(train), Looked(test))
  said = known.learn()
  found = [known.names[n] for n in known.read(None, test.features)]
  right = np.mean([a == b for a, b in zip(found, test.sets, strict=True)])
  assert right > 0.9
  assert said.endswith(f'of 300 pictures, right in {right:.1%} of 60 held out')
  truth = known.truth([f'caption {n}' for n in range(5)])
  assert found != test.sets  # and as it tells drawn ones, so these
  for n, row in enumerate(truth):
    for name in sets:
      share = found[n::5].count(name) / 12
      assert row[known.names.index(name)] == pytest.approx(share)
  np.testing.assert_allclose(truth.sum(1), 1)
