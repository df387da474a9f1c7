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
    half = len(images) // 2
    self.parts = 2
    self._some = slice(half), slice(half, None)
    self._images, self._latents = np.stack(images), latents

  def part(self, number):
    return self._images[self._some[number]]

  def latents(self, number):
    return self._latents[self._some[number]]


@pytest.fixture(scope='module')
def examples():
  source = Shapes(size=32, split='test', kinds=KINDS)
  return [source[index] for index in range(16)]


def test_pictures_follow_their_own_latents_and_not_the_others(examples):
  images = [example.image for example in examples]
  latents = [example.latents.to_strings() for example in examples]
  found = followed.of(Given(images, latents), 'shapes', each=1)
  assert list(found) == [
    *('color_match', 'box_iou', 'blob_iou'),
    *('color_match_other', 'box_iou_other', 'blob_iou_other'),
  ]
  for name, least in (
    *(('color_match', 0.9), ('box_iou', 0.8), ('blob_iou', 0.8)),
  ):
    assert found[name].shape == (16,) == found[f'{name}_other'].shape
    assert found[name].mean() > least
    assert found[f'{name}_other'].mean() < 0.5
  # Where all have one caption there is no other one.
  alike = followed.of(Given(images, latents), 'shapes', each=16)
  np.testing.assert_array_equal(alike['box_iou'], alike['box_iou_other'])


def test_of_data_that_nothing_sees_colours_are_known(examples):
  images = [example.image for example in examples[:4]]
  latents = [example.latents.to_strings() for example in examples[:4]]
  found = followed.of(Given(images, latents), 'imagenet', each=2)
  assert list(found) == ['color_match', 'color_match_other']
  assert not followed.of(Given(images, [{}] * 4), 'shapes', 2)


def test_what_does_not_parse_is_nowhere(examples):
  """A prior may write anything."""
  images = [example.image for example in examples[:4]]
  box = '[a (1, 2, a star (9999, 1, 2, 3)'
  broken = [{'bbox': box, 'color': c} for c in ('', '1#2', '999#x', '7')]
  found = followed.of(Given(images, broken), 'shapes', each=2)
  np.testing.assert_array_equal(found['box_iou'], 0)
  np.testing.assert_array_equal(found['color_match'], 0)
