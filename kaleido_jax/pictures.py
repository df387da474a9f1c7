"""Pictures on disk that remember how they came about.

A PNG has, in a text chunk of its own, what `latents.json` has for all of them:

  {"prompt": "a red circle", "seed": 0, "index": 3, "latents": {"bbox": "..."},
   "settings": {"guidance": 4.0, ...}, "model": "runs/shapes", "step": 20000}

A person may edit the JSON and hand it back: what is wrong with it is said by
line and field, and nothing is drawn.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import UInt8
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from kaleido_jax.generate import FILLING
from kaleido_jax.latents import Latents
from kaleido_jax.latents.latents import Kind

CHUNK = 'kaleido_jax'
MOST = {'seed': 2**32, 'index': FILLING}  # numbers are below


class Asked(NamedTuple):
  """A picture in words: all that it depends on."""

  prompt: str
  latents: Latents | None = None  # None: to be imagined
  seed: int = 0
  index: int = 0
  settings: Mapping[str, Any] = {}
  model: str = ''
  step: int | None = None

  def to_json(self) -> dict[str, Any]:
    found = self._asdict() | {'settings': dict(self.settings)}
    if self.latents is not None:
      found['latents'] = self.latents.to_strings()
    return found


def save(
  path: pathlib.Path, image: UInt8[np.ndarray, 'h w 3'], asked: Asked
) -> None:
  """Writes a PNG whole, or not at all."""
  info = PngImagePlugin.PngInfo()
  info.add_itxt(CHUNK, json.dumps(asked.to_json(), ensure_ascii=False))
  write_png(path, image, info)


def write_png(
  path: pathlib.Path,
  image: UInt8[np.ndarray, 'h w 3'],
  info: PngImagePlugin.PngInfo | None = None,
) -> None:
  with _whole(path) as new:
    Image.fromarray(image).save(new, format='PNG', pnginfo=info)


def asked_of(path: pathlib.Path, kinds: Sequence[Kind]) -> Asked:
  """How a PNG of ours came about. No person wrote it: it is read as it is."""
  try:
    with Image.open(path) as image:
      text = getattr(image, 'text', {}).get(CHUNK)
  except (UnidentifiedImageError, OSError) as error:
    raise ValueError(f'{path} is no picture: {error}.') from error
  if text is None:
    raise ValueError(
      f'{path} does not say how it was drawn: it is no PNG of kaleido_jax, or '
      'another program has saved it since.'
    )
  try:
    value = json.loads(text)
    latents = value.pop('latents')
  except (ValueError, KeyError, AttributeError) as error:
    raise ValueError(
      f'{path}: another program has changed its text.'
    ) from error
  asked = _asked(value, kinds, str(path), lambda field: '')
  if latents is None:
    return asked
  names = [kind.name for kind in kinds]
  if sorted(latents) != sorted(names):
    raise ValueError(
      f'{path} has latents {list(latents)}, but this model reads {names}.'
    )
  found = {k.name: k.parse(latents.get(k.name, ''))[0] for k in kinds}
  latents = Latents(**found).numbered(asked.seed, asked.index)
  return asked._replace(latents=latents)


def read(path: pathlib.Path, kinds: Sequence[Kind]) -> list[Asked]:
  """What `latents.json` asks for; strict."""
  try:
    text = path.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is no text in UTF-8: {error}.') from error
  try:
    entries = _entries(text)
  except json.JSONDecodeError as error:
    raise ValueError(
      f'{path}, line {error.lineno}, column {error.colno}: {error.msg}.'
    ) from error
  if not entries:
    raise ValueError(f'{path} asks for nothing; it has no entries.')
  found = []
  for number, (start, end, value) in enumerate(entries):

    def line(field: str, start=start, end=end) -> str:
      key = re.compile(rf'"{re.escape(field)}"\s*:')
      found = key.search(text, start, end)
      at = found.start() if found else start
      return f', line {text.count(chr(10), 0, at) + 1}'

    found.append(_asked(value, kinds, f'{path}, entry {number}', line))
  return found


def write(path: pathlib.Path, asked: Sequence[Asked]) -> None:
  """A list that a person can read and edit."""
  text = json.dumps([a.to_json() for a in asked], indent=1, ensure_ascii=False)
  with _whole(path) as new:
    new.write_text(f'{text}\n', encoding='utf-8')


def warn_of_another(asked: Asked, model: str, step: int) -> None:
  """Says so, if this is not the model that has drawn it."""
  if asked.model and (asked.model, asked.step) != (model, step):
    logging.warning(
      '%r was drawn by %s, step %s; this is %s, step %s',
      *(asked.prompt, asked.model, asked.step, model, step),
    )


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Where a file is written before it is whole, by this process alone."""
  # Containers that share a disk may all be process 1.
  mine = f'{path.name}.{socket.gethostname()}.{os.getpid()}.new'
  new = path.with_name(mine)
  try:
    yield new
    new.replace(path)
  except OSError as error:
    new.unlink(missing_ok=True)
    raise ValueError(f'{path} cannot be written: {error}.') from error


