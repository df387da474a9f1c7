"""The latent store: latents made elsewhere, joined to pictures by key.

Records of {key, latents, memory}. The manifest says of which source they are
and, if there is memory (encoder states of the captions), of which encoder:
states of another encoder or precision would poison a training silently.
"""

import hashlib
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  (numpy knows bfloat16 by it)
import numpy as np

from kaleido_jax.data import records
from kaleido_jax.data.example import BadRecord, Example, Source
from kaleido_jax.latents import Latents, named
from kaleido_jax.latents.latents import Kinds
from kaleido_jax.latents.tokens import Vocabulary

KIND = 'latent'
COMMAND = (
  'python -m kaleido_jax.main --mode=extract --config=CONFIG '
  '--config.extract.file=LATENTS.jsonl --config.data.store=FOLDER'
)


def write(
  folder: str | pathlib.Path,
  rows: Iterable[Mapping[str, Any]],
  *,
  source: str,
  kinds: Collection[str],
  encoder: str = '',
) -> None:
  """Writes {key, latents: strings by kind, memory: array [l, d]} rows.

  `source` is the fingerprint of the source, `encoder` what `encoder_name` says.
  """
  about = {'source': source, 'kinds': list(kinds), 'encoder': encoder}
  records.write(folder, map(pack, rows), kind=KIND, about=about)


def pack(row: Mapping[str, Any]) -> dict[str, Any]:
  """A row as it is kept."""
  packed = {'key': row['key'], 'latents': dict(row['latents'])}
  memory = row.get('memory')
  if memory is not None:
    packed['memory'] = [memory.tobytes(), memory.dtype.name, memory.shape[1]]
  return packed


def encoder_name(
  params: Mapping[str, Any], dtype: str, vocabulary: Vocabulary, length: int
) -> str:
  """Names states of captions: whose, how precise, of which tokens."""
  digest = hashlib.sha256(vocabulary.fingerprint.encode())
  for path, leaf in sorted(_leaves(params)):
    digest.update(path.encode() + np.ascontiguousarray(leaf).tobytes())
  return f'{digest.hexdigest()[:16]}-{dtype}-{length}'


def _leaves(tree, path: str = '') -> Iterator[tuple[str, Any]]:
  if isinstance(tree, Mapping):
    for name, branch in tree.items():
      yield from _leaves(branch, f'{path}/{name}')
  else:
    yield path, tree


class Joined:
  """A source whose examples have the latents of a store as well."""

  def __init__(
    self,
    source: Source,
    folder: str | pathlib.Path,
    *,
    kinds: Kinds,
    encoder: str = '',
  ):
    """`encoder`: use its cached states; '' leaves them in the store."""
    self._source = source
    self._records = records.Records(folder, kind=KIND, command=COMMAND)
    about = self._records.about
    if about['source'] != source.fingerprint:
      raise ValueError(
        f'the latents in {folder} belong to another version of this data '
        f'({about["source"]}, not {source.fingerprint}). Make them anew: '
        f'{COMMAND}'
      )
    wanted = {named(kind).name: kind for kind in kinds}
    missing = sorted(set(wanted) - set(about['kinds']))
    if missing:
      raise ValueError(
        f'{folder} has latents of {about["kinds"]}, but none of {missing}. '
        f'Make them with: {COMMAND}'
      )
    if encoder and about['encoder'] != encoder:
      raise ValueError(
        f'{folder} has states of encoder {about["encoder"] or "(none)"}, but '
        f'this model has {encoder}. Make them anew, or let the encoder run: '
        '--config.data.cached_memory=False.'
      )
    self._wanted, self._encoder = tuple(wanted.values()), encoder
    self.kinds = {*source.kinds, *wanted}
    self.fingerprint = f'{source.fingerprint}-{self._records.fingerprint}'

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Example:
    example = self._source[index]
    record = self._records.find(example.key)
    if record is None:
      raise BadRecord('no latents', example.key)
    try:
      stored = Latents.from_strings(record['latents'], self._wanted)
    except ValueError as error:
      raise BadRecord('malformed latents', example.key, str(error)) from None
    memory = None
    if self._encoder:
      data, dtype, width = record['memory']
      memory = np.frombuffer(data, np.dtype(dtype)).reshape(-1, width)
    latents = Latents(**{**example.latents, **stored})
    return example._replace(latents=latents, memory=memory)
