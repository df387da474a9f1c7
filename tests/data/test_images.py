"""Photographs: every way to be broken, every way to be odd, and exact sizes."""

import io
import pickle
import struct
import threading
import tracemalloc
import warnings
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from kaleido_jax.data import images
from kaleido_jax.data.example import BadRecord


def encoded(image: Image.Image, kind: str = 'JPEG', **options) -> bytes:
  stream = io.BytesIO()
  image.save(stream, kind, **options)
  return stream.getvalue()


def photograph(height: int = 48, width: int = 64) -> Image.Image:
  """Smooth enough for JPEG to keep."""
  y, x = np.mgrid[:height, :width]
  levels = np.stack([x * 255 // width, y * 255 // height, 255 - x * 2], -1)
  return Image.fromarray(levels.astype(np.uint8))


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
  """Written by hand: of any size, and 16 bits deep."""

  def chunk(name: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(name + body)
    return struct.pack('>I', len(body)) + name + body + struct.pack('>I', crc)

  header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
  chunks = (('IHDR', header), ('IDAT', zlib.compress(rows)), ('IEND', b''))
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    chunk(name.encode(), body) for name, body in chunks
  )


def noise(kind: str) -> bytes:
  random = np.random.default_rng(0)
  return encoded(
    Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)), kind
  )


@pytest.mark.parametrize(
  'data, reason',
  [
    (b'', 'empty'),
    (b'<html><body>404 Not Found</body></html>', 'not an image'),
    (b'BMW is a carmaker. ' * 9, 'not an image'),
    (noise('JPEG')[:2000], 'truncated'),
    (noise('PNG')[:2000], 'truncated'),
    (noise('GIF')[:2000], 'truncated'),
    (noise('WEBP')[:2000], 'damaged'),
    (noise('JPEG')[:30], 'damaged'),
    (noise('JPEG')[:300] + b'\xff' * 4000, 'damaged'),
    (noise('PNG')[:40] + b'\7' * 4000, 'damaged'),
    (png(0, 8, 8, 2, b''), 'damaged'),
    (png(20_000, 20_000, 8, 2, b''), 'too large'),
    (png(11_000, 11_000, 8, 2, b''), 'too large'),
    (encoded(photograph(), 'TIFF'), 'not an image'),
  ],
)
def test_a_broken_file_has_its_reason(data, reason):
  tracemalloc.start()
  with pytest.raises(BadRecord) as caught:
    images.decode(data, 'n01.jpg')
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert caught.value.reason == reason
  assert caught.value.key == 'n01.jpg'
  assert peak < 10 << 20
  assert pickle.loads(pickle.dumps(caught.value)).reason == reason


def test_the_limit_of_pixels_is_an_argument():
  data = encoded(photograph(40, 50))
  assert images.decode(data, 'a', max_pixels=2000).shape == (40, 50, 3)
  with pytest.raises(BadRecord, match='50 x 40 pixels'):
    images.decode(data, 'a', max_pixels=1999)


def test_a_random_change_of_bytes_raises_nothing_else():
  random = np.random.default_rng(0)
  for kind in ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP'):
    whole = np.frombuffer(encoded(photograph(), kind), np.uint8)
    for _ in range(150):
      data = whole.copy()
      places = random.integers(0, min(len(data), 300), 4)
      data[places] = random.integers(0, 256, 4)
      try:
        image = images.decode(data.tobytes(), 'a', max_pixels=10**6)
        assert image.dtype == np.uint8 and image.shape[2] == 3
      except BadRecord as error:
        assert error.reason in images.REASONS


def test_warnings_do_not_escape_and_filters_stay_as_they_were():
  """Pillow warns of 144 Mpx; several threads come and go."""
  data = [png(12_000, 12_000, 8, 2, b''), encoded(photograph())]
  escaped = []

  def work():
    for n in range(40):
      try:
        images.decode(data[n % 2], 'a')
      except BadRecord:
        pass
      except Warning as warning:
        escaped.append(warning)

  before = list(warnings.filters)
  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not escaped
  assert warnings.filters == before


@pytest.mark.parametrize('adobe', [True, False])
def test_cmyk_is_not_inverted(adobe):
  """With the marker of Adobe inks are stored inverted, without it plainly."""
  inks = np.zeros((16, 16, 4), np.uint8)
  inks[..., 1] = inks[..., 2] = 255  # magenta and yellow: red
  inks[8:, :, 3] = 128  # half black below
  plain = Image.fromarray(inks, 'CMYK')
  data = encoded(plain, quality=95)
  if not adobe:
    data = encoded(plain.point(lambda ink: 255 - ink), quality=95)
    start = data.index(b'\xff\xee')  # APP14: a marker, a length, a body
    length = struct.unpack('>H', data[start + 2 : start + 4])[0]
    data = data[:start] + data[start + 2 + length :]
  assert (b'Adobe' in data) == adobe
  image = images.decode(data, 'a')
  np.testing.assert_allclose(image[2, 2], (255, 0, 0), atol=6)
  np.testing.assert_allclose(image[12, 2], (127, 0, 0), atol=6)


@pytest.mark.parametrize('colour, channels', [(0, 1), (2, 3)])
def test_sixteen_bits_are_scaled_and_not_clipped(colour, channels):
  levels = np.linspace(0, 65535, 64).astype('>u2')
  row = np.repeat(levels[:, None], channels, 1).tobytes()
  image = images.decode(png(64, 2, 16, colour, (b'\0' + row) * 2), 'a')
  expected = np.repeat(levels[:, None] / 257, 3, 1)
  assert np.abs(image[0] - expected).max() <= 1
  assert len(np.unique(image)) > 60


