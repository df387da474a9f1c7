"""Tar shards in img2dataset's layout, written by Python's own tarfile."""

import concurrent.futures
import io
import json
import multiprocessing
import os
import pathlib
import pickle
import re
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from kaleido_jax.data import shards, tar, webdataset
from kaleido_jax.data.example import BadRecord
from kaleido_jax.data.webdataset import WebDataset


def jpeg(level: int, kind: str = 'JPEG') -> bytes:
  stream = io.BytesIO()
  Image.new('RGB', (20, 16), (level,) * 3).save(stream, kind)
  return stream.getvalue()


def write(path: pathlib.Path, files: dict[str, bytes], format=None) -> None:
  """As img2dataset: times have fractions, hence POSIX headers for each."""
  format = tarfile.PAX_FORMAT if format is None else format
  with tarfile.open(path, 'w', format=format) as file:
    for name, data in files.items():
      member = tarfile.TarInfo(name)
      member.size, member.mtime = len(data), 1700000000.25
      if format == tarfile.USTAR_FORMAT:
        member.mtime = 1700000000
      file.addfile(member, io.BytesIO(data))


def sample(number: int, caption: bytes | None = None, **files) -> dict:
  """The three members of a picture; `files` by suffix replace them."""
  key = f'{number:09d}'
  about = {'key': key, 'status': 'success', 'url': 'https://example.org/a'}
  members = {
    'jpg': jpeg(number % 200),
    'json': json.dumps(about).encode(),
    'txt': f'caption {number}'.encode() if caption is None else caption,
    **files,
  }
  return {f'{key}.{s}': d for s, d in members.items() if d is not None}


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  """Three shards of five, and what img2dataset leaves beside them."""
  home = tmp_path / 'cc12m'
  home.mkdir()
  for shard in range(3):
    files: dict = {}
    for n in range(5):
      files |= sample(shard * 10_000 + n)
    write(home / f'{shard:05d}.tar', files)
    (home / f'{shard:05d}_stats.json').write_text('{"count": 5}')
    (home / f'{shard:05d}.parquet').write_bytes(b'PAR1')
  return home


def read(source: WebDataset) -> dict[str, tuple[str, int]]:
  found = {}
  for index in np.random.default_rng(0).permutation(len(source)).tolist():
    one = source[index]
    found[one.key] = one.caption, int(one.image[0, 0, 0])
  return found


EXPECTED = {
  f'{number:09d}': (f'caption {number}', number % 200)
  for shard in range(3)
  for number in range(shard * 10_000, shard * 10_000 + 5)
}


def test_every_sample_is_read_in_any_order(folder):
  source = WebDataset(folder)
  assert len(source) == 15
  assert read(source) == EXPECTED
  assert source[0].key == '000000000' and not source[0].latents
  assert len(WebDataset(str(folder / '0000[12].tar'))) == 10


@pytest.mark.parametrize(
  'format', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
)
def test_members_are_where_tarfile_finds_them(tmp_path, format):
  names = ['a.jpg', 'folder/b.txt', 'long/' * 16 + 'n' * 60 + '.png']
  if format != tarfile.USTAR_FORMAT:
    names += ['x' * 300 + '.jpg', 'blé/été.jpg']
  path = tmp_path / 'a.tar'
  write(path, {n: b'.' * (700 * i) for i, n in enumerate(names)}, format)
  with tarfile.open(path) as file:
    expected = [(m.name, m.offset_data, m.size) for m in file]
  with open(path, 'rb') as file:
    assert list(map(tuple, tar.members(file.fileno()))) == expected


def test_the_index_is_built_once(folder, monkeypatch):
  first = WebDataset(folder)
  monkeypatch.setattr(shards, '_scan', lambda *_: 1 / 0)
  again = WebDataset(folder)
  assert read(again) == EXPECTED
  assert again.fingerprint == first.fingerprint


def test_a_changed_shard_is_indexed_anew(folder):
  before = WebDataset(folder)
  write(folder / '00001.tar', sample(10_000) | sample(10_007))
  after = WebDataset(folder)
  assert len(after) == 12 and '000010007' in read(after)
  assert after.fingerprint != before.fingerprint


def test_a_shard_of_the_same_size_is_indexed_anew_when_its_time_differs(folder):
  WebDataset(folder)
  path = folder / '00001.tar'
  size, time = path.stat().st_size, path.stat().st_mtime_ns
  write(path, {n.replace('0.', '5.'): d for n, d in sample(10_000).items()})
  with open(path, 'ab') as file:
    file.truncate(size)
  os.utime(path, ns=(time, time + 1))
  assert '000010005' in read(WebDataset(folder))


def test_a_copy_elsewhere_is_the_same_data(folder, tmp_path):
  shutil.copytree(
    folder, tmp_path / 'copy', ignore=lambda *_: ['.kaleido_index']
  )
  for path in (tmp_path / 'copy').iterdir():
    os.utime(path, (1, 1))
  copy = WebDataset(tmp_path / 'copy')
  assert copy.fingerprint == WebDataset(folder).fingerprint


def test_a_read_only_folder_has_its_index_in_the_cache(
  folder, tmp_path, monkeypatch
):
  """Root may write anywhere, hence a folder that cannot be made at all."""
  (folder / '.kaleido_index').write_text('in the way')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  assert read(WebDataset(folder)) == EXPECTED
  assert list((tmp_path / 'cache').rglob('samples.npy'))
  monkeypatch.setattr(shards, '_scan', lambda *_: 1 / 0)
  assert len(WebDataset(folder)) == 15


