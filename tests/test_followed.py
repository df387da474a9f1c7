"""How closely pictures follow latents, by pictures whose latents are known."""

import numpy as np
import pytest

from kaleido_jax.data.shapes import Shapes
from kaleido_jax.evaluation import followed
from kaleido_jax.evaluation.drawn import Drawn

KINDS = ('text', 'bbox', 'blob', 'color')


class Given(Drawn):
  """Pictures and latents as if a model had drawn them, in two parts."""

  def __init__(self, images, latents):
    self.parts, self._images, self._latents = 2, np.stack(images), latents

  def part(self, number):
    return self._images[number::2]

  def latents(self, number):
    return self._latents[number::2]


@pytest.fixture(scope='module')
def examples():
  source = Shapes(size=32, split='test', kinds=KINDS)
  return [source[index] for index in range(16)]


def test_pictures_follow_their_own_latents_and_not_the_others(examples):
  images = [example.image for example in examples]
  latents = [example.latents.to_strings() for example in examples]
  own = followed.of(Given(images, latents), 'shapes')
  turned = latents[1:] + latents[:1]
  others = followed.of(Given(images, turned), 'shapes')
  assert list(own) == ['color_match', 'box_iou', 'blob_iou']
  for name, least in (
    ('color_match', 0.9),
    ('box_iou', 0.8),
    ('blob_iou', 0.8),
  ):
    assert own[name].shape == (16,)
    assert own[name].mean() > least and others[name].mean() < 0.5, name


def test_of_data_that_nothing_sees_colours_are_known(examples):
  images = [example.image for example in examples[:4]]
  latents = [example.latents.to_strings() for example in examples[:4]]
  found = followed.of(Given(images, latents), 'imagenet')
  assert list(found) == ['color_match']
  assert not followed.of(Given(images, [{}] * 4), 'shapes')


def test_what_does_not_parse_is_nowhere(examples):
  """A prior may write anything."""
  images = [example.image for example in examples[:4]]
  broken = [{'bbox': '[a (1, 2, a star (9999, 1, 2, 3)'}] * 4
  found = followed.of(Given(images, broken), 'shapes')
  np.testing.assert_array_equal(found['box_iou'], 0)
