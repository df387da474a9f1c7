"""Batches: a function of seed and step, and of nothing else."""

import itertools
import multiprocessing
import os
import pathlib
import sys
import time

import numpy as np
import pytest

from kaleido_jax.data import pipeline, reading
from kaleido_jax.data.example import BadRecord, Example
from kaleido_jax.data.recipe import Recipe
from kaleido_jax.latents import Box, Latents, boxes
from kaleido_jax.latents.tokens import Vocabulary

LENGTHS = {'text': 16, 'bbox': 32, 'color': 16}


class Squares:
  """A white square at a place of its own in each picture."""

  kinds = ('text', 'bbox')
  fingerprint = 'squares'

  def __init__(self, length=50, bad=()):
    self._length, self._bad = length, dict.fromkeys(bad, 'truncated')

  def __len__(self):
    return self._length

  def __getitem__(self, index):
    if index in self._bad:
      raise BadRecord(self._bad[index], str(index), 'half of it is missing')
    image = np.zeros((16, 16, 3), np.uint8)
    image[0, 0, 1] = 90  # or some pictures would be their own mirror images
    row, column = divmod(index, 7)
    image[row + 1 : row + 5, column : column + 4] = 255
    return Example(
      key=str(index),
      image=image,
      caption=f'square {index} on the left',
      latents=Latents(
        text=f'number {index}', bbox=[boxes.around('it', image[..., 0] > 0)]
      ),
    )


class Confessing(Squares):
  """Tells in its caption whether this process asked for devices."""

  def __getitem__(self, index):
    bridge = sys.modules.get('jax._src.xla_bridge')
    touched = bridge is not None and bool(bridge._backends)
    worker = f'{os.environ["JAX_PLATFORMS"]} {touched}'
    return super().__getitem__(index)._replace(caption=worker)


def recipe(**options):
  kinds = options.pop('kinds', ('text', 'bbox', 'color'))
  return Recipe(
    vocabulary=Vocabulary(kinds=kinds),
    caption_length=12,
    lengths=LENGTHS,
    size=16,
    **options,
  )


def batches(source=None, count=4, *, made=None, **options):
  options = {'batch_size': 8, 'seed': 3} | options
  found = pipeline.batches(source or Squares(), made or recipe(), **options)
  taken = list(itertools.islice(found, count))
  found.close()
  return taken


def same(a, b):
  assert a.keys == b.keys
  assert a.arrays.keys() == b.arrays.keys()
  for name in a.arrays:
    np.testing.assert_array_equal(a.arrays[name], b.arrays[name])


@pytest.mark.parametrize('num_parts', [2, 4])
def test_any_number_of_processes_makes_the_same_batches(num_parts):
  """Same examples, rows and augmentations, over more than an epoch."""
  made = recipe(flip=True)
  whole = batches(count=9, made=made)
  parts = [
    batches(count=9, made=made, parts=(p,), num_parts=num_parts)
    for p in range(num_parts)
  ]
  for batch, *shares in zip(whole, *parts, strict=True):
    assert batch.keys == tuple(k for share in shares for k in share.keys)
    for name, array in batch.arrays.items():
      joined = np.concatenate([share.arrays[name] for share in shares])
      np.testing.assert_array_equal(array, joined)


def test_parts_that_are_no_neighbours_are_read_in_order():
  whole = batches(count=2)
  for batch, mine in zip(
    whole, batches(count=2, parts=(0, 3), num_parts=4), strict=True
  ):
    assert mine.keys == batch.keys[:2] + batch.keys[6:]
    np.testing.assert_array_equal(
      mine.arrays['image'], batch.arrays['image'][[0, 1, 6, 7]]
    )


def test_a_jump_is_a_run():
  made = recipe(flip=True)
  run = batches(count=12, made=made)
  jumped = batches(first=7, count=5, made=made)
  for batch, other in zip(run[7:], jumped, strict=True):
    same(batch, other)


def test_worker_processes_change_nothing():
  alone = batches(count=5)
  for a, b in zip(alone, batches(count=5, num_workers=2), strict=True):
    same(a, b)


