"""The judge of pictures, against pictures whose contents are known."""

import numpy as np
import pytest

from kaleido_jax.data.emoji import seeing as seeing_emoji
from kaleido_jax.data.shapes import Shapes, seeing
from kaleido_jax.data.shapes.drawing import GROUNDS
from kaleido_jax.metrics import placed


@pytest.mark.parametrize('size', [32, 64])
def test_what_is_drawn_is_seen(size):
  source = Shapes(size=size, split='test', kinds=())
  right = total = 0
  for index in range(24):
    left = [(t.shape, t.colour) for t in source.scene(index).facts.things]
    total += len(left)
    for seen in seeing.things(source[index].image):
      if (seen.shape, seen.colour) in left:
        left.remove((seen.shape, seen.colour))
        right += 1
        assert seen.fit > 0.6
  assert right >= 0.95 * total


def test_things_are_told_from_left_to_right():
  source = Shapes(size=32, split='test', kinds=('bbox',))
  checked = 0
  for index in range(40):
    example = source[index]
    boxes = sorted(example.latents.boxes, key=lambda box: box.x1 + box.x2)
    seen = seeing.things(example.image)
    middles = {box.x1 + box.x2 for box in boxes}
    if len(middles) == 2 == len(seen):
      labels = [f'{one.colour} {one.shape}' for one in seen]
      assert labels == [box.label for box in boxes]
      checked += 1
  assert checked >= 10


def test_things_are_where_their_boxes_and_blobs_are():
  source = Shapes(size=32, split='test', kinds=('bbox', 'blob'))
  boxes, blobs = [], []
  for index in range(40):
    example = source[index]
    seen = {s.box.label: s for s in seeing.things(example.image)}
    for box, blob in zip(
      example.latents.boxes, example.latents.blobs, strict=True
    ):
      if box.label in seen:
        boxes.append(placed.box_iou(seen[box.label].box, box))
        blobs.append(placed.blob_iou(seen[box.label].blob, blob))
  assert len(boxes) > 50
  assert np.mean(boxes) > 0.85 and np.mean(blobs) > 0.85


def test_the_tone_of_the_background_is_seen():
  source = Shapes(size=32, split='test', kinds=())
  right = [
    seeing.tone(source[i].image) == source.scene(i).facts.tone
    for i in range(60)
  ]
  assert np.mean(right) > 0.95


@pytest.mark.parametrize('tone', list(GROUNDS))
def test_nothing_is_seen_where_nothing_is(tone):
  picture = np.empty((32, 32, 3), np.uint8)
  picture[:], picture[::3] = GROUNDS[tone]
  assert seeing.things(picture) == [] == seeing.places(picture)


def test_an_emoji_is_all_that_is_not_white():
  """Neither faint noise on its ground, nor a speck; both eyes of a face."""
  random = np.random.default_rng(0)
  picture = random.integers(230, 256, (32, 32, 3)).astype(np.uint8)
  thing = np.zeros((32, 32), bool)
  thing[4:10, 3:9] = thing[20:30, 15] = True
  picture[thing] = (255, 200, 0)
  picture[1, 30:32] = 0
  (seen,) = seeing_emoji.places(picture)
  np.testing.assert_array_equal(seen, thing)
  assert seeing_emoji.places(np.full((32, 32, 3), 240, np.uint8)) == []
