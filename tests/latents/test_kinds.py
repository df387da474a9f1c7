"""What the kinds measure: boxes, ellipses, colours, cells."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kaleido_jax.latents import Blob, Box, blobs, boxes, colors, layout, words


def iou(a, b):
  return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize('theta', [0, 20, 45, 90, 135, 179])
@pytest.mark.parametrize('shape', [(128, 128), (96, 160)])
def test_a_blob_is_found_again_in_its_own_mask(theta, shape):
  there = Blob(label='x', xc=480, yc=530, r_major=300, r_minor=120, theta=theta)
  found = blobs.fit('x', there.mask(*shape))
  assert iou(found.mask(*shape), there.mask(*shape)) > 0.96
  assert abs(found.xc - 480) < 6 and abs(found.yc - 530) < 6
  assert abs(found.r_major - 300) < 8 and abs(found.r_minor - 120) < 8
  turn = abs(found.theta - theta)
  assert min(turn, 180 - turn) <= 3


def test_a_blob_has_the_moments_of_a_rectangle():
  """A w x h rectangle has moments w^2/12, h^2/12: radii w, h over sqrt(3)."""
  mask = np.zeros((100, 100), bool)
  mask[40:60, 10:70] = True
  found = blobs.fit('bar', mask)
  assert (found.xc, found.yc, found.theta) == (400, 500, 0)
  assert found.r_major == round(600 / 3**0.5)
  assert found.r_minor == round(200 / 3**0.5)


def test_theta_turns_from_x_towards_y():
  mask = np.eye(50, dtype=bool)  # from the top left to the bottom right
  assert blobs.fit('line', mask).theta == 45


@given(st.data())
def test_a_box_holds_its_mask_and_no_smaller_one_does(data):
  height, width = data.draw(st.integers(2, 40)), data.draw(st.integers(2, 40))
  y1, y2 = sorted(data.draw(st.tuples(*[st.integers(0, height - 1)] * 2)))
  x1, x2 = sorted(data.draw(st.tuples(*[st.integers(0, width - 1)] * 2)))
  mask = np.zeros((height, width), bool)
  mask[y1 : y2 + 1, x1 : x2 + 1] = True
  assert (boxes.around('x', mask).mask(height, width) == mask).all()


@pytest.mark.parametrize('measure', [boxes.around, blobs.fit])
def test_nothing_has_neither_box_nor_blob(measure):
  with pytest.raises(ValueError, match="mask of 'dog' is empty"):
    measure('dog', np.zeros((8, 8), bool))


@pytest.mark.parametrize('shape', [(4, 4), (64, 64), (37, 50), (5, 300)])
def test_colours_are_those_of_pillows_box_filter(shape):
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (*shape, 3), np.uint8)
  small = np.asarray(Image.fromarray(image).resize((4, 4), Image.BOX))
  expected = small.astype(int) // 32
  found = np.array([colors.rgb(i) for i in colors.of(image)]) // 32
  # Pillow rounds to whole levels, so a mean at a bin's edge may fall over it.
  assert (found == expected.reshape(16, 3)).mean() > 0.9
  assert abs(found - expected.reshape(16, 3)).max() <= 1


@pytest.mark.parametrize('size', [4, 7, 30, 64, 333])
def test_the_ends_of_the_scale_are_the_first_and_the_last_bin(size):
  black, white = np.zeros((size, size, 3)), np.full((size, size, 3), 255)
  assert colors.of(black.astype(np.uint8)) == (0,) * 16
  assert colors.of(white.astype(np.uint8)) == (511,) * 16


def test_colour_ids_read_red_green_blue_row_by_row():
  image = np.zeros((8, 8, 3), np.uint8)
  image[:2, 2:4] = (255, 0, 0)
  image[2:4, :2] = (0, 0, 255)
  ids = colors.of(image)
  assert ids[1] == 7 * 64 and ids[4] == 7 and sum(ids) == 7 * 64 + 7


def test_a_cell_belongs_to_whoever_covers_half_of_it():
  a, b = np.zeros((2, 64, 64), bool)
  a[8:16, 8:20] = True  # one cell, and half of the next
  b[16:24, 8:11] = True  # three of eight columns of a cell
  rows = layout.of([a, b])
  assert rows[1] == '.aa.....' and rows[2] == '........'
  assert layout.of([]) == ('........',) * 8


def test_a_layout_of_any_size_is_eight_by_eight():
  mask = np.ones((33, 50), bool)
  assert layout.of([mask]) == ('a' * 8,) * 8
  assert layout.of([np.ones((4, 5), bool)]) == ('a' * 8,) * 8


def test_escapes_are_as_few_as_can_be():
  assert words.escape('50% off, 100 %') == '50% off, 100 %'
  assert words.escape('a|b (c) #1 [d]') == 'a%7Cb %28c%29 %231 %5Bd%5D'
  assert words.escape('%7C') == '%257C' and words.unescape('%257C') == '%7C'
  assert words.unescape('50%20off') == '50%20off'  # nobody's code


def test_only_whole_words_change_sides():
  text = 'Left of the RIGHT one, leftover, the leftmost and bright'
  mirrored = 'Right of the LEFT one, leftover, the rightmost and bright'
  assert words.mirror(text) == mirrored
  assert words.mirror('LeFt rıght') == 'LeFt rıght'


def test_boxes_and_blobs_are_drawn_where_they_are():
  box = Box(label='x', x1=0, y1=500, x2=1000, y2=1000)
  mask = box.mask(10, 10)
  assert mask[5:].all() and not mask[:5].any()


def test_a_kind_with_lines_writes_the_nearest_of_them():
  """Every side moves by half a line at most, and on lines nothing moves."""
  kind = dataclasses.replace(boxes.BOXES, lines=32)
  box = Box(label='x', x1=100, y1=0, x2=407, y2=1000)
  (written,), problems = kind.parse(kind.encode((box,)))
  assert not problems
  assert (written.x1, written.y1, written.x2, written.y2) == (94, 0, 406, 1000)
  assert kind.encode((written,)) == kind.encode((box,))
  assert len({box.snapped(32).x2 for box in all_widths()}) == 33


def all_widths():
  return [Box(label='x', x1=0, y1=0, x2=x, y2=0) for x in range(1001)]


@given(
  st.builds(
    lambda xc, yc, radii, theta: Blob(
      label='x',
      xc=xc,
      yc=yc,
      r_major=max(radii),
      r_minor=min(radii),
      theta=theta,
    ),
    *(st.integers(0, 1000),) * 2,
    st.tuples(*(st.integers(0, 1000),) * 2),
    st.integers(0, 179),
  )
)
def test_a_blob_on_lines_is_near_to_where_it_was(blob):
  kind = dataclasses.replace(blobs.BLOBS, lines=32)
  (written,), problems = kind.parse(kind.encode((blob,)))
  assert not problems
  assert kind.encode((written,)) == kind.encode((blob,))
  assert math.dist((blob.xc, blob.yc), (written.xc, written.yc)) <= 24
  for name in ('r_major', 'r_minor'):
    was, now = getattr(blob, name), getattr(written, name)
    assert now >= 16 and abs(now - max(was, 16)) <= 8
  turned = abs(blob.theta - written.theta)
  assert min(turned, 180 - turned) <= 7
