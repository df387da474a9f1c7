"""Pictures by the command line: one, or a long list that may be interrupted.

  python -m kaleido_jax.main --mode=sample --workdir=runs/shapes \\
    --prompt="a red circle" --num=8 --config.sample.guidance=4.0

A folder gets a PNG for each picture, which remembers how it came about, and at
the end sheet.png and latents.json. Started again, only what is missing is
drawn; with --part=0/4 and so on, several processes share a list. What a person
has changed in latents.json, or a PNG, is drawn with --latents=FILE.
"""

import csv
import hashlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from kaleido_jax import api, pictures, sheet
from kaleido_jax.pictures import Asked

SHOWN = 64  # pictures on the sheet
# What a picture remembers of config.sample, beside its methods.
SETTINGS = (
  *('guidance', 'steps', 'solver', 'spacing'),
  *('threshold', 'quantile', 'ceiling', 'temperature', 'top_k', 'top_p'),
)


class Request(NamedTuple):
  """What flags ask for."""

  prompt: Sequence[str] = ()
  prompts: str = ''  # a file
  latents: str = ''  # a file of ours: JSON, or a PNG
  num: int = 1  # of each prompt
  seed: int = 0
  out: str = ''  # a folder
  part: str = '0/1'


def run(config: ConfigDict, *, workdir: str, **flags: Any) -> None:
  """Draws what is asked for (see `Request`) and is not there yet."""
  request = Request(**flags)
  part, parts = _share(request.part)
  model = api.load(workdir)
  wanted = [
    each._replace(
      settings=settings(config.sample, each.settings, model.config.sample),
      model=workdir,
      step=model.step,
    )
    for each in asked(request, model.kinds)
  ]
  out = pathlib.Path(request.out or default_folder(workdir, wanted))
  out.mkdir(parents=True, exist_ok=True)
  files = [out / f'{number:06}.png' for number in range(len(wanted))]
  mine = range(part, len(wanted), parts)
  missing = [n for n in mine if not _is_drawn(files[n], wanted[n], model.kinds)]
  logging.info(
    '%s: %d pictures into %s, %d of them are there',
    model,
    len(mine),
    out,
    len(mine) - len(missing),
  )
  with tqdm.tqdm(total=len(missing), unit='picture', disable=None) as bar:
    for some in _alike(missing, wanted, model.batch_rows):
      sample = model.asked(**wanted[some[0]].settings)
      images, latents = model.draw(
        [wanted[n] for n in some],
        sample,
        lambda done, steps, _: bar.set_postfix_str(f'step {done} of {steps}'),
      )
      for n, image, each in zip(some, images, latents, strict=True):
        pictures.save(files[n], image, wanted[n]._replace(latents=each))
      bar.update(len(some))
  if all(file.exists() for file in files):  # by whoever is the last
    _finish(out, files, model.kinds)


def asked(request: Request, kinds: Sequence[str]) -> list[Asked]:
  """The list that flags and files make."""
  sources = [request.prompt, request.prompts, request.latents]
  if sum(map(bool, sources)) != 1:
    raise ValueError(
      'what to draw? Give one of --prompt="...", --prompts=FILE, '
      '--latents=FILE.'
    )
  if request.num < 1:
    raise ValueError(f'--num={request.num} asks for nothing; give 1 or more.')
  if request.latents:
    path = pathlib.Path(request.latents)
    if not path.is_file():
      raise FileNotFoundError(f'there is no file {path} (--latents).')
    if path.suffix.lower() == '.png':
      return [pictures.asked_of(path, kinds)]
    return pictures.read(path, kinds)
  texts = list(request.prompt) or listed(pathlib.Path(request.prompts))
  return [
    Asked(text, seed=request.seed, index=index)
    for text in texts
    for index in range(request.num)
  ]


def listed(path: pathlib.Path) -> list[str]:
  """Prompts of a file: a line each, or the field or column `prompt`."""
  if not path.is_file():
    raise FileNotFoundError(f'there is no file {path} (--prompts).')
  lines = path.read_text().splitlines()
  if path.suffix == '.csv':
    rows = list(csv.DictReader(lines))
    if rows and 'prompt' not in rows[0]:
      raise ValueError(
        f'{path} has the columns {list(rows[0])}; one must be `prompt`.'
      )
    found = [row['prompt'] for row in rows]
  elif path.suffix == '.jsonl':
    found = []
    for number, line in enumerate(lines, 1):
      if not line.strip():
        continue
      try:
        found.append(json.loads(line)['prompt'])
      except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
          f'{path}, line {number}: {line[:60]!r} is no object with a `prompt`.'
        ) from error
  else:
    found = [line for line in lines if line.strip()]
  if not found:
    raise ValueError(f'{path} has no prompts.')
  return found


def settings(sample: ConfigDict, own: Any, default: ConfigDict) -> dict:
  """How a picture is drawn: as flags say, or as it remembers, or as ever."""
  found = {}
  for name in SETTINGS:
    said = sample[name]
    found[name] = own.get(name, said) if said == default[name] else said
  for name in sample.methods:
    found[name] = sample[name].to_dict()
  return found | {n: v for n, v in own.items() if n not in found}


def default_folder(workdir: str, wanted: Sequence[Asked]) -> str:
  """Named by the first prompt, and apart for every other list."""
  words = re.sub('[^a-z0-9]+', '-', wanted[0].prompt.lower())[:40].strip('-')
  text = json.dumps([each.to_json() for each in wanted])
  mark = hashlib.sha256(text.encode()).hexdigest()[:6]
  home = 'runs/' + workdir.replace(':', '-') if ':' in workdir else workdir
  return f'{home}/drawn/{words}-{mark}'


def _share(part: str) -> tuple[int, int]:
  found = re.fullmatch(r'([0-9]+)/([1-9][0-9]*)', part)
  if not found or int(found[1]) >= int(found[2]):
    raise ValueError(f'--part={part} is not of the form 0/4, 1/4, 2/4, 3/4.')
  return int(found[1]), int(found[2])


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


def _alike(numbers, wanted, most: int):
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
  Image.fromarray(sheet.draw(tiles)).save(out / 'sheet.png')
  logging.info('%d pictures; see %s', len(files), out / 'sheet.png')
