"""What people type, or keep in files: checked, and as token ids."""

import collections
import csv
import io
import json
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32

from kaleido_jax.latents import Latents
from kaleido_jax.latents.tokens import Vocabulary, pad
from kaleido_jax.models import decoding


def several(prompt: str | Sequence[str]) -> list[str]:
  """One prompt, or a list of them."""
  texts = [prompt] if isinstance(prompt, str) else list(prompt)
  if not texts:
    raise ValueError('there is no prompt; say what to draw.')
  return texts


def listed(path: pathlib.Path) -> list[str]:
  """Prompts of a file: a line each, or the field or column `prompt`."""
  if not path.is_file():
    raise FileNotFoundError(f'there is no file {path} (--prompts).')
  try:
    text = path.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise ValueError(f'{path} is no text in UTF-8: {error}.') from error
  readers = {'.csv': _of_csv, '.jsonl': _of_jsonl}
  found = list(readers.get(path.suffix.lower(), _of_lines)(path, text))
  if not found:
    raise ValueError(f'{path} has no prompts.')
  return found


def _of_lines(path: pathlib.Path, text: str) -> Iterator[str]:
  del path
  yield from (line for line in text.split('\n') if line.strip())


def _of_csv(path: pathlib.Path, text: str) -> Iterator[str]:
  rows = csv.DictReader(io.StringIO(text, newline=''))
  if 'prompt' not in (rows.fieldnames or ()):
    raise ValueError(
      f'{path} has the columns {rows.fieldnames}; one must be `prompt`.'
    )
  _refuse_fields(path, 1, rows.fieldnames)
  try:
    for row in rows:
      if not row['prompt']:
        raise ValueError(f'{path}, line {rows.line_num}: there is no prompt.')
      yield row['prompt']
  except csv.Error as error:
    raise ValueError(f'{path}, line {rows.line_num + 1}: {error}.') from error


def _of_jsonl(path: pathlib.Path, text: str) -> Iterator[str]:
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    try:
      entry = json.loads(line)
      prompt = entry['prompt']
    except (ValueError, KeyError, TypeError):
      prompt = None
    if not isinstance(prompt, str):
      raise ValueError(
        f'{path}, line {number}: {line[:60]!r} is no object with a `prompt`.'
      )
    _refuse_fields(path, number, entry)
    yield prompt


def _refuse_fields(path: pathlib.Path, line: int, names) -> None:
  """What would change a picture elsewhere must not be passed over here."""
  for name in ('seed', 'index', 'latents', 'settings'):
    if name in names:
      raise ValueError(
        f'{path}, line {line}: there is no {name} in a list of prompts; a list '
        'of pictures, as latents.json, has one (--latents).'
      )


def counted(texts: Sequence[str]) -> list[int]:
  """How many times each was there before: the number of its picture."""
  seen: collections.Counter[str] = collections.Counter()
  found = []
  for text in texts:
    found.append(seen[text])
    seen[text] += 1
  return found


def number(
  seed: int | None, known: tuple[int, int] | None, index: int
) -> tuple[int, int]:
  """What a seed says; or else what latents remember; or else 0."""
  if seed is None and known is not None:
    return known
  return seed or 0, index


def paired(
  texts: list[str], latents: list[Latents]
) -> tuple[list[str], list[Latents]]:
  """As many of the one as of the other; a single one goes with all."""
  count = max(len(texts), len(latents))
  texts = texts * count if len(texts) == 1 else texts
  latents = latents * count if len(latents) == 1 else latents
  if len(texts) != len(latents):
    raise ValueError(
      f'{len(texts)} prompts and {len(latents)} latents do not go together; '
      'give as many of both, or one of either.'
    )
  return texts, latents


def ids(text: str, words: Vocabulary, length: int) -> Int32[np.ndarray, ' l']:
  """Token ids, padded to a bucket; refuses what a model cannot read."""
  shown = repr(text if len(text) <= 60 else f'{text[:57]}...')
  if not text.strip():
    raise ValueError('the prompt is empty; say what to draw.')
  control = [c for c in text if unicodedata.category(c) in ('Cc', 'Cs')]
  if control:
    raise ValueError(
      f'the prompt {shown} has the control character {control[0]!r}; leave it '
      'out.'
    )
  strange = words.strange(text)
  if strange:
    raise ValueError(
      f'the prompt {shown} has {strange!r}, which is not in the vocabulary of '
      'this model; use other words.'
    )
  found, cut = words.encode_caption(text, length)
  if cut:
    raise ValueError(
      f'the prompt {shown} is longer than the {length - 1} tokens that the '
      'model has seen; shorten it.'
    )
  used = int((found != 0).sum())
  return pad(found[:used].tolist(), min(length, decoding.bucket(used)))


def share(part: str) -> tuple[int, int]:
  """Which, of how many: '1/4' is the second of four."""
  found = re.fullmatch(r'([0-9]+)/([1-9][0-9]*)', part)
  if not found or int(found[1]) >= int(found[2]):
    raise ValueError(f'--part={part} is not of the form 0/4, 1/4, 2/4, 3/4.')
  return int(found[1]), int(found[2])
