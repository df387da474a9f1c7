"""Names of colours."""

import numpy as np
import pytest

from kaleido_jax.data.emoji import color_names


def named(*pixels):
  image = np.array([pixels], np.uint8)
  return color_names.of(image, np.ones(image.shape[:2], bool))


@pytest.mark.parametrize(
  'rgb, name',
  [
    ((0, 0, 0), 'black'),
    ((255, 255, 255), 'white'),
    ((128, 128, 128), 'gray'),
    ((255, 0, 0), 'red'),
    ((0, 255, 0), 'green'),
    ((0, 0, 255), 'blue'),
    ((255, 255, 0), 'yellow'),
    ((255, 165, 0), 'orange'),  # CSS names from here on
    ((128, 0, 128), 'purple'),
    ((255, 192, 203), 'pink'),
    ((139, 69, 19), 'brown'),  # saddlebrown
    ((245, 222, 179), 'beige'),  # wheat
    ((0, 128, 128), 'teal'),
    ((135, 206, 235), 'light blue'),  # skyblue
    ((112, 128, 144), 'gray'),  # slategray
  ],
)
def test_a_colour_has_the_name_that_people_give_it(rgb, name):
  assert named(rgb) == (name,)


def test_names_come_by_share_and_small_shares_have_none():
  red, blue, green = (255, 0, 0), (0, 0, 255), (0, 255, 0)
  assert named(*[blue] * 30, *[red] * 60, *[green] * 10) == ('red', 'blue')


def test_there_are_three_names_at_most():
  colours = [(255, 0, 0), (0, 0, 255), (0, 255, 0), (0, 0, 0)]
  assert len(named(*colours)) == 3


def test_what_the_mask_leaves_out_has_no_name():
  image = np.zeros((4, 4, 3), np.uint8)
  image[:2] = (255, 0, 0)
  assert color_names.of(image, image[..., 0] > 0) == ('red',)


def test_colours_are_told_in_words():
  assert color_names.phrase(('red',)) == 'red'
  assert color_names.phrase(('red', 'blue')) == 'red and blue'
  assert color_names.phrase(('red', 'blue', 'teal')) == 'red, blue and teal'
