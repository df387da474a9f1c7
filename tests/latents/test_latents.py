"""Latents as objects and as strings."""

import dataclasses
import pickle
import re
import time

import drawn
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kaleido_jax.latents import (
  KINDS,
  Blob,
  Box,
  Latents,
  blobs,
  boxes,
  colors,
  layout,
)
from kaleido_jax.latents.vokens import Vokens

# Appendix A of the paper, as it is printed there.
GROUNDED = (
  "Dog (1, 33, 995, 995) resting head on owner's lap (1, 630, 785, 998) while "
  'they work on a laptop (39, 336, 999, 972).'
)
# Under test, beartype looks at a random item of every list.
pytestmark = pytest.mark.filterwarnings('ignore:Do not use the .random. module')

PICTURE = np.full((64, 64, 3), 200, np.uint8)


@pytest.mark.parametrize('kind', KINDS)
@given(data=st.data())
def test_every_kind_survives_its_string(kind, data):
  """For any printable text, separators, brackets and percent signs included."""
  value = KINDS[kind].freeze(data.draw(drawn.VALUES[kind]))
  string = KINDS[kind].encode(value)
  assert KINDS[kind].parse(string) == (value, [])


@given(drawn.latents())
def test_every_combination_survives_its_string(value):
  assert Latents.parse(value.to_string(), tuple(value)) == (value, [])
  assert Latents.from_strings(value.to_strings()) == value


@given(drawn.latents())
def test_kinds_are_joined_by_bars_and_free_text_has_none(value):
  assert value.to_string().count('|') == len(value) - 1


@settings(max_examples=300)
@given(
  st.one_of(st.text(), st.text('|#[](),.0123456789ab -', max_size=80)),
  st.lists(st.sampled_from(list(KINDS)), unique=True),
)
def test_any_string_parses_and_says_what_did_not(string, kinds):
  found, problems = Latents.parse(string, kinds)
  assert list(found) == kinds
  if not problems:  # then nothing was lost
    again, none = Latents.parse(found.to_string(), kinds)
    assert (again, none) == (found, [])


@given(drawn.latents([kind for kind in KINDS if kind != 'voken']))
def test_flipping_twice_changes_nothing(value):
  assert value.flip().flip() == value


def test_the_papers_grounded_caption_reads_and_writes_back_as_printed():
  value, problems = Latents.parse(GROUNDED, ('bbox',))
  assert not problems
  assert [box.label for box in value.boxes] == ['Dog', 'lap', 'laptop']
  assert value.boxes[1] == Box(label='lap', x1=1, y1=630, x2=785, y2=998)
  assert value.to_string() == GROUNDED


def test_the_papers_combination_is_text_boxes_vokens():
  value = Latents(text='a pug', bbox=[PUG], voken=range(32))
  string = value.to_string(('text', 'bbox', 'voken'))
  ids = '#'.join(map(str, range(32)))
  assert string == f'a pug | [pink pug] (10, 20, 300, 400) | {ids}'


PUG = Box(label='pink pug', x1=10, y1=20, x2=300, y2=400)


@pytest.mark.parametrize(
  'string, kinds, message',
  [
    ('(1, 2, 3)', ('bbox',), 'character 0.*3 numbers, not x1, y1, x2, y2'),
    ('a dog (1, 2, 3, 4000)', ('bbox',), 'character 2.*y2=4000, outside'),
    ('dog (9, 2, 3, 4)', ('bbox',), 'x1=9 right of x2=3'),
    ('dog (1, 9, 3, 4)', ('bbox',), 'y1=9 below y2=4'),
    ('dog (1, 2, 3, four)', ('bbox',), 'not a list of whole numbers'),
    ('dog (1, 2, 3, 4, 180)', ('blob',), 'theta=180, outside 0..179'),
    ('dog (1, 2, 3, 4, 0)', ('blob',), 'r_minor=4 longer than r_major=3'),
    ('1#two#3', ('color',), "character 2: 'two' is no id of 0..511"),
    ('1#600#3', ('color',), "'600' is no id of 0..511"),
    ('1#2#3', ('color',), 'has 3 ids, not 16'),
    ('....', ('layout',), '4 cells long, not 8'),
    ('.......z', ('layout',), 'letters other than'),
    ('a | b', ('text',), "'b' is more than"),
    ('abc', (), "'abc' is more than"),
    ('Dog (1, 33, 995, 995 resting', ('bbox',), 'bracket of no object'),
    ('[pink pug (1, 2, 3, 4)', ('bbox',), 'character 0.*bracket of no object'),
    ('dog [1, 2, 3, 4]', ('bbox',), 'character 4.*bracket of no object'),
    ('a dog (brown)', ('bbox',), 'not a list of whole numbers'),
    ('dog (١, 2, 3, 4)', ('bbox',), 'not a list of whole numbers'),
    ('a', ('text', 'color'), 'color, character 0.*is missing'),
  ],
)
def test_what_is_wrong_is_said_with_its_place(string, kinds, message):
  _, problems = Latents.parse(string, kinds)
  assert any(re.search(message, str(problem)) for problem in problems)
  with pytest.raises(ValueError, match=message):
    Latents.from_string(string, kinds)


def test_malformed_objects_are_kept_as_words():
  value, problems = Latents.parse(
    'a dog (1, 2) by a cat (1, 2, 3, 4)', ['bbox']
  )
  words, cat = value['bbox']
  assert words == 'a dog (1, 2) by a' and cat.label == 'cat'
  assert len(problems) == 1


