"""Emoji: packages in miniature, from tarball to example."""

import collections
import io
import json
import pathlib
import re
import subprocess
import sys

import emoji_packages
import numpy as np
import pytest
from PIL import Image

from kaleido_jax.data import emoji, records
from kaleido_jax.data.emoji import (
  joining,
  prepare,
  rendering,
  source,
)
from kaleido_jax.data.example import BadRecord
from kaleido_jax.latents import Latents

SIZE = 32


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
  """A folder of tarballs, the captions' package, the sets."""
  folder = tmp_path_factory.mktemp('tarballs')
  return folder, *emoji_packages.everything(folder)


def make(out, packed, **options):
  folder, captions, sets = packed
  given = {'size': SIZE, 'sets': sets, 'captions': captions, **options}
  return prepare.prepare(out, cache=folder, **{'tarballs': folder, **given})


@pytest.fixture(scope='module')
def prepared(packed, tmp_path_factory):
  out = tmp_path_factory.mktemp('emoji') / 'out'
  return out, make(out, packed)


def rows(out):
  """All records, by key."""
  found = [
    records.Records(out / split, kind='emoji', command='')
    for split in joining.SPLITS
  ]
  return {r['key']: r for s in found for r in map(s.__getitem__, range(len(s)))}


def pixels(record):
  return np.asarray(Image.open(io.BytesIO(record['image'])))


def key(name, index):
  return f'{name}-{emoji_packages.FIRST + index:x}'


def test_an_example_is_a_picture_on_white_with_latents_that_parse(prepared):
  source = emoji.Emoji(prepared[0])
  assert len(source) == prepared[1]['train']['count']
  for index in range(len(source)):
    example = source[index]
    assert example.image.dtype == np.uint8
    assert example.image.shape == (SIZE, SIZE, 3)
    assert set(example.latents) == set(emoji.Emoji(prepared[0]).kinds)
    parsed, problems = Latents.parse(
      example.latents.to_string(), tuple(example.latents)
    )
    assert not problems and parsed == example.latents.validate()
  corners = pixels(rows(prepared[0])[key('dots', 0)])[
    [0, 0, -1, -1], [0, -1, 0, -1]
  ]
  assert (corners == 255).all()


def test_only_the_kinds_asked_for_are_read(prepared):
  source = emoji.Emoji(prepared[0], kinds=('blob', 'voken'))
  assert source.kinds == ('blob',) == tuple(source[0].latents)
  assert emoji.Emoji(prepared[0], kinds=()).kinds == ()


def test_box_and_blob_are_those_of_the_circle(prepared):
  # Centre (6, 10) and radius 4 of 16: in thousandths 375, 625 and 250.
  record = rows(prepared[0])[key('dots', 0)]
  latents = Latents.from_strings(record['latents'])
  (box,), (blob,) = latents.boxes, latents.blobs
  assert box.label == blob.label == 'thing aa'
  pixel = 1000 / SIZE
  np.testing.assert_allclose(
    (box.x1, box.y1, box.x2, box.y2), (125, 375, 625, 875), atol=pixel
  )
  np.testing.assert_allclose(
    (blob.xc, blob.yc, blob.r_major, blob.r_minor),
    (375, 625, 250, 250),
    atol=pixel / 2,
  )
  assert latents.layout[0] == '.' * 8 and latents.layout[5][2:4] == 'aa'


def test_the_text_names_style_tags_and_colours(prepared):
  found = rows(prepared[0])
  text = found[key('dots', 0)]['latents']['text']
  # Neither the plural of a tag nor what the caption says.
  assert text == 'dots style; animal, pet, small; red'
  assert all(len(r['latents']['text'].split()) <= 25 for r in found.values())
  assert found['plates-1f576']['latents']['text'] == 'plates style; green'


def test_sets_are_joined_by_code_point_and_by_name(prepared):
  found = rows(prepared[0])
  plates = {k: r['caption'] for k, r in found.items() if r['set'] == 'plates'}
  first = emoji_packages.FIRST
  assert plates == {
    f'plates-{first:x}': 'thing aa',
    f'plates-{first:x}-2': 'thing aa',  # the second of two numbered ones
    f'plates-{first + 1:x}': 'thing ab',
    f'plates-{first + 2:x}': 'thing ac',
    f'plates-{first + 4:x}': 'thing ae',
    f'plates-{first + 5:x}': 'thing af',
    'plates-1f576': 'glasses: sun',  # 'dark-sunglasses': its Unicode name
  }
  assert found[key('balls', 5)]['caption'] == 'thing af'


