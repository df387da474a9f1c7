"""Small packages in the layouts of iconify, emojibase and LobeHub."""

import base64
import hashlib
import io
import json
import tarfile

from PIL import Image

from kaleido_jax.data.emoji import vendors

FIRST = 0x1F400  # forty animals, as they stand in Unicode
COUNT = 40
CAPTIONS = [
  f'thing {chr(97 + i // 26)}{chr(97 + i % 26)}' for i in range(COUNT)
]


def circle(x=8.0, y=8.0, r=4.0, fill='#ff0000'):
  return {'body': f'<circle cx="{x}" cy="{y}" r="{r}" fill="{fill}"/>'}


def emojibase():
  """en/data.json: plain emoji, and one of each sort that is not plain."""
  entries = [
    {
      'label': caption,
      'hexcode': f'{FIRST + i:X}',
      'tags': ['animal', 'animals', caption, 'pet', 'small', 'tame'],
      'group': 3,
    }
    for i, caption in enumerate(CAPTIONS)
  ]
  entries[0]['skins'] = [
    {'label': 'thing aa: dark', 'hexcode': f'{FIRST:X}-1F3FF'}
  ]
  return [
    *entries,
    {'label': 'a letter', 'hexcode': '1F1E6'},
    {'label': 'a tone', 'hexcode': '1F3FF', 'group': 2},
    {'label': 'a sign', 'hexcode': '267B', 'group': 8},
    {'label': 'a flag', 'hexcode': '1F1E6-1F1E9', 'group': 9},
    {'label': 'glasses: sun', 'hexcode': '1F576-FE0F', 'group': 7},
  ]


def dots():
  """Code points are known; a sign, a flag, a letter and a skin tone too."""
  codes = [f'{FIRST + i:x}' for i in range(COUNT)]
  codes += ['1f1e6', '267b', '1f1e6-1f1e9', f'{FIRST:x}-1f3ff', 'dead']
  icons = {f'dot-{c}': circle(r=2 + i / 8) for i, c in enumerate(codes)}
  icons[f'dot-{codes[3]}']['body'] = '<circle r="4'
  icons[f'dot-{codes[4]}'] = circle(r=0)
  icons[f'dot-{codes[0]}'] = circle(x=6, y=10, r=4)
  return {
    'icons.json': {'width': 16, 'height': 16, 'icons': icons},
    'chars.json': {c: f'dot-{c}' for c in codes},
  }


def plates():
  """Names alone: numbered, withdrawn, mirrored, by the name in Unicode."""
  icons = {
    'thing-aa-1': circle(fill='#0000ff'),
    'thing-aa-2': circle(r=6, fill='#0000ff'),
    'Thing_AB': {'body': circle(4, 4, 2)['body'], 'width': 8, 'height': 8},
    'thing-ac': {**circle(), 'hidden': True},
    'thingac': circle(r=7),
    'dark-sunglasses': circle(fill='#00ff00'),
    'no-such-thing': circle(),
    'thing-ae': circle(x=5),
    'thing-ah': circle(r=2 + 7 / 8),  # as the dot
    'thing-ai': circle(r=2 + 9 / 8),  # as the dot of 'thing aj', held out
  }
  aliases = {
    'thing-af': {'parent': 'thing-ae', 'hFlip': True},
    'thing-ag': {'parent': 'thing-ae'},
  }
  top = {'width': 16, 'height': 16, 'icons': icons, 'aliases': aliases}
  return {'icons.json': top}


def balls():
  """Images, named with U+FE0F; one is no image."""
  files = {}
  for i in range(5, 9):
    file = io.BytesIO()
    Image.new('RGBA', (32, 32), (255, 0, 10 * i, 255)).save(file, 'webp')
    files[f'assets/{FIRST + i:x}-fe0f.webp'] = file.getvalue()
  files[f'assets/{FIRST + 9:x}.webp'] = b'no image'
  return files


def pack(folder, name, files, version='1.0.0'):
  """Writes the tarball; says what would be pinned."""
  package = vendors.Package(name=name, version=version, integrity='')
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / package.file
  with tarfile.open(path, 'w:gz') as tar:
    for file, content in files.items():
      if not isinstance(content, bytes):
        content = json.dumps(content).encode()
      member = tarfile.TarInfo(f'package/{file}')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  digest = hashlib.sha512(path.read_bytes()).digest()
  integrity = f'sha512-{base64.b64encode(digest).decode()}'
  return vendors.Package(name=name, version=version, integrity=integrity)


def vendor(folder, name, files, licence):
  return vendors.EmojiSet(
    name=name,
    package=pack(folder, f'@tests/{name}', files),
    style=f'{name} style',
    licence=licence,
    attribution=f'{name} by nobody',
  )


def everything(folder):
  """The captions' package and three sets, packed in a folder."""
  captions = pack(folder, 'captions', {'en/data.json': emojibase()})
  sets = (
    vendor(folder, 'dots', dots(), 'MIT'),
    vendor(folder, 'plates', plates(), 'CC-BY-SA-4.0'),
    vendor(folder, 'balls', balls(), 'CC-BY-4.0'),
  )
  return captions, sets