def _entries(text: str) -> list[tuple[int, int, Any]]:
  """The values of a list, or a single one: where it begins and ends, and it."""
  decoder = json.JSONDecoder()

  def skip(at: int) -> int:
    while at < len(text) and text[at] in ' \t\r\n':
      at += 1
    return at

  at = skip(0)
  if text[at : at + 1] != '[':
    value, end = decoder.raw_decode(text, at)
    if skip(end) < len(text):
      raise json.JSONDecodeError('Extra data', text, skip(end))
    return [(at, end, value)]
  found, at = [], skip(at + 1)
  while text[at : at + 1] != ']':
    value, end = decoder.raw_decode(text, at)
    found.append((at, end, value))
    at = skip(end)
    if text[at : at + 1] == ',':
      at = skip(at + 1)
    elif text[at : at + 1] != ']':
      raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
  if skip(at + 1) < len(text):
    raise json.JSONDecodeError('Extra data', text, skip(at + 1))
  return found


def _asked(value: Any, kinds: Sequence[Kind], where: str, line) -> Asked:
  """One entry; `line(field)` says where in the file a field is."""

  def refuse(field: str, why: str):
    raise ValueError(f'{where}{line(field)}: {field} {why}.')

  if not isinstance(value, dict):
    raise ValueError(f'{where}{line("")} is {value!r:.40}, which is no object.')
  unknown = sorted(set(value) - set(Asked._fields))
  if unknown:
    refuse(unknown[0], f'is no field; there are {", ".join(Asked._fields)}')
  if not isinstance(value.get('prompt'), str):
    refuse('prompt', f'is {value.get("prompt")!r:.40}, which is no string')
  for field in ('seed', 'index'):
    number = value.get(field, 0)
    whole = isinstance(number, int) and not isinstance(number, bool)
    if not whole or not 0 <= number < MOST[field]:
      refuse(
        field, f'is {number!r:.40}, which is no number of 0..{MOST[field] - 1}'
      )
  settings = value.get('settings') or {}
  if not isinstance(settings, dict):
    refuse('settings', f'is {settings!r:.40}, which is no object')
  methods = settings.get('methods', [])
  if not isinstance(methods, list) or set(map(type, methods)) - {str}:
    refuse('methods', f'is {methods!r:.40}, which is no list of names')
  latents = value.get('latents')
  if latents is not None:
    if not isinstance(latents, dict):
      refuse('latents', f'is {latents!r:.40}, which is no object')
    names = [kind.name for kind in kinds]
    for field in latents:
      if field not in names:
        refuse(field, f'is no kind of latent of this model; it has {names}')
    for kind in kinds:
      try:
        Latents.from_strings(latents, [kind])
      except ValueError as error:
        known = kind.name in latents
        refuse(kind.name if known else 'latents', f'- {error}'[:-1])
    latents = Latents.from_strings(latents, kinds)
    latents = latents.numbered(value.get('seed', 0), value.get('index', 0))
  return Asked(
    prompt=value['prompt'],
    latents=latents,
    seed=value.get('seed', 0),
    index=value.get('index', 0),
    settings=settings,
    model=value.get('model') or '',
    step=value.get('step'),
  )
