"""Places against areas that are known without them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleido_jax.latents import Blob, Box
from kaleido_jax.metrics import placed

SIDES = st.tuples(*[st.integers(0, 60)] * 4).map(
  lambda s: (*sorted(s[:2]), *sorted(s[2:]))
)


def box(x1, x2, y1, y2):
  return Box(label='a', x1=x1, y1=y1, x2=x2, y2=y2)


def cells(x1, x2, y1, y2):
  """Unit squares of a rectangle."""
  return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@given(SIDES, SIDES)
def test_boxes_share_unit_squares(a, b):
  together = cells(*a) | cells(*b)
  expected = len(cells(*a) & cells(*b)) / len(together) if together else 0
  assert placed.box_iou(box(*a), box(*b)) == pytest.approx(expected)


@pytest.mark.parametrize('scale', [1.0, 0.5, 0.3])
def test_an_ellipse_inside_another_shares_the_ratio_of_their_areas(scale):
  def blob(factor):
    return Blob(
      label='a',
      xc=500,
      yc=450,
      r_major=round(400 * factor),
      r_minor=round(300 * factor),
      theta=30,
    )

  found = placed.blob_iou(blob(1), blob(scale))
  np.testing.assert_allclose(found, scale**2, atol=0.005)


@pytest.mark.parametrize('thin', [0, 1, 3])
def test_the_thinnest_ellipses_are_seen(thin):
  def blob(xc, theta=45):
    return Blob(
      label='a', xc=xc, yc=500, r_major=300, r_minor=thin, theta=theta
    )

  assert placed.blob_iou(blob(400), blob(400)) > 0.99
  assert placed.blob_iou(blob(400), blob(500)) == 0
  assert placed.blob_iou(blob(400), blob(400, 135)) < 0.02


def test_places_go_together_as_well_as_they_can():
  """Boxes of 10 x 10: one at 0; one at 5, of which a third is shared."""
  here, near, far = (box(x, x + 10, 0, 10) for x in (0, 5, 50))
  both = placed.match([here, far], [far, here], placed.box_iou)
  assert both == 1
  # 'near' would fit 'here' as well, but then 'here' had nothing.
  pairs = placed.match([near, here], [here, near], placed.box_iou)
  assert pairs == 1
  chain = placed.match([here, near], [near], placed.box_iou)
  assert chain == pytest.approx(1 / 2)
  third = placed.match([here], [near, far, far], placed.box_iou)
  assert third == pytest.approx(1 / 9)
  assert placed.match([], [], placed.box_iou) == 1
  assert placed.match([here], [], placed.box_iou) == 0


def test_ellipses_apart_and_in_part():
  """Circles of one size, their centres one radius apart: a lens."""
  one, other = (
    Blob(label='a', xc=x, yc=500, r_major=200, r_minor=200, theta=0)
    for x in (400, 600)
  )
  lens = 2 * np.pi / 3 - np.sqrt(3) / 2
  expected = lens / (2 * np.pi - lens)
  assert placed.blob_iou(one, other) == pytest.approx(expected, abs=0.003)
  assert placed.blob_iou(other, one) == placed.blob_iou(one, other)
