"""Examples a second of one core, for every source that this machine can read.

  python benchmarks/data.py                              # shapes, photographs
  python benchmarks/data.py --emoji=FOLDER --kinds=text,bbox

Photographs are JPEGs of 500 x 375 pixels, drawn here and written as img2dataset
does. One thread of one process reads and decodes ("source"), and then prepares
as for training: crops, measures colours, writes tokens ("prepared").
"""

import io
import json
import pathlib
import platform
import tarfile
import tempfile
import time

import numpy as np
from absl import app, flags
from kaleido_jax.data.emoji import Emoji
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.data.webdataset import WebDataset
from PIL import Image

from kaleido_jax.data.recipe import Recipe
from kaleido_jax.latents.tokens import Vocabulary

_EMOJI = flags.DEFINE_string('emoji', '', 'Emoji records; none by default.')
_KINDS = flags.DEFINE_list(
  'kinds', ['text', 'bbox', 'blob', 'color'], 'Latents.'
)
_SECONDS = flags.DEFINE_float('seconds', 4, 'How long each is measured.')

LENGTHS = {'text': 64, 'bbox': 64, 'blob': 64, 'color': 16, 'layout': 64}


def photograph(rng: np.random.Generator) -> bytes:
  """Smooth shapes with grain: about as hard to decode as a photograph."""
  coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
  smooth = Image.fromarray(coarse).resize((500, 375), Image.BICUBIC)
  grain = rng.normal(0, 8, (375, 500, 3))
  pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=90)
  return file.getvalue()


def write_photographs(folder: pathlib.Path, count: int) -> None:
  """One shard, as img2dataset leaves it."""
  rng = np.random.default_rng(0)
  with tarfile.open(folder / '00000.tar', 'w') as tar:
    for index in range(count):
      key = f'{index:09}'
      for suffix, data in (
        ('jpg', photograph(rng)),
        ('txt', f'photograph {index}'.encode()),
        ('json', json.dumps({'key': key}).encode()),
      ):
        member = tarfile.TarInfo(f'{key}.{suffix}')
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def rate(read) -> float:
  """Calls a second, with ever another index."""
  for index in range(20):
    read(index)
  started, count = time.process_time(), 0
  while (elapsed := time.process_time() - started) < _SECONDS.value:
    read(count)
    count += 1
  return count / elapsed


def measure(name: str, source, size: int, style: str, kinds) -> None:
  recipe = Recipe(
    vocabulary=Vocabulary(kinds=kinds),
    caption_length=32,
    lengths=LENGTHS,
    size=size,
    style=style,
  )
  rng = np.random.default_rng(0)
  alone = rate(lambda index: source[index % len(source)])
  prepared = rate(lambda index: recipe(source[index % len(source)], rng))
  print(f'{name:<42}{alone:>10,.0f}{prepared:>12,.0f}', flush=True)


def main(argv: list[str]) -> None:
  del argv
  kinds = tuple(_KINDS.value)
  print(f'{platform.processor() or platform.machine()}, examples/s, one core')
  print(f'{"":<42}{"source":>10}{"prepared":>12}')
  for size in (32, 64, 128):
    source = Shapes(size=size, kinds=set(kinds) - {'color'})
    measure(f'shapes {size}, {" ".join(kinds)}', source, size, 'mdm', kinds)
  if _EMOJI.value:
    source = Emoji(_EMOJI.value, kinds=set(kinds) - {'color'})
    size = source[0].image.shape[0]
    measure(f'emoji {size}, {" ".join(kinds)}', source, size, 'mdm', kinds)
  with tempfile.TemporaryDirectory() as folder:
    write_photographs(pathlib.Path(folder), 200)
    source = WebDataset(folder)
    for style in ('mdm', 'standard'):
      measure(f'JPEG 500x375 to 256, {style}', source, 256, style, ('color',))


if __name__ == '__main__':
  app.run(main)
