"""`--mode=extract`: writes the latent store that a configuration's data needs.

  python -m kaleido_jax.main --mode=extract --config=configs/cc12m.py
      --config.extract.file=latents.jsonl --config.data.store=cc12m_latents

Latents come from a file that other tools wrote, encoder states from T5. Shard
by shard: killed and started again, it goes on; started several times at once,
with `--config.extract.part=0/4` and so on, the parts share the work.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import tqdm
from absl import logging

from kaleido_jax.data import records, sources, store
from kaleido_jax.data.example import BadRecord, Source
from kaleido_jax.data.reading import Tally
from kaleido_jax.extract.latents_file import LatentsFile
from kaleido_jax.extract.states import States
from kaleido_jax.latents import Latents


def run(config: Any, *, workdir: str) -> None:
  """Writes config.data.store."""
  del workdir  # a store is not a run's own: many runs read it
  data, wanted = config.data, config.extract
  check(config)
  recipe = sources.recipe_of(config)
  source = sources.alone(data, recipe, split=data.split)
  needed = recipe.needs() - set(source.kinds)
  kinds = [kind for kind in recipe.vocabulary.kinds if kind.name in needed]
  file = LatentsFile(wanted.file) if wanted.file and kinds else None
  if not (file or wanted.t5):
    raise ValueError(
      f'{data.source} needs no store: {list(config.latents)} come with it, or '
      'are measured on the picture.'
    )
  kinds = kinds if file else []
  states = None
  if wanted.t5:
    states = States(
      wanted.t5,
      recipe.vocabulary,
      length=data.caption_length,
      dtype=config.model.encoder.dtype,
      batch_size=wanted.batch_size,
    )

  about = {
    'source': source.fingerprint,
    'kinds': [kind.name for kind in kinds],
    'encoder': states.name if states else '',
  }
  tally = Tally(wanted.max_bad_share)
  unfinished = records.Unfinished(
    data.store,
    inputs=about
    | {'shard_size': wanted.shard_size, 'file': file and file.fingerprint},
  )
  shards = range(-(-len(source) // wanted.shard_size))
  part, parts = map(int, wanted.part.split('/'))
  done = set(unfinished.shards())
  with tqdm.tqdm(total=len(shards[part::parts]), unit='shard') as bar:
    for shard in shards[part::parts]:
      if shard not in done:
        first = shard * wanted.shard_size
        indices = range(first, min(first + wanted.shard_size, len(source)))
        lines = list(readable(source, indices, file, kinds, tally))
        unfinished.add(shard, rows(lines, states))
      bar.update()
  logging.info('%d examples, not used: %s', tally.read, dict(tally.reasons))
  left = len(shards) - len(unfinished.shards())
  if left:
    logging.info('%d shards are left to other parts', left)
    return
  unfinished.finish(kind=store.KIND, about=about)
  logging.info('complete; train with --config.data.store=%s', data.store)


def check(config: Any) -> None:
  """Refuses what would come to nothing."""
  wanted = config.extract
  if not config.data.store:
    raise ValueError('where to? Give --config.data.store=FOLDER.')
  if not (wanted.file or wanted.t5):
    raise ValueError(
      'there is nothing to extract. Give latents as --config.extract.file='
      'LATENTS.jsonl, or a folder of T5 as --config.extract.t5=flan-t5-xl to '
      'keep the encoder states of captions, or both.'
    )
  part = re.fullmatch(r'([0-9]+)/([1-9][0-9]*)', wanted.part)
  if not part or int(part[1]) >= int(part[2]):
    raise ValueError(
      f'config.extract.part={wanted.part!r} is not of the form 0/4, 1/4, 2/4 '
      'or 3/4, of four parts.'
    )
  if wanted.shard_size < 1:
    raise ValueError(f'config.extract.shard_size={wanted.shard_size} is none.')
  if config.data.source in ('toy', 'shapes'):
    raise ValueError(f'{config.data.source} has no end, so it has no store.')


class Line(NamedTuple):
  """What the store needs of an example: not its picture."""

  key: str
  caption: str
  latents: Mapping[str, str]


def readable(
  source: Source,
  indices: Iterable[int],
  file: LatentsFile | None,
  kinds,
  tally: Tally,
) -> Iterator[Line]:
  """Examples that can be used, with the strings of their latents."""
  for index in indices:
    try:
      example = source[index]
      line = Line(example.key, example.caption, {})
      if file is not None:
        line = line._replace(
          latents=_checked(file[example.key], kinds, line.key)
        )
    except BadRecord as error:
      tally.add(0, [error])
      continue
    tally.add(1, [])
    yield line


def _checked(line: Mapping[str, Any], kinds, key: str) -> Mapping[str, str]:
  try:
    strings = Latents.from_strings(line, kinds).to_strings()
    ''.join(strings.values()).encode()  # JSON can hold halves of characters
  except ValueError as error:
    raise BadRecord('malformed latents', key, str(error)) from None
  return strings


def rows(lines: list[Line], states: States | None) -> Iterator[dict[str, Any]]:
  """Rows of the store."""
  memory: Iterable[Any] = [None] * len(lines)
  if states is not None:
    memory = states([line.caption for line in lines])
  for line, state in zip(lines, memory, strict=True):
    row = {'key': line.key, 'latents': line.latents, 'memory': state}
    yield store.pack(row)
