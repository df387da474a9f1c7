"""Examples on disk."""

import json
import pathlib

import numpy as np
import pytest

from kaleido_jax.data import key_index, records


def write(folder, count=25, **options):
  rows = (
    {'key': f'k{i}', 'number': i, 'image': bytes([i])} for i in range(count)
  )
  records.write(folder, rows, kind='test', about={'note': 'x'}, **options)
  return records.Records(folder, kind='test', command='make it')


def test_records_come_back_in_order_over_shards(tmp_path):
  found = write(tmp_path / 'a', shard_size=10)
  assert len(found) == 25 and len(list((tmp_path / 'a').glob('*.array_record')))
  assert [found[i]['number'] for i in range(25)] == list(range(25))
  assert found.about['note'] == 'x' and found[7]['image'] == b'\x07'


def test_records_are_found_by_key(tmp_path):
  found = write(tmp_path / 'a')
  assert all(found.find(f'k{i}')['number'] == i for i in range(25))
  assert found.find('k99') is None


def test_two_keys_of_one_hash_are_told_apart(tmp_path, monkeypatch):
  monkeypatch.setattr(key_index, 'hash_of', lambda key: np.uint64(len(key)))
  found = write(tmp_path / 'a')
  assert all(found.find(f'k{i}')['number'] == i for i in range(25))
  assert found.find('k99') is None


def test_the_fingerprint_is_of_what_was_written(tmp_path):
  prints = {write(tmp_path / str(n), count=n).fingerprint for n in (3, 4)}
  assert len(prints) == 2


def test_a_writer_that_dies_leaves_nothing(tmp_path):
  def dying():
    yield {'key': 'a'}
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    records.write(tmp_path / 'a', dying(), kind='test', about={})
  assert not (tmp_path / 'a').exists()
  assert len(write(tmp_path / 'a')) == 25  # and does not stand in the way


def test_nothing_is_overwritten(tmp_path):
  write(tmp_path / 'a')
  with pytest.raises(ValueError, match='exists; remove it'):
    write(tmp_path / 'a')


def test_an_empty_set_is_refused(tmp_path):
  with pytest.raises(ValueError, match='nothing to write'):
    write(tmp_path / 'a', count=0)


def test_what_is_there_is_plain_to_read(tmp_path):
  write(tmp_path / 'a', shard_size=10)
  about = json.loads((tmp_path / 'a/about.json').read_text())
  assert about == {
    'kind': 'test',
    'count': 25,
    'shards': [10, 10, 5],
    'note': 'x',
  }


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
  monkeypatch.setattr(records, 'MAX_OPEN_FILES', 3)
  found = write(tmp_path / 'a', count=40, shard_size=2)
  rng = np.random.default_rng(0)
  for i in rng.integers(0, 40, 200).tolist():
    assert found[i]['number'] == i
  assert found._open.cache_info().currsize == 3
  with pytest.raises(IndexError, match='no record 40 of 40'):
    found[40]


def test_empty_shards_are_no_gap(tmp_path):
  unfinished = records.Unfinished(tmp_path / 'a')
  for shard, keys in enumerate(['', 'ab', '', 'c', '']):
    unfinished.add(shard, [{'key': key} for key in keys])
  unfinished.finish(kind='test', about={})
  found = records.Records(tmp_path / 'a', kind='test', command='')
  assert [found[i]['key'] for i in range(3)] == list('abc')
  assert found.find('c') == {'key': 'c'}


@pytest.mark.parametrize('at', range(1, 9))
def test_killed_while_it_finishes_it_can_finish_again(
  tmp_path, monkeypatch, at
):
  """Dies at the n-th time that it touches the disk."""
  calls = [0]

  def dying(real):
    def step(*args, **options):
      calls[0] += 1
      if calls[0] == at:
        raise KeyboardInterrupt
      return real(*args, **options)

    return step

  def unfinished():
    return records.Unfinished(tmp_path / 'a', inputs={'a': 1})

  first = unfinished()
  for shard in range(3):
    first.add(shard, [{'key': f'k{shard}'}] * (shard > 0))
  with monkeypatch.context() as patch:
    for name in ('rename', 'unlink', 'write_text'):
      real = getattr(pathlib.Path, name)
      patch.setattr(pathlib.Path, name, dying(real))
    try:
      first.finish(kind='test', about={})
    except KeyboardInterrupt:
      pass
  if not (tmp_path / 'a').exists():
    unfinished().finish(kind='test', about={})
  found = records.Records(tmp_path / 'a', kind='test', command='')
  assert [found[i]['key'] for i in range(len(found))] == ['k1', 'k2']


def test_two_may_finish_at_once(tmp_path):
  first = records.Unfinished(tmp_path / 'a')
  second = records.Unfinished(tmp_path / 'a')
  first.add(0, [{'key': 'a'}])
  second.add(1, [{'key': 'b'}])
  first.finish(kind='test', about={})
  assert len(records.Records(tmp_path / 'a', kind='test', command='')) == 2


def test_a_missing_shard_is_not_passed_over(tmp_path):
  unfinished = records.Unfinished(tmp_path / 'a')
  unfinished.add(1, [{'key': 'b'}])
  with pytest.raises(ValueError, match=r'lacks shards; it has \[1\]'):
    unfinished.finish(kind='test', about={})
