"""What emoji are called, whose they are, and who is held out."""

import numpy as np
import pytest

from kaleido_jax.data.emoji import (
  joining,
  naming,
  rendering,
  vendors,
)

SIZE = 32


def test_every_real_style_leaves_room_for_words():
  assert len({each.style for each in vendors.SETS}) == len(vendors.SETS)
  assert all(len(each.style.split()) <= 5 for each in vendors.SETS)


def test_a_long_caption_labels_by_its_head():
  def label(caption):
    drawing = rendering.Drawing(
      key='',
      art='',
      mirrored=False,
      size=8,
      caption=caption,
      tags=(),
      style='',
      fields={},
    )
    image, mask = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)
    return rendering.describe(drawing, image, mask).boxes[0].label

  assert label('family: man, woman, boy') == 'family'
  assert label('grinning face with sweat') == 'grinning face'
  assert label('watch') == 'watch'


def test_corrections_and_names_in_order():
  data = [
    {'label': 'cat', 'hexcode': '1F408', 'group': 3},
    {'label': 'cat face', 'hexcode': '1F431', 'group': 3},
    {'label': 'musical keyboard', 'hexcode': '1F3B9', 'group': 7},
    {'label': 'keyboard', 'hexcode': '2328', 'group': 7},
  ]
  known = naming.meanings(data)
  others = ({'aliases': {'pussy': {'parent': 'kitty'}}}, {'1f431': 'kitty'})
  meant = naming.names(known, [others])
  assert meant['pussy'] == meant['kitty'] == '1f431'
  icons = {'icons': {name: {} for name in ('cat', 'keyboard')}}
  assert [*naming.by_name(known, meant, 'fxemoji', icons)] == [
    naming.Design('1f431', 'cat')
  ]
  assert [*naming.by_name(known, meant, 'other', icons)] == [
    naming.Design('1f408', 'cat'),
    naming.Design('2328', 'keyboard'),
  ]


def test_a_tenth_of_captions_is_held_out():
  count = 20_000
  held_out = sum(
    joining.split_of(f'caption {i}') == 'test' for i in range(count)
  )
  # Five standard deviations of a binomial.
  assert abs(held_out / count - 0.1) < 5 * (0.09 / count) ** 0.5


def test_permissive_sets_ask_for_no_share_alike():
  assert vendors.chosen('all') == vendors.SETS
  left = {s.name for s in vendors.SETS} - {
    s.name for s in vendors.chosen('permissive')
  }
  assert left == {'openmoji', 'emojione-v1'}
  with pytest.raises(ValueError, match='not one of'):
    vendors.chosen('free')
