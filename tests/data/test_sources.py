"""From a configuration to batches: every source, and what is in the way."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
import tars
from PIL import Image

from configs import cc12m, imagenet, toy
from kaleido_jax.data import pipeline, sources, store
from kaleido_jax.data.reading import Tally
from kaleido_jax.latents import Latents


def saved(image: Image.Image, form: str, **options) -> bytes:
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def vast_png(side: int) -> bytes:
  """A header that promises side x side pixels, and hardly any data."""

  def chunk(body: bytes) -> bytes:
    length, check = len(body) - 4, zlib.crc32(body)
    return struct.pack('>I', length) + body + struct.pack('>I', check)

  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  data = zlib.compress(bytes(100))
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR' + header) + chunk(b'IDAT' + data)


NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
PHOTO = Image.fromarray(NOISE)
RAMP = np.linspace(0, 65535, 4800).reshape(60, 80).astype(np.uint16)
# Everything that a crawl of the web comes back with.
PICTURES = {
  'good': saved(PHOTO, 'JPEG'),
  'cmyk': saved(PHOTO.convert('CMYK'), 'JPEG'),
  'sixteen bits': saved(Image.fromarray(RAMP), 'PNG'),
  'animated': saved(
    PHOTO, 'GIF', save_all=True, append_images=[PHOTO.rotate(90)] * 3
  ),
  'see-through': saved(PHOTO.convert('RGBA'), 'WEBP'),
  'empty file': b'',
  'half of it': saved(PHOTO, 'JPEG')[:900],
  'text': b'<html>404 Not Found</html>',
  'vast': vast_png(20_000),
}
REASONS = {
  'empty file': 'empty',
  'half of it': 'truncated',
  'text': 'not an image',
  'vast': 'too large',
  'no latents': 'no latents',
  'garbage latents': 'malformed latents',
}


@pytest.fixture
def crawl(tmp_path):
  """img2dataset's tars with two of each picture, and a latent store."""
  pictures = PICTURES | dict.fromkeys(
    ('no latents', 'garbage latents'), PICTURES['good']
  )
  rows = []
  for copy in range(2):
    tars.write(
      tmp_path / f'{copy:05}.tar',
      [(f'{copy} {name}', data, name) for name, data in pictures.items()],
    )
    for name in pictures:
      box = 'it (1, 2, 3)' if name == 'garbage latents' else 'it (1, 2, 3, 4)'
      if name != 'no latents':
        rows.append({'key': f'{copy} {name}', 'latents': {'bbox': box}})
  config = small(cc12m.get_config('64'))
  config.latents = ('bbox', 'color')
  config.data.update(source='webdataset', path=str(tmp_path))
  source = sources.alone(config.data, sources.recipe_of(config), split='train')
  config.data.store = str(tmp_path / 'store')
  store.write(
    config.data.store, rows, source=source.fingerprint, kinds=('bbox',)
  )
  return config


def small(config):
  config.data.update(
    vocabulary='',
    vocabulary_rows=0,
    batch_size=11,
    caption_length=24,
    num_workers=0,
  )
  return config


def test_a_crawl_is_read_to_its_end_and_every_loss_is_counted(crawl):
  tally = Tally(max_share=1.0)
  found = sources.batches(crawl)
  epoch = list(itertools.islice(pipeline.counted(found, tally), 2))
  found.close()
  keys = [key for batch in epoch for key in batch.keys]
  assert len(keys) == 22
  assert not {key[2:] for key in keys} & set(REASONS)
  named = {(record.key[2:], record.reason) for b in epoch for record in b.bad}
  assert named == set(REASONS.items())
  # A replacement may be bad itself, so there are at least two of each.
  assert tally.reasons.keys() == set(REASONS.values())
  assert min(tally.reasons.values()) >= 2
  bad = [record for batch in epoch for record in batch.bad]
  assert tally.reasons.total() == len(bad) and tally.read == 22


def test_a_run_on_such_data_stops_if_it_may_lose_little(crawl):
  tally = Tally(max_share=crawl.data.max_bad_share)
  found = sources.batches(crawl)
  with pytest.raises(RuntimeError, match='could not be used .*no latents'):
    for _ in itertools.islice(pipeline.counted(found, tally), 100):
      pass
  found.close()


