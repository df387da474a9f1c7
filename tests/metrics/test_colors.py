"""Colours that are as said, counted by hand."""

import numpy as np
import pytest

from kaleido_jax.latents import colors as kind
from kaleido_jax.metrics import colors


def test_squares_are_counted_by_how_near_their_colour_is():
  """Of bin 3, 4, 0: red 96 to 127, green 128 to 159, blue up to 31."""
  said = (64 * 3 + 8 * 4,) * 16
  assert kind.rgb(said[0]) == (112, 144, 16)
  image = np.full((32, 32, 3), (112, 144, 16), np.uint8)
  assert colors.match(said, image) == 1
  image[:8, :8] = 144, 112, 48  # a bin off in all of them: as near as can be
  assert colors.match(said, image) == 1
  image[:8, :8] = 145, 144, 16  # and one level more, in red alone
  image[24:, 16:] = 0, 0, 0
  assert colors.match(said, image) == 13 / 16


def test_a_picture_has_its_own_colours():
  image = np.random.default_rng(0).integers(256, size=(20, 28, 3), dtype='u1')
  assert colors.match(kind.of(image), image) == 1
  with pytest.raises(ValueError, match='15 colours are said of 16 squares'):
    colors.match(kind.of(image)[1:], image)
