"""What a model writes it can read again, whatever it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaleido_jax.latents import Latents, colors
from kaleido_jax.latents.tokens import Vocabulary
from kaleido_jax.reading import Reader

WORDS = Vocabulary('shapes', kinds=('text', 'bbox', 'color'))
COLORS = '#'.join(['7'] * 16)


@given(
  st.text(max_size=60),
  st.text('ab (),[]0123456789%|\x00\ufffdé☃', max_size=60),
  st.integers(1, 12),
)
def test_whatever_it_wrote(text, boxes, length):
  reader = Reader('m', WORDS, {'text': length, 'bbox': length, 'color': 16})
  found = reader.latents(f'{text} | {boxes} | {COLORS}')
  assert list(found) == ['text', 'bbox', 'color']
  if len(found.colors) == colors.GRID**2:  # text may have bars of its own
    z = reader.tokens(found)
    assert reader.latents(WORDS.decode(z)) == found
    assert len(z) == 2 * length + 16 + 3


@pytest.mark.parametrize(
  'latents',
  [
    Latents(text='a ' * 40, bbox=(), color=(1,) * 16),
    Latents(text='a ☃', bbox=(), color=(1,) * 16),
    Latents(text='a', bbox=(), color=(1,) * 15),
  ],
)
def test_what_it_could_not_read_is_refused(latents):
  reader = Reader('m', WORDS, {'text': 9, 'bbox': 9, 'color': 16})
  with pytest.raises(ValueError, match='longer than|vocabulary|15 ids'):
    reader.tokens(latents)


def test_half_a_layout_is_filled_up():
  words = Vocabulary('shapes', kinds=('layout',))
  reader = Reader('m', words, {'layout': 200})
  found = reader.latents('/'.join(['aa......'] * 6 + ['x']))
  assert found.layout == ('aa......',) * 6 + ('........',) * 2
  found.validate()
  assert reader.latents(words.decode(reader.tokens(found))) == found


def test_a_prefix_of_nothing_is_none():
  reader = Reader('m', WORDS, {'text': 9, 'bbox': 9, 'color': 16})
  np.testing.assert_array_equal(reader.prefix(Latents()), reader.prefix(None))


def test_what_is_too_long_is_shortened_and_not_lost():
  reader = Reader('m', WORDS, {'text': 9, 'bbox': 9, 'color': 16})
  words = 'a red circle and a blue square and a green circle'
  found = reader.latents(f'{words} |  | {COLORS}#7')
  assert found.text and words.startswith(found.text)
  assert len(WORDS.encode(found.text)) >= 7
  assert found.colors == (7,) * 16
