"""The shapes source."""

import dataclasses
import pickle
import re
import time

import numpy as np
import pytest

from kaleido_jax.data.shapes import Shapes, drawing, wording
from kaleido_jax.latents import Latents, blobs, colors, layout

KINDS = ('text', 'bbox', 'blob', 'color', 'layout')


def test_reading_twice_gives_the_same():
  one, two = Shapes(), pickle.loads(pickle.dumps(Shapes()))
  for index in (0, 5, 2**31 - 2):
    a, b = one[index], two[index]
    np.testing.assert_array_equal(a.image, b.image)
    assert (a.key, a.caption, a.latents) == (b.key, b.caption, b.latents)


def test_splits_and_seeds_have_nothing_in_common():
  others = Shapes(split='test'), Shapes(split='crowded'), Shapes(seed=1)
  sources = [Shapes(), *others]
  # Not poses: where nothing random fits, things have fixed places.
  scenes = [{s.scene(i).backdrop for i in range(300)} for s in sources]
  assert len(set.union(*scenes)) == 1200
  assert len({source.fingerprint for source in sources}) == 4
  keys = {source[i].key for source in sources for i in range(10)}
  assert len(keys) == 40


def test_a_crowded_split_names_the_colours_of_several_things():
  several = {}
  for split in ('train', 'crowded'):
    source = Shapes(split=split)
    scenes = [source.scene(i) for i in range(600)]
    several[split] = np.mean(
      [
        len(scene.said.things) > 1 and all(t.colour for t in scene.said.things)
        for scene in scenes
      ]
    )
  # Several things in 40 and 75 of 100, all with their colours in 33 and 60.
  assert several['train'] == pytest.approx(0.132, abs=0.05)
  assert several['crowded'] == pytest.approx(0.45, abs=0.07)


@pytest.mark.parametrize('size', [32, 48, 64, 128])
def test_any_size_shows_the_same_scenes(size):
  small, usual = Shapes(size=size), Shapes(size=64)
  assert small.fingerprint != usual.fingerprint or size == 64
  for index in range(20):
    a, b = small[index], usual[index]
    assert a.image.shape == (size, size, 3) and a.image.dtype == np.uint8
    assert (a.caption, a.latents.text) == (b.caption, b.latents.text)


def test_only_the_asked_kinds_are_there():
  for kinds in (KINDS, ('blob', 'text'), ()):
    source = Shapes(kinds=kinds)
    assert source.kinds == kinds
    assert tuple(source[3].latents) == kinds


def test_kinds_that_it_does_not_know_are_left_to_a_store():
  source = Shapes(kinds=('text', 'voken'))
  assert source.kinds == ('text',)
  assert tuple(source[0].latents) == ('text',)


def test_latents_survive_being_written():
  source = Shapes()
  for index in range(200):
    latents = source[index].latents
    written = latents.to_string(KINDS)
    assert Latents.parse(written, KINDS) == (latents, [])


def test_objects_are_named_in_a_row():
  source = Shapes(kinds=('bbox',))
  strings = {}
  for index in range(60):
    things = source.scene(index).facts.things
    strings[len(things)] = source[index].latents.to_string()
    assert [box.label for box in source[index].latents.boxes] == [
      f'{thing.colour} {thing.shape}' for thing in things
    ]
  box = r'\[\w+ \w+\] \(\d+, \d+, \d+, \d+\)'
  for count, form in {1: f'{box}', 2: f'{box} and {box}'}.items():
    assert re.fullmatch(form, strings[count])


def test_measured_latents_are_of_the_picture():
  source = Shapes()
  for index in range(50):
    example, scene = source[index], source.scene(index)
    drawn = drawing.draw(scene, 64)
    masks = [drawn.mask(n) for n in range(len(scene.poses))]
    assert example.latents.colors == colors.of(example.image)
    assert example.latents.layout == layout.of(masks)
    assert wording.read(example.caption) == scene.said


def test_words_say_everything_but_what_boxes_say():
  told, left = Shapes(kinds=('text', 'color')), Shapes(kinds=('text', 'bbox'))
  for index in range(50):
    facts = told.scene(index).facts
    assert wording.read_text(told[index].latents.text) == facts
    rest = wording.read_text(left[index].latents.text)
    things = [
      dataclasses.replace(thing, place=None, size='medium')
      for thing in facts.things
    ]
    assert rest == dataclasses.replace(facts, things=tuple(things))


def test_a_blob_of_the_outline_is_the_blob_of_its_pixels():
  """The closed form agrees with fitting the mask."""
  source = Shapes(size=256, kinds=('blob',))
  for index in range(100):
    drawn = drawing.draw(source.scene(index), 256)
    for n, blob in enumerate(source[index].latents.blobs):
      fitted = blobs.fit(blob.label, drawn.mask(n))
      for name in ('xc', 'yc', 'r_major', 'r_minor'):
        assert abs(getattr(blob, name) - getattr(fitted, name)) <= 4
      if blob.r_major > 1.15 * blob.r_minor:
        turn = abs(blob.theta - fitted.theta) % 180
        assert min(turn, 180 - turn) <= 3


def test_a_split_or_an_index_that_is_not_there_is_refused():
  with pytest.raises(ValueError, match="split='val'"):
    Shapes(split='val')
  source = Shapes()
  assert len(source) == 2**31 - 1
  for index in (-1, len(source)):
    with pytest.raises(IndexError):
      source[index]


def test_a_picture_takes_no_time_to_speak_of():
  """Far from the two thousand a second of `benchmarks/data.py`, since types are
  checked here and cores are shared; but nothing is slow by a factor."""
  source = Shapes()
  source[0]
  started = time.process_time()
  for index in range(100):
    source[index]
  assert time.process_time() - started < 1
