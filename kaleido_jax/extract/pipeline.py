"""`--mode=extract`: writes the latent store that a configuration's data needs.

  python -m kaleido_jax.main --mode=extract --config=configs/cc12m.py
      --config.extract.file=latents.jsonl --config.data.store=cc12m_latents

Latents come from a file that other tools wrote, encoder states from T5. Shard
by shard: killed and started again, it goes on; started several times at once,
with `--config.extract.part=0/4` and so on, the parts share the work.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tqdm
from absl import logging

from kaleido_jax.data import records, sources, store
from kaleido_jax.data.example import BadRecord, Example, Source
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
  file = LatentsFile(wanted.file) if wanted.file else None
  states = None
  if wanted.t5:
    states = States(
      wanted.t5,
      recipe.vocabulary,
      length=data.caption_length,
      dtype=config.model.encoder.dtype,
      batch_size=wanted.batch_size,
    )
  needed = recipe.needs() - set(source.kinds) if file else set()
  kinds = [kind for kind in recipe.vocabulary.kinds if kind.name in needed]

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
  with tqdm.tqdm(total=len(shards[part::parts]), unit='shard') as bar:
    for shard in shards[part::parts]:
      if shard not in unfinished.shards():
        first = shard * wanted.shard_size
        indices = range(first, min(first + wanted.shard_size, len(source)))
        examples = list(readable(source, indices, file, kinds, tally))
        unfinished.add(shard, rows(examples, states))
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
  if not re.fullmatch(r'\d+/[1-9]\d*', wanted.part):
    raise ValueError(
      f'config.extract.part={wanted.part!r} is not of the form 0/4: the first '
      'of four parts.'
    )


def readable(
  source: Source,
  indices: Iterable[int],
  file: LatentsFile | None,
  kinds,
  tally: Tally,
) -> Iterator[tuple[Example, Mapping[str, str]]]:
  """Examples that can be used, with the strings of their latents."""
  for index in indices:
    try:
      example = source[index]
      strings: Mapping[str, str] = {}
      if file is not None:
        line = file[example.key]
        try:
          strings = Latents.from_strings(line, kinds).to_strings()
        except ValueError as error:
          detail = str(error)
          raise BadRecord('malformed latents', example.key, detail) from None
    except BadRecord as error:
      tally.add(0, [error])
      continue
    tally.add(1, [])
    yield example, strings


def rows(
  examples: list[tuple[Example, Mapping[str, str]]], states: States | None
) -> Iterator[Mapping[str, Any]]:
  """Rows of the store."""
  memory: Iterable[Any] = [None] * len(examples)
  if states is not None:
    memory = states([example.caption for example, _ in examples])
  for (example, strings), state in zip(examples, memory, strict=True):
    row = {'key': example.key, 'latents': strings, 'memory': state}
    yield store.pack(row)