def test_workers_never_touch_an_accelerator(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')  # as on a machine that has one
  (batch,) = batches(Confessing(), count=1, num_workers=1)
  vocabulary = Vocabulary()
  assert {vocabulary.decode(row) for row in batch.arrays['ids']} == {
    'cpu False'
  }


def feed(pipe) -> None:
  """A trainer: says who its workers are, and reads no more."""
  found = pipeline.batches(
    Squares(), recipe(), batch_size=8, seed=3, num_workers=1
  )
  next(found)
  pipe.send([child.pid for child in multiprocessing.active_children()])
  time.sleep(60)


def is_running(pid: int) -> bool:
  """And not only remembered by whoever should have asked for its end."""
  status = pathlib.Path(f'/proc/{pid}/stat')
  return status.exists() and status.read_text().split(') ')[1][0] != 'Z'


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_workers_end_with_a_trainer_that_is_killed():
  spawn = multiprocessing.get_context('spawn')
  ours, theirs = spawn.Pipe()
  trainer = spawn.Process(target=feed, args=(theirs,))
  trainer.start()
  assert ours.poll(120)
  workers = ours.recv()
  assert workers and all(map(is_running, workers))
  trainer.kill()
  trainer.join()
  end = time.monotonic() + 20
  while any(map(is_running, workers)) and time.monotonic() < end:
    time.sleep(0.1)
  assert not any(map(is_running, workers))


def test_an_epoch_has_every_example_once_and_the_next_another_order():
  epochs = [
    [
      key
      for batch in batches(count=5, first=f, batch_size=10)
      for key in batch.keys
    ]
    for f in (0, 5)
  ]
  assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(map(str, range(50)))
  assert epochs[0] != epochs[1]


def test_another_seed_is_another_order():
  assert batches(seed=1)[0].keys != batches(seed=2)[0].keys


def test_augmentations_differ_between_epochs_but_not_between_runs():
  made = recipe(flip=True)

  def flipped(first):
    found = {}
    for batch in batches(count=5, first=first, batch_size=10, made=made):
      for key, image in zip(batch.keys, batch.arrays['image'], strict=True):
        plain = Squares()[int(key)].image
        found[key] = not np.array_equal(image, plain)
    return found

  once, twice = flipped(0), flipped(5)
  assert 10 < sum(once.values()) < 40
  assert once != twice and once == flipped(0)


def test_a_flip_mirrors_picture_boxes_words_and_colours_alike():
  made = recipe(flip=True)
  vocabulary = made.vocabulary
  seen = set()
  for batch in batches(count=3, made=made):
    columns = (batch.arrays[name] for name in ('image', 'z', 'ids'))
    for image, z, ids in zip(*columns, strict=True):
      latents, problems = Latents.parse(vocabulary.decode(z), vocabulary.kinds)
      assert not problems
      assert latents.boxes == (boxes.around('it', image[..., 0] > 0),)
      caption = vocabulary.decode(ids)
      plain = Squares()[int(caption.split()[1])].image
      mirrored = not np.array_equal(plain, image)
      assert caption.endswith('right' if mirrored else 'left')
      seen.add(mirrored)
  assert seen == {True, False}


def test_vokens_from_a_store_and_flips_are_refused():
  with pytest.raises(ValueError, match='vokens of a store cannot be mirrored'):
    recipe(kinds=('voken',), flip=True)


def test_a_batch_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match='batch_size=8.*3 parts'):
    batches(num_parts=3)


def test_bad_records_are_replaced_by_the_same_others_counted_and_named():
  source = Squares(bad=(3, 4, 5, 17))
  first, again = (batches(source, count=5, batch_size=10) for _ in range(2))
  for a, b in zip(first, again, strict=True):
    same(a, b)
  bad = [record for batch in first for record in batch.bad]
  assert {record.key for record in bad} == {'3', '4', '5', '17'}
  assert {record.reason for record in bad} == {'truncated'}
  keys = [key for batch in first for key in batch.keys]
  assert not set(keys) & {'3', '4', '5', '17'}
  assert len(keys) == 50


def test_a_run_of_damage_is_replaced_from_far_away():
  lost = range(1000, 2000)  # a shard, one of a hundred
  stands_in = {reading.stand_in(i, 1, 100_000) for i in lost}
  assert len(stands_in) == 1000
  assert len(stands_in & set(lost)) < 30  # ten by chance


def test_too_much_damage_stops_the_run_with_the_counts():
  tally = reading.Tally(max_share=0.01)
  broken = [BadRecord('truncated', str(i)) for i in range(10)]
  tally.add(100, broken)  # 10 of 1000 at the start are let pass
  with pytest.raises(RuntimeError, match=r'11 of 111 .*10 truncated, 1 empty'):
    tally.add(0, [BadRecord('empty', 'x')])
  assert tally.reasons == {'truncated': 10, 'empty': 1}


@pytest.mark.parametrize('length', [3, 23, 69, 587])
def test_every_record_has_stand_ins_other_than_itself(length):
  for index in range(length):
    tried = {reading.stand_in(index, attempt, length) for attempt in range(100)}
    assert len(tried) > 1


def test_nothing_readable_at_all_is_an_error_that_names_a_record():
  with pytest.raises(RuntimeError, match='none could be read; the first was'):
    reading.Replacing(Squares(bad=range(50)))[0]


def test_latents_that_are_cut_are_counted():
  made = Recipe(
    vocabulary=Vocabulary(kinds=('text',)),
    caption_length=12,
    lengths={'text': 1},
    size=16,
  )
  tally = reading.Tally(max_share=0.0)
  for _ in pipeline.counted(iter(batches(count=2, made=made)), tally):
    pass
  assert tally.cut == {'text': 16} and tally.read == 16


def test_prefetching_keeps_order_and_runs_ahead():
  put = []
  found = [pipeline.Batch(arrays={'i': np.array(i)}, keys=()) for i in range(9)]

  def take(arrays):
    put.append(int(arrays['i']))
    return arrays['i'] + 100

  ahead = pipeline.prefetch(iter(found), take, depth=3)
  assert next(ahead)[0] == 100
  assert [int(on_device) for on_device, _ in ahead] == list(range(101, 109))
  assert put == list(range(9))


def test_prefetching_passes_errors_on():
  def broken():
    yield pipeline.Batch(arrays={}, keys=())
    raise RuntimeError('the disk is gone')

  ahead = pipeline.prefetch(broken(), lambda arrays: arrays)
  next(ahead)
  with pytest.raises(RuntimeError, match='the disk is gone'):
    next(ahead)


def test_a_box_can_be_checked_by_eye():
  """The fixture itself: square 8 stands in row 2 to 6, column 1 to 5."""
  assert Squares()[8].latents.boxes == (
    Box(label='it', x1=62, y1=125, x2=312, y2=375),
  )
