"""Pictures by the command line: one, or a long list that may be interrupted.

  python -m kaleido_jax.main --mode=sample --workdir=runs/shapes \\
    --prompt="a red circle" --num=8 --config.sample.guidance=4.0

A folder gets a PNG for each picture, which remembers how it came about, and at
the end sheet.png and latents.json. Started again, only what is missing is
drawn; with --part=0/4 and so on, several processes share a list. What a person
has changed in latents.json, or a PNG, is drawn with --latents=FILE.
"""

import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from kaleido_jax import api, exported, options, pictures, prompts, sheet
from kaleido_jax.latents.latents import Kind
from kaleido_jax.pictures import Asked

SHOWN = 64  # pictures on the sheet


class Request(NamedTuple):
  """What flags ask for."""

  prompt: Sequence[str] = ()
  prompts: str = ''  # a file
  latents: str = ''  # a file of ours: JSON, or a PNG
  num: int | None = None  # of each prompt; None: 1
  seed: int | None = None  # None: 0
  out: str = ''  # a folder
  part: str = '0/1'
  said: Sequence[str] = ()  # fields of the configuration that flags override


def run(config: ConfigDict, *, workdir: str, **flags: Any) -> None:
  """Draws what is asked for (see `Request`) and is not there yet."""
  request = Request(**flags)
  part, parts = prompts.share(request.part)
  model = api.load(workdir)
  if len(model.config.image_shapes[0]) < 3:
    raise ValueError(f'{workdir} draws points, of which there is no PNG.')
  kinds = model.words.kinds
  name = workdir if ':' in workdir else os.path.normpath(workdir)
  wanted = []
  for each in asked(request, kinds):
    pictures.warn_of_another(each, name, model.step)
    own = options.settings(config.sample, each.settings, request.said)
    wanted.append(each._replace(settings=own, model=name, step=model.step))
  model.check(wanted)

  out = pathlib.Path(request.out or default_folder(name, wanted))
  _make(out)
  files = [out / f'{number:06}.png' for number in range(len(wanted))]
  mine = range(part, len(wanted), parts)
  missing = [n for n in mine if not _is_drawn(files[n], wanted[n], kinds)]
  there = len(mine) - len(missing)
  logging.info(
    '%s: %d pictures into %s, %d of them are there',
    *(model, len(mine), out, there),
  )
  with tqdm.tqdm(total=len(missing), unit='picture', disable=None) as bar:
    for some in _alike(missing, wanted, model.batch_rows):
      images, latents = model.draw(
        [wanted[n] for n in some],
        model.asked(**wanted[some[0]].settings),
        lambda seen: bar.set_postfix_str(f'step {seen.done} of {seen.steps}'),
      )
      for n, image, each in zip(some, images, latents, strict=True):
        pictures.save(files[n], image, wanted[n]._replace(latents=each))
      bar.update(len(some))
      if bar.disable:
        there += len(some)
        logging.info('%d of %d pictures', there, len(mine))
  finished = (out / 'sheet.png').exists() and (out / 'latents.json').exists()
  if finished and not missing:
    return  # a person may have edited the list meanwhile
  if all(map(_is_drawn, files, wanted, [kinds] * len(files))):
    _finish(out, files, kinds)  # whoever is the last


def asked(request: Request, kinds: Sequence[Kind]) -> list[Asked]:
  """The list that flags and files make."""
  sources = [request.prompt, request.prompts, request.latents]
  if sum(map(bool, sources)) != 1:
    raise ValueError(
      'what to draw? Give one of --prompt="...", --prompts=FILE, '
      '--latents=FILE.'
    )
  num = 1 if request.num is None else request.num
  if num < 1:
    raise ValueError(f'--num={num} asks for nothing; give 1 or more.')
  if request.latents:
    if (request.num, request.seed) != (None, None):
      raise ValueError(
        'latents have seeds and numbers of their own: leave out --num and '
        '--seed, or change them in the file.'
      )
    path = pathlib.Path(request.latents)
    if not path.is_file():
      raise FileNotFoundError(f'there is no file {path} (--latents).')
    if path.suffix.lower() == '.png':
      return [pictures.asked_of(path, kinds)]
    return pictures.read(path, kinds)
  said = list(request.prompt) or prompts.listed(pathlib.Path(request.prompts))
  texts = [text for text in said for _ in range(num)]
  return [
    Asked(text, seed=request.seed or 0, index=index)
    for text, index in zip(texts, prompts.counted(texts), strict=True)
  ]


def default_folder(name: str, wanted: Sequence[Asked]) -> str:
  """Named by the first prompt, and apart for every other list."""
  words = re.sub('[^a-z0-9]+', '-', wanted[0].prompt.lower())[:40].strip('-')
  text = json.dumps([each.to_json() for each in wanted])
  mark = hashlib.sha256(text.encode()).hexdigest()[:6]
  return f'{exported.home(name)}/drawn/{words or "pictures"}-{mark}'


def _make(folder: pathlib.Path) -> None:
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise ValueError(
      f'{folder} cannot be written to: {error}. Give another --out.'
    ) from error


def _is_drawn(file: pathlib.Path, wanted: Asked, kinds) -> bool:
  """Whether this very picture is there."""
  if not file.exists():
    return False
  try:
    there = pictures.asked_of(file, kinds)
  except ValueError:
    return False
  if wanted.latents is None:
    there = there._replace(latents=None)
  return there.to_json() == json.loads(json.dumps(wanted.to_json()))


def _alike(numbers, wanted, most: int) -> Iterator[list[int]]:
  """Groups of pictures with the same settings."""
  group: list[int] = []
  for n in numbers:
    if group and (
      len(group) == most or wanted[n].settings != wanted[group[0]].settings
    ):
      yield group
      group = []
    group.append(n)
  if group:
    yield group


def _finish(out: pathlib.Path, files, kinds) -> None:
  drawn = [pictures.asked_of(file, kinds) for file in files]
  pictures.write(out / 'latents.json', drawn)
  tiles = []
  for file, each in zip(files[:SHOWN], drawn, strict=False):
    with Image.open(file) as image:
      tiles.append(sheet.Tile(np.asarray(image), each.prompt, each.latents))
  pictures.write_png(out / 'sheet.png', sheet.draw(tiles))
  logging.info('%d pictures; see %s', len(files), out / 'sheet.png')
