"""Examples on disk."""

import json

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