def damage_end(data: bytes) -> bytes:
  with tarfile.open(fileobj=io.BytesIO(data)) as file:
    member = file.getmember('000010003.jpg')
  return data[: member.offset_data + member.size // 2]


def damage_header(data: bytes) -> bytes:
  with tarfile.open(fileobj=io.BytesIO(data)) as file:
    at = file.getmember('000010003.jpg').offset
  return data[:at] + b'garbage!' + data[at + 8 :]


@pytest.mark.parametrize(
  'damage, what',
  [
    (damage_end, 'within a member'),
    (damage_header, 'has no header'),
    (lambda data: data[: -tarfile.RECORDSIZE], 'within a member|end mark'),
  ],
)
def test_a_damaged_shard_keeps_what_stands_before(folder, damage, what, caplog):
  path = folder / '00001.tar'
  path.write_bytes(damage(path.read_bytes()))
  source = WebDataset(folder)
  assert list(source.damaged) == ['00001.tar']
  found = read(source)
  assert found.items() <= EXPECTED.items()
  assert {'000010000', '000010001', '000010002', '000020004'} <= set(found)
  for _ in range(2):  # not only when the index is built
    caplog.clear()
    with caplog.at_level('WARNING', logger='absl'):
      WebDataset(folder)
    assert '1 damaged shards' in caplog.text and '00001.tar' in caplog.text
  assert re.search(what, source.damaged['00001.tar'])


@pytest.mark.parametrize(
  'files, reason',
  [
    ({'caption': b''}, 'no caption'),
    ({'caption': b' \n'}, 'no caption'),
    ({'txt': None}, 'no caption'),
    ({'caption': b'caf\xe9'}, 'caption is not text'),
    ({'jpg': b''}, 'empty'),
    ({'jpg': jpeg(1)[:-8]}, 'truncated'),
    ({'jpg': b'<html>404</html>'}, 'not an image'),
  ],
)
def test_a_broken_sample_is_named(tmp_path, files, reason):
  write(tmp_path / '00000.tar', sample(1) | sample(2, **files) | sample(3))
  source = WebDataset(tmp_path)
  assert len(source) == 3
  with pytest.raises(BadRecord) as caught:
    source[1]
  assert (caught.value.reason, caught.value.key) == (reason, '000000002')
  assert source[2].caption == 'caption 3'


def test_captions_are_unicode_and_stripped(tmp_path):
  write(tmp_path / '0.tar', sample(1, ' Ein Mädchen mit 🐈\n'.encode()))
  assert WebDataset(tmp_path)[0].caption == 'Ein Mädchen mit 🐈'


def test_other_kinds_of_pictures_are_read(tmp_path):
  files = sample(1, jpg=None, png=jpeg(9, 'PNG')) | sample(
    2, jpg=None, webp=jpeg(9, 'WEBP')
  )
  write(tmp_path / '0.tar', files | sample(3, jpg=None))
  source = WebDataset(tmp_path)
  assert set(read(source)) == {'000000001', '000000002'}


def test_names_that_recur_are_told_apart_by_their_shard(tmp_path):
  write(tmp_path / 'a.tar', sample(1))
  write(tmp_path / 'b.tar', sample(1))
  assert set(read(WebDataset(tmp_path))) == {'a/000000001', 'b/000000001'}


def test_a_folder_without_shards_names_the_command(tmp_path):
  with pytest.raises(FileNotFoundError, match='img2dataset --url_list'):
    WebDataset(tmp_path)
  write(tmp_path / '0.tar', {'notes.md': b'nothing'})
  with pytest.raises(ValueError, match='there is no picture'):
    WebDataset(tmp_path)


def test_shards_of_several_folders_are_refused(tmp_path):
  for name in 'ab':
    (tmp_path / name).mkdir()
    write(tmp_path / name / '0.tar', sample(1))
  with pytest.raises(ValueError, match='of one folder'):
    WebDataset(tmp_path / '*' / '0.tar')


def test_sources_travel_without_open_files(folder):
  source = WebDataset(folder)
  read(source)
  data = pickle.dumps(source)
  assert len(data) < 3000
  assert read(pickle.loads(data)) == EXPECTED


def test_few_files_are_open_while_threads_read(folder, monkeypatch):
  """A file that the cache drops stays open for whoever reads it."""
  monkeypatch.setattr(webdataset, 'MAX_OPEN_FILES', 1)
  source = WebDataset(folder)
  source[0]  # opens the index, and a shard
  before = len(os.listdir('/proc/self/fd'))
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    found = list(pool.map(source.__getitem__, list(range(15)) * 20))
  assert all(one.caption == EXPECTED[one.key][0] for one in found)
  assert len(os.listdir('/proc/self/fd')) <= before


def test_processes_may_start_together(folder):
  """All find an index, and what is left is one."""
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(2, spawn) as pool:
    lengths = list(pool.map(_length, [str(folder)] * 4))
  assert lengths == [15] * 4
  assert len(os.listdir(folder / '.kaleido_index')) == 1


def _length(folder: str) -> int:
  return len(WebDataset(folder))


def test_the_loser_of_a_race_takes_the_winners_index(folder, monkeypatch):
  """The other process finishes while this one scans."""
  scan = shards._scan

  def late(paths):
    monkeypatch.setattr(shards, '_scan', scan)
    WebDataset(folder)
    return scan(paths)

  monkeypatch.setattr(shards, '_scan', late)
  assert read(WebDataset(folder)) == EXPECTED
  assert len(os.listdir(folder / '.kaleido_index')) == 1