def test_validate_names_what_a_typed_edit_broke():
  value = Latents(color=[0] * 15 + [512])
  with pytest.raises(ValueError, match="'512' is no id of 0..511"):
    value.validate()
  with pytest.raises(ValueError, match='text.*is missing'):
    Latents(color=[0] * 16).validate(('text', 'color'))
  assert Latents(text='fine').validate()


def test_blanks_before_the_numbers_do_not_lose_the_label():
  (dog,) = Latents.from_string('Dog   (1, 2, 3, 4)', ('bbox',)).boxes
  assert dog.label == 'Dog'


def test_a_very_long_word_is_read_in_time():
  started = time.perf_counter()
  Latents.parse('a' * 100_000 + ' (', ('bbox',))
  assert time.perf_counter() - started < 1


def test_a_string_is_no_list_of_segments():
  with pytest.raises(TypeError, match='Latents.parse'):
    Latents(bbox='a dog')


def test_an_impossible_box_cannot_be_made():
  with pytest.raises(ValueError, match='x1=5 right of x2=4'):
    Box(label='dog', x1=5, y1=0, x2=4, y2=9)
  with pytest.raises(TypeError, match='x1=True is not a whole number'):
    Box(label='dog', x1=True, y1=0, x2=4, y2=9)


def test_new_boxes_take_the_places_of_the_old():
  value, _ = Latents.parse(GROUNDED, ('bbox',))
  dog, lap, laptop = value.boxes
  moved = value.replace(boxes=[dog, PUG, laptop])
  assert moved.to_string() == GROUNDED.replace(
    'lap (1, 630, 785, 998)', '[pink pug] (10, 20, 300, 400)'
  )
  fewer = value.replace(boxes=[dog])
  assert fewer.boxes == (dog,) and 'resting head on' in fewer['bbox'][1]
  more = value.replace(boxes=[*value.boxes, PUG])
  assert more.boxes[-1] == PUG and more['bbox'][:-1] == value['bbox']
  with pytest.raises(TypeError, match='no .bokses.'):
    value.replace(bokses=[])


@given(drawn.boxes())
def test_boxes_can_be_added_to_latents_without(box):
  assert Latents(text='x').replace(boxes=[box])['bbox'] == (box,)


def test_upto_keeps_what_later_kinds_follow():
  value = Latents(text='a', bbox=[PUG], color=[0] * 16)
  assert list(value.upto('bbox')) == ['text', 'bbox']
  with pytest.raises(ValueError, match='no blob'):
    value.upto('blob')


def test_a_mirrored_picture_has_mirrored_latents():
  image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
  mask = blobs.Blob(
    label='', xc=300, yc=450, r_major=260, r_minor=110, theta=30
  ).mask(40, 40)

  def seen(image, mask):
    return Latents(
      text='on the left'
      if mask[:, :20].sum() > mask[:, 20:].sum()
      else 'on the right',
      bbox=[boxes.around('dog', mask)],
      blob=[blobs.fit('dog', mask)],
      color=colors.of(image),
      layout=layout.of([mask]),
    )

  there = seen(image[:, ::-1], mask[:, ::-1])
  assert seen(image, mask).flip() == there


def test_vokens_refuse_to_be_mirrored():
  with pytest.raises(ValueError, match='vokens cannot be mirrored'):
    Latents(voken=range(32)).flip()


def test_another_codebook_is_handed_in_as_a_kind():
  small = Vokens(pieces=16, count=4)
  value, problems = Latents.parse('1#2#3#15', (small,))
  assert value.vokens == (1, 2, 3, 15) and not problems
  assert Latents.parse('1#2#3#16', (small,))[1]


def test_an_overlay_draws_on_a_copy_and_enlarges_small_pictures():
  before = PICTURE.copy()
  value = Latents(bbox=[Box(label='', x1=250, y1=250, x2=750, y2=750)])
  drawn = value.overlay(PICTURE)
  assert drawn.shape == (256, 256, 3) and (PICTURE == before).all()
  changed = (drawn != 200).any(-1)
  edge = [64, 191]  # 250 and 750 thousandths of 255
  assert changed[128, edge].all() and changed[edge, 128].all()
  assert not changed[128, 128] and not changed[20, 20]


def test_an_overlaid_ellipse_follows_the_edge_of_its_mask():
  blob = Blob(label='', xc=500, yc=480, r_major=330, r_minor=150, theta=40)
  drawn = Latents(blob=[blob]).overlay(PICTURE, enlarge=6)
  ink = (drawn == (0xD5, 0x5E, 0x00)).all(-1)
  larger, smaller = (
    dataclasses.replace(blob, r_major=330 + by, r_minor=150 + by)
    for by in (12, -12)
  )
  ring = larger.mask(384, 384) & ~smaller.mask(384, 384)
  assert ink.sum() > 1000 and (ring & ink).sum() == ink.sum()


@given(drawn.latents())
@settings(max_examples=40)
def test_whatever_there_is_can_be_drawn(value):
  assert value.overlay(PICTURE).shape == (256, 256, 3)


def test_print_reads_well():
  value = Latents(text='a pug', bbox=[PUG])
  assert str(value) == 'text  a pug\nbbox  [pink pug] (10, 20, 300, 400)'


def test_latents_are_values():
  value = Latents(text='a', bbox=[PUG])
  assert pickle.loads(pickle.dumps(value)) == value
  assert hash(value) == hash(Latents(bbox=[PUG], text='a'))
  with pytest.raises(TypeError):
    value['text'] = 'b'
  with pytest.raises(AttributeError, match='latents.replace'):
    value.text = 'b'
  with pytest.raises(AttributeError, match='no color in these latents'):
    _ = value.colors
  with pytest.raises(ValueError, match="'depth' is no kind"):
    Latents(depth='1')
