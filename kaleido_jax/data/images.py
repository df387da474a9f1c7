"""Photographs: from encoded bytes to the pixels that networks see.

Two conventions of preprocessing stand side by side:

  'mdm'       what Matryoshka Diffusion trains on: the short side is resized
              with a triangle filter as wide as the reduction, the centre is cut
              out, and (x - 127) / 128 makes it roughly -1..1
  'standard'  what most ImageNet diffusion models and their reference statistics
              use: halved by boxes until less than twice too large, then
              bicubic, the centre cut out; x / 127.5 - 1

EXIF orientation and colour profiles are ignored, as in both of them, so that
pictures are those of published statistics; latents are made of the same pixels.
"""

import contextlib
import io
import math
import threading
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kaleido_jax.data.example import BadRecord

# What the web and image data sets are made of; the many other decoders of
# Pillow would only be attack surface.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP')
SIGNATURES = (b'\xff\xd8\xff', b'\x89PNG', b'RIFF', b'GIF8')

# Why a record could not be used.
REASONS = ('empty', 'not an image', 'too large', 'truncated', 'damaged')

Pixels = UInt8[np.ndarray, '_ _ 3']


def decode(data: bytes, key: str, *, max_pixels: int = 100_000_000) -> Pixels:
  """The first frame in RGB, transparency on white; read-only.

  Raises:
    BadRecord: for one of `REASONS`; 'too large' is found in the header, before
      anything is decoded.
  """
  if not data:
    raise BadRecord('empty', key)
  try:
    with _quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
      width, height = image.size
      if width * height > max_pixels:
        raise BadRecord('too large', key, f'{width} x {height} pixels')
      return np.asarray(_rgb(image))
  except (BadRecord, MemoryError):
    raise
  except Image.DecompressionBombError as error:  # Pillow's own limit: 179 Mpx
    raise BadRecord('too large', key, str(error)) from None
  except Exception as error:  # a damaged file may raise anything in a decoder
    reason = 'damaged' if data.startswith(SIGNATURES) else 'not an image'
    reason = 'truncated' if 'truncated' in str(error) else reason
    raise BadRecord(reason, key, str(error)) from None


def _rgb(image: Image.Image) -> Image.Image:
  if image.mode == 'CMYK' and 'adobe' not in image.info:
    # Pillow takes every CMYK JPEG for one of Adobe's, which are inverted.
    image = image.point(lambda level: 255 - level)
  if image.mode.startswith('I'):  # 16-bit grey; convert('L') would clip it
    # The high byte, as Pillow itself does for 16-bit colour.
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(
      'RGB'
    )
  if image.has_transparency_data:
    layer = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, layer)
  return image.convert('RGB')


def preprocess(
  image: Pixels, size: int, *, style: str = 'mdm'
) -> UInt8[np.ndarray, 'size size 3']:
  """A square of `size`: the short side resized to it, the centre cut out."""
  if style not in STYLES:
    raise ValueError(f'style={style!r} is not one of {list(STYLES)}.')
  if image.shape[:2] == (size, size):
    return image  # drawn to measure, as shapes are
  return STYLES[style](image, size)


def _mdm(image: Pixels, size: int) -> Pixels:
  """As mlx-data, which MDM reads with, to one level.

  mlx-data repeats the edge pixels where the filter reaches beyond them; Pillow
  leaves these taps out, which is up to 20 levels off in the outermost row. So
  edges are repeated here, and only what the crop sees is resized.
  """
  rows = _reach(image.shape[0], min(image.shape[:2]), size)
  columns = _reach(image.shape[1], min(image.shape[:2]), size)
  (top, bottom, y1, y2), (left, right, x1, x2) = rows, columns
  seen = image[max(top, 0) : bottom, max(left, 0) : right]
  beyond = [
    (max(-start, 0), max(stop - length, 0))
    for start, stop, length in zip(
      (top, left), (bottom, right), image.shape[:2], strict=True
    )
  ]
  if np.any(beyond):
    seen = np.pad(seen, (*beyond, (0, 0)), mode='edge')
  box = (x1 - left, y1 - top, x2 - left, y2 - top)
  picture = Image.fromarray(seen)
  return np.asarray(
    picture.resize((size, size), Image.Resampling.BILINEAR, box)
  )


def _reach(length: int, short: int, size: int) -> tuple[int, int, float, float]:
  """Along one side: what the filter reads (it may lie outside), the crop.

  For 500 x 375 at 256: the long side becomes 341 = floor(341.3 + 1/2) pixels,
  the crop starts at 42 = (341 - 256) // 2, which is 61.6 in the original.
  """
  resized = math.floor(size / short * length + 0.5)
  scale = length / resized
  start = (resized - size) // 2 * scale
  stop = start + size * scale
  margin = math.ceil(max(scale, 1)) + 1
  return math.floor(start) - margin, math.ceil(stop) + margin, start, stop


def _standard(image: Pixels, size: int) -> Pixels:
  picture = Image.fromarray(image)
  while min(picture.size) >= 2 * size:
    half = (picture.width // 2, picture.height // 2)
    picture = picture.resize(half, Image.Resampling.BOX)
  scale = size / min(picture.size)
  spans = []
  for length in picture.size:
    resized = round(length * scale)
    start = (resized - size) // 2
    spans.append((start * length / resized, (start + size) * length / resized))
  (left, right), (top, bottom) = spans
  # Rows first, as older Pillows did; newer ones take the cheaper order. What
  # bicubic overshoots is clipped in between: up to 9 levels apart on noise.
  how, height = Image.Resampling.BICUBIC, picture.height
  picture = picture.resize((size, height), how, (left, 0, right, height))
  return np.asarray(picture.resize((size, size), how, (0, top, size, bottom)))


STYLES = {'mdm': _mdm, 'standard': _standard}


# What follows takes numpy and jax arrays alike, hence methods only.


def normalise(image, style: str = 'mdm'):
  """Levels 0..255 -> about -1..1, in float32."""
  image = image.astype('float32')
  return (image - 127) / 128 if style == 'mdm' else image / 127.5 - 1


def to_uint8(x, style: str = 'mdm'):
  """The inverse of `normalise`; rounds, and clips what is out of range.

  What is not a number is grey: a run that diverges still shows its sheet.
  """
  x = x.__array_namespace__().nan_to_num(x.astype('float32'))
  x = x * 128 + 127 if style == 'mdm' else (x + 1) * 127.5
  return x.round().clip(0, 255).astype('uint8')


# Filters of warnings belong to the whole process, and sources are read in
# threads: the first to come sets them, the last to go puts them back.
_lock = threading.Lock()
_inside = 0
_filters: warnings.catch_warnings | None = None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Whatever Pillow warns of is an error here, or does not matter."""
  global _inside, _filters
  with _lock:
    _inside += 1
    if _inside == 1:
      _filters = warnings.catch_warnings()
      _filters.__enter__()
      warnings.filterwarnings('ignore', module=r'PIL\.')
  try:
    yield
  finally:
    with _lock:
      _inside -= 1
      if _inside == 0:
        _filters.__exit__(None, None, None)