def test_transparency_is_seen_on_white():
  layer = np.zeros((4, 4, 4), np.uint8)
  layer[..., 0] = 200
  layer[1, :, 3], layer[2, :, 3] = 128, 255
  image = images.decode(encoded(Image.fromarray(layer), 'PNG'), 'a')
  assert image[:, 0].tolist() == [
    [255, 255, 255],
    [227, 127, 127],
    [200, 0, 0],
    [255, 255, 255],
  ]


def test_a_transparent_colour_of_a_palette_is_white():
  image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert('P')
  image.putpalette([10, 20, 30, 40, 50, 60])
  data = encoded(image, 'PNG', transparency=0)
  assert images.decode(data, 'a').tolist() == [[[255] * 3, [40, 50, 60]]]
  data = encoded(image, 'GIF', transparency=1)
  assert images.decode(data, 'a').tolist() == [[[10, 20, 30], [255] * 3]]


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P'])
def test_few_colours_are_colours(mode):
  black = Image.new('RGB', (6, 4)).convert(mode)
  assert not images.decode(encoded(black, 'PNG'), 'a').any()


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG'])
def test_an_animation_is_its_first_frame(kind):
  frames = [Image.new('RGB', (8, 8), name) for name in ('red', 'lime', 'blue')]
  options = {'lossless': True} if kind == 'WEBP' else {}
  data = encoded(
    frames[0], kind, save_all=True, append_images=frames[1:], **options
  )
  with Image.open(io.BytesIO(data)) as image:
    assert image.n_frames == 3
  assert images.decode(data, 'a')[4, 4].tolist() == [255, 0, 0]


def test_orientation_is_ignored_as_documented():
  exif = Image.Exif()
  exif[0x0112] = 6  # a quarter turn
  data = encoded(photograph(48, 64), exif=exif)
  assert images.decode(data, 'a').shape == (48, 64, 3)


def test_mdm_preprocessing_agrees_with_the_library_that_mdm_reads_with(data):
  arrays = np.load(data / 'images/resized.npz')
  names = [name.removesuffix('_mlx') for name in arrays if name[-4:] == '_mlx']
  assert len(names) == 9
  for name in names:
    expected = arrays[f'{name}_mlx'].astype(int)
    found = images.preprocess(arrays[f'{name}_image'], len(expected))
    assert np.abs(found - expected).max() <= 1, name
    assert np.abs(found - expected).mean() < 0.25, name


def test_the_standard_preprocessing_halves_then_resizes_then_crops():
  """Step by step, of whole pictures."""
  random = np.random.default_rng(0)
  for height, width, size in ((150, 203, 32), (97, 64, 48), (30, 41, 64)):
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    whole = Image.fromarray(image)
    while min(whole.size) >= 2 * size:
      halves = (whole.width // 2, whole.height // 2)
      whole = whole.resize(halves, Image.Resampling.BOX)
    scale = size / min(whole.size)
    sizes = [round(length * scale) for length in whole.size]
    for sides in ((sizes[0], whole.height), sizes):
      whole = whole.resize(sides, Image.Resampling.BICUBIC)
    whole = np.asarray(whole)
    top, left = ((length - size) // 2 for length in whole.shape[:2])
    expected = whole[top : top + size, left : left + size].astype(int)
    found = images.preprocess(image, size, style='standard')
    assert np.abs(found - expected).max() <= 1
    assert np.abs(found - expected).mean() < 1e-3


@pytest.mark.parametrize('style', ['mdm', 'standard'])
@pytest.mark.parametrize('shape', [(1, 1), (3000, 2), (2, 3000), (64, 64)])
def test_pictures_of_any_shape_become_squares(style, shape):
  image = np.full((*shape, 3), 77, np.uint8)
  square = images.preprocess(image, 64, style=style)
  assert square.shape == (64, 64, 3)
  assert (square == 77).all()


def test_an_unknown_style_is_refused():
  with pytest.raises(ValueError, match="'adm' is not one of"):
    images.preprocess(np.zeros((8, 8, 3), np.uint8), 8, style='adm')


@pytest.mark.parametrize('library', [np, jnp])
@pytest.mark.parametrize('style', ['mdm', 'standard'])
def test_levels_come_back_exactly(library, style):
  levels = library.arange(256, dtype='uint8')
  x = images.normalise(levels, style)
  assert x.dtype == 'float32'
  ends = {'mdm': (-127 / 128, 1.0), 'standard': (-1.0, 1.0)}[style]
  np.testing.assert_allclose((x[0], x[-1]), ends, rtol=1e-6)
  back = images.to_uint8(x, style)
  assert isinstance(back, type(levels)) and back.dtype == 'uint8'
  np.testing.assert_array_equal(back, levels)
  far = images.to_uint8(x * 9 - 3, style)
  assert (int(far[0]), int(far[-1])) == (0, 255)


@pytest.mark.parametrize('style', images.STYLES)
def test_a_picture_of_the_right_size_is_left_alone(style):
  """Which is what resizing it would do, only sooner."""
  image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
  np.testing.assert_array_equal(images.STYLES[style](image, 48), image)
  assert images.preprocess(image, 48, style=style) is image