def test_shapes_come_with_every_kind_and_tokens_of_pixels(tmp_path):
  config = small(cc12m.get_config('64'))
  config.latents = ('text', 'bbox', 'blob', 'voken', 'color', 'layout')
  config.data.update(
    source='shapes', vokens_from_pixels=True, voken_codes=512, voken_count=16
  )
  batch = next(sources.batches(config))
  vocabulary = sources.vocabulary(config.data, config.latents)
  for image, z in zip(batch.arrays['image'], batch.arrays['z'], strict=True):
    found, problems = Latents.parse(vocabulary.decode(z), vocabulary.kinds)
    assert not problems and found.boxes and len(found.vokens) == 16
    assert image.shape == (64, 64, 3)


def test_the_toy_has_points_and_modes():
  config = toy.get_config()
  batch = next(sources.batches(config))
  vocabulary = sources.vocabulary(config.data, config.latents)
  assert batch.arrays['image'].shape == (128, 2)
  for point, z, ids in zip(
    *(batch.arrays[name] for name in ('image', 'z', 'ids')), strict=True
  ):
    side = 'a' if vocabulary.decode(ids) == 'class a' else 'b'
    outer = vocabulary.decode(z) == 'outer'
    middle = (-1 if side == 'a' else 1) * (1.5 if outer else 0.3)
    assert abs(point[0] - middle) < 0.9 and abs(point[1]) < 0.9


def test_another_split_is_other_data():
  config = toy.get_config()
  train, test = (
    next(sources.batches(config, held_out=held_out))
    for held_out in (False, True)
  )
  assert not np.isin(train.arrays['image'], test.arrays['image']).any()


@pytest.mark.parametrize(
  'source, message',
  [
    (
      'tfds:imagenet2012',
      '(?s)no prepared data set.*kaleido_jax.data.imagenet',
    ),
    ('webdataset', '(?s)no tar files in .*img2dataset'),
    ('emoji', 'no emoji records.*kaleido_jax.data.emoji'),
    ('imagenet', "source='imagenet' is not one of"),
  ],
)
def test_data_that_is_not_there_names_the_command(tmp_path, source, message):
  config = small(imagenet.get_config())
  config.latents = ('color',)
  config.data.update(source=source, path=str(tmp_path))
  with pytest.raises((FileNotFoundError, ValueError), match=message):
    sources.batches(config)


def test_latents_that_no_one_has_name_the_command(crawl):
  crawl.data.store = ''
  with pytest.raises(
    ValueError, match='(?s)knows nothing of .*bbox.*mode=extract'
  ):
    sources.batches(crawl)
  crawl.latents = ('color',)  # needs no store
  assert len(next(sources.batches(crawl)).keys) == 11


def test_states_and_flips_do_not_go_together(crawl):
  crawl.data.flip = True
  with pytest.raises(ValueError, match='cached states are of captions as they'):
    sources.batches(crawl, encoder='x')


@pytest.mark.parametrize(
  'part, latents, needed',
  [('encoder', (), 640), ('decoder', ('text', 'color'), 640 + 512)],
)
def test_a_model_with_too_few_rows_is_refused(part, latents, needed):
  config = toy.get_config()
  config.latents = latents
  sources.check(toy.get_config())
  config.model[part].vocab_size = needed - 1
  with pytest.raises(ValueError, match=f'{part}.vocab_size.*{needed} tokens'):
    sources.check(config)


def test_boxes_are_written_on_the_lines_that_the_run_has():
  config = small(cc12m.get_config('64'))
  config.latents = ('bbox',)
  config.data.update(source='shapes', box_lines=32)
  batch = next(sources.batches(config))
  vocabulary = sources.vocabulary(config.data, config.latents)
  sides = set()
  for z in batch.arrays['z']:
    found, _ = Latents.parse(vocabulary.decode(z), vocabulary.kinds)
    sides |= {side for box in found.boxes for side in (box.x1, box.y2)}
  assert len(sides) > 5
  assert sides <= {round(1000 * line / 32) for line in range(33)}
