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
from PIL import Image

from kaleido_jax.data import imagenet
from kaleido_jax.data.emoji import Emoji
from kaleido_jax.data.recipe import Recipe
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.data.tfds import Tfds
from kaleido_jax.data.toy import Toy
from kaleido_jax.data.webdataset import WebDataset
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
  grain = rng.normal(0, 20, (375, 500, 3))
  pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=90)
  return file.getvalue()


def write_photographs(folder: pathlib.Path, count: int) -> None:
  """A shard as img2dataset leaves it, and a class of ImageNet."""
  rng = np.random.default_rng(0)
  pictures = folder / 'imagenet/val/n01440764'
  pictures.mkdir(parents=True)
  with tarfile.open(folder / '00000.tar', 'w') as tar:
    for index in range(count):
      key, data = f'{index:09}', photograph(rng)
      (pictures / f'{key}.JPEG').write_bytes(data)
      for suffix, content in (
        ('jpg', data),
        ('txt', f'photograph {index}'.encode()),
        ('json', json.dumps({'key': key}).encode()),
      ):
        member = tarfile.TarInfo(f'{key}.{suffix}')
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def rate(read) -> float:
  """Calls a second, with ever another index."""
  for index in range(20):
    read(index)
  started, count = time.process_time(), 0
  while (elapsed := time.process_time() - started) < _SECONDS.value:
    read(count)
    count += 1
  return count / elapsed


def measure(name: str, source, size: int | None, style: str, kinds) -> None:
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
  measure('toy, text', Toy(), None, 'mdm', ('text',))
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    write_photographs(folder, 200)
    imagenet.prepare(folder / 'imagenet', folder / 'tfds', ['validation'])
    kilobytes = (folder / '00000.tar').stat().st_size / 200_000
    print(f'JPEG of 500 x 375 pixels, {kilobytes:.0f} kB, to 256; color')
    photographs = {
      'webdataset': WebDataset(folder),
      'tfds': Tfds('imagenet2012', folder / 'tfds', split='validation'),
    }
    for name, source in photographs.items():
      for style in ('mdm', 'standard'):
        measure(f'  {name}, {style}', source, 256, style, ('color',))


if __name__ == '__main__':
  app.run(main)