def test_an_icon_that_was_withdrawn_gives_way(prepared):
  # 'thing-ac' is hidden, 'thingac' (radius 7 of 16) is not.
  image = pixels(rows(prepared[0])[key('plates', 2)])
  share = (image[..., 1] < 128).mean()
  assert share == pytest.approx(np.pi * 7**2 / 16**2, abs=0.02)


def test_a_mirrored_alias_is_mirrored(prepared):
  found = rows(prepared[0])
  one, other = (pixels(found[key('plates', i)]) for i in (4, 5))
  np.testing.assert_array_equal(one, other[:, ::-1])
  assert (one != other).any()


def test_an_icon_may_have_a_frame_of_its_own(prepared):
  image = pixels(rows(prepared[0])[key('plates', 1)])
  share = (image[..., 1] < 128).mean()  # radius 2 in a frame of 8
  assert share == pytest.approx(np.pi * 2**2 / 8**2, abs=0.02)


def test_what_cannot_be_drawn_is_counted_and_left_out(prepared):
  skipped = collections.defaultdict(list)
  for about in prepared[1].values():
    for reason, keys in about['skipped'].items():
      skipped[reason] += keys
  assert skipped == {
    'broken svg': [key('dots', 3)],
    'empty picture': [key('dots', 4)],
    'broken image': [key('balls', 9)],
    'same picture': [key('plates', 7)],
    'picture held out': [key('plates', 8)],
  }
  keys = {k for found in skipped.values() for k in found}
  assert not keys & set(rows(prepared[0]))
  said = prepare.summary(prepared[1])
  assert f'broken svg: 1 ({key("dots", 3)})' in said


def test_licence_and_attribution_stand_in_each_record(prepared):
  licences = {'dots': 'MIT', 'plates': 'CC-BY-SA-4.0', 'balls': 'CC-BY-4.0'}
  found = rows(prepared[0]).values()
  assert {r['set'] for r in found} == set(licences)
  for record in found:
    assert record['licence'] == licences[record['set']]
    assert record['attribution'] == f'{record["set"]} by nobody'
  counted = collections.Counter(r['set'] for r in found)
  sets = [about['sets'] for about in prepared[1].values()]
  for name, count in counted.items():
    assert sum(s[name]['images'] for s in sets if name in s) == count


def test_a_caption_is_on_one_side_with_all_its_designs(prepared):
  captions = []
  for split in joining.SPLITS:
    source = emoji.Emoji(prepared[0], split=split, kinds=())
    captions.append({source[i].caption for i in range(len(source))})
  assert captions[0] and captions[1] and not captions[0] & captions[1]
  # The dots' drawing of the fourth is broken, and there is no other.
  assert captions[0] | captions[1] == {
    *emoji_packages.CAPTIONS,
    'glasses: sun',
  } - {'thing ad'}


def test_plain_leaves_out_flags_tones_symbols_and_letters(
  packed, prepared, tmp_path
):
  make(tmp_path / 'all', packed, subset='all')
  plain, everything = set(rows(prepared[0])), set(rows(tmp_path / 'all'))
  assert everything - plain == {
    'dots-1f1e6',
    'dots-267b',
    'dots-1f1e6-1f1e9',
    f'{key("dots", 0)}-1f3ff',
  }
  assert plain < everything


def test_the_same_twice_has_the_same_bytes(packed, prepared, tmp_path):
  make(tmp_path / 'again', packed, workers=2)
  files = [p for p in sorted(prepared[0].rglob('*')) if p.is_file()]
  assert len(files) == 8
  for file in files:
    again = tmp_path / 'again' / file.relative_to(prepared[0])
    assert file.read_bytes() == again.read_bytes(), file.name


def test_what_was_prepared_is_left_as_it_is(packed, prepared, monkeypatch):
  monkeypatch.setattr(rendering, 'draw', None)
  assert make(prepared[0], packed) == prepared[1]
  with pytest.raises(ValueError, match='size is 32, not 48; remove it'):
    make(prepared[0], packed, size=48)


