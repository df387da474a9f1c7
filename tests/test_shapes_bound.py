"""Whether a denoiser knows which colour belongs to which thing."""

import re

import numpy as np
import pytest

from benchmarks import shapes_bound
from kaleido_jax import loading
from kaleido_jax.data.shapes import Shapes, world


@pytest.fixture(scope='module')
def pairs():
  source = Shapes(split='test', kinds=('text', 'bbox', 'color'), size=32)
  return shapes_bound.pairs(source, 12)


def colours(text: str) -> list[str]:
  return [w for w in re.findall(r'\w+', text) if w in world.values('colour')]


def test_colours_change_places_in_every_word(pairs):
  for true, other in pairs:
    one, two = colours(true.caption)
    assert one != two and colours(other.caption) == [two, one]
    assert colours(true.latents['text']) == [one, two]
    assert colours(other.latents['text']) == [two, one]
    for boxes, wanted in ((true, [one, two]), (other, [two, one])):
      first, _, second = boxes.latents['bbox']
      assert [*colours(first.label), *colours(second.label)] == wanted


def test_what_names_no_thing_stays(pairs):
  for true, other in pairs:
    np.testing.assert_array_equal(true.image, other.image)
    assert true.latents['color'] == other.latents['color']
    places = [
      [(b.x1, b.y1, b.x2, b.y2) for b in example.latents['bbox'][::2]]
      for example in (true, other)
    ]
    assert places[0] == places[1]


@pytest.mark.parametrize(
  'name, low, high', [('shapes', 200, 5000), ('shapes-mdm', 8, 100)]
)
def test_what_ships_knows_and_latents_tell_it_more(
  one_device, pairs, name, low, high
):
  """In percent of the loss; a bag of words would lose nothing."""
  judge = shapes_bound.Judge(loading.load(f'pretrained:{name}'))
  found = [judge(judge.read(some), 950) for some in zip(*pairs, strict=True)]
  assert low < shapes_bound.rise(*found).value < high