def test_the_fingerprint_is_of_the_pictures(packed, prepared, tmp_path):
  folder, captions, sets = packed
  files = emoji_packages.dots()
  files['icons.json']['icons'][f'dot-{emoji_packages.FIRST:x}'] = (
    emoji_packages.circle(fill='#00ff00')
  )
  for package in (captions, *(s.package for s in sets[1:])):
    (tmp_path / package.file).write_bytes((folder / package.file).read_bytes())
  other = emoji_packages.vendor(tmp_path, 'dots', files, 'MIT')
  make(tmp_path / 'out', packed, sets=(other, *sets[1:]), tarballs=tmp_path)
  prints = [
    emoji.Emoji(out).fingerprint for out in (prepared[0], tmp_path / 'out')
  ]
  assert prints[0] != prints[1]


@pytest.mark.parametrize('drawn', [3, 53])  # of 54: in test, and in train
def test_a_run_that_dies_leaves_nothing_in_the_way(
  packed, tmp_path, monkeypatch, drawn
):
  draw, calls = rendering.draw, []

  def dying(drawing):
    calls.append(drawing)
    if len(calls) > drawn:
      raise KeyboardInterrupt
    return draw(drawing)

  with monkeypatch.context() as patch:
    patch.setattr(rendering, 'draw', dying)
    with pytest.raises(KeyboardInterrupt):
      make(tmp_path / 'out', packed)
  assert not (tmp_path / 'out').exists()
  make(tmp_path / 'out', packed)
  assert [p.name for p in tmp_path.iterdir()] == ['out']


def test_too_few_captions_to_hold_any_out_are_refused(packed, tmp_path):
  with pytest.raises(ValueError, match='none falls to the split'):
    make(tmp_path / 'out', packed, limit=1)


def test_a_tarball_of_other_bytes_is_refused(packed, tmp_path):
  folder, captions, sets = packed
  for package in (captions, *(s.package for s in sets)):
    (tmp_path / package.file).write_bytes((folder / package.file).read_bytes())
  with (tmp_path / sets[1].package.file).open('ab') as file:
    file.write(b'\0')
  with pytest.raises(ValueError, match='plates 1.0.0: its checksum is sha512'):
    make(tmp_path / 'out', packed, tarballs=tmp_path)
  assert not (tmp_path / 'out').exists()


def test_without_resvg_the_message_says_how_to_install_it(
  packed, tmp_path, monkeypatch
):
  monkeypatch.setattr(prepare.importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(ModuleNotFoundError, match=r"install -e '\.\[emoji\]'"):
    make(tmp_path / 'out', packed)


def test_without_records_the_message_says_how_to_make_them(tmp_path):
  with pytest.raises(FileNotFoundError, match=re.escape(source.COMMAND)):
    emoji.Emoji(tmp_path)
  with pytest.raises(ValueError, match="split='valid' of emoji"):
    emoji.Emoji(tmp_path, split='valid')


@pytest.mark.parametrize(
  'damage, reason',
  [
    ({'image': b'\x89PNG'}, 'unreadable image'),
    ({'latents': {'text': 'a', 'bbox': '(1, 2)'}}, 'malformed latents'),
  ],
)
def test_a_damaged_record_is_named(prepared, tmp_path, damage, reason):
  record = {**next(iter(rows(prepared[0]).values())), **damage}
  records.write(tmp_path / 'train', [record], kind='emoji', about={})
  with pytest.raises(BadRecord, match=reason):
    emoji.Emoji(tmp_path, kinds=('text', 'bbox'))[0]


def test_the_command_runs_and_says_what_it_lacks(tmp_path):
  command = [sys.executable, '-m', 'kaleido_jax.data.emoji']
  flags = [f'--out={tmp_path / "out"}', f'--tarballs={tmp_path}']
  done = subprocess.run(
    [*command, *flags],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
  )
  assert done.returncode
  assert 'lacks tarballs; download https://' in done.stderr


def test_what_is_written_is_plain_to_read(prepared):
  about = json.loads((prepared[0] / 'test/about.json').read_text())
  assert about == prepared[1]['test']
  assert about['kind'] == 'emoji' and about['size'] == SIZE
  assert about['packages']['@tests/dots'] == '1.0.0'
  assert about['captions'] == len(about['designs'])
  assert sum(about['designs']) == about['count']
