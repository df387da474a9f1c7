"""Captions and latents as token ids: T5's SentencePiece vocabulary, and more.

Behind the vocabulary of the model come whole tokens for the kinds that are ids:
with latents of voken and color, row 32128 is `<voken_0>` and row 40320 is
`<color_0>`. T5's files know 32,000 pieces and its models have 32,128 rows; the
rows between belong to nobody here.

  a dog | 12#7  ->  ▁a ▁dog ▁| <voken_12> <voken_7> </s>
"""

import functools
import hashlib
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import sentencepiece
from jaxtyping import Bool, Int, Int32

from kaleido_jax.arrays import Array
from kaleido_jax.latents.latents import SEPARATOR, Kind, Kinds, Latents, named

PAD, EOS, UNKNOWN = 0, 1, 2
_HERE = pathlib.Path(__file__).parent
EMBEDDED = {  # in this package
  '': _HERE / 'vocabulary.model',
  'shapes': _HERE / 'shapes.model',  # for shapes alone
  'emoji': _HERE / 'emoji.model',  # for emoji alone
}
_OPEN, _CLOSE = '([', ')]'


class Vocabulary:
  """Pieces of words, and the ids of some kinds of latents."""

  def __init__(
    self, path: str = '', *, kinds: Kinds = (), rows: int | None = None
  ):
    """Reads a SentencePiece model: a file, or a name of EMBEDDED.

    `rows` is how many rows the language model had before its vocabulary grew:
    32128 for T5. None is as many as there are pieces.
    """
    file = EMBEDDED.get(path) or pathlib.Path(path)
    if not file.is_file():
      raise FileNotFoundError(
        f'there is no vocabulary at {file}. T5 has it as spiece.model beside '
        f'its weights; in this package are {list(EMBEDDED)}.'
      )
    self.file = file
    self.kinds = tuple(map(named, kinds))
    pieces = self._pieces.get_piece_size()
    rows = pieces if rows is None else rows
    if rows < pieces:
      raise ValueError(f'{file} has {pieces} pieces, more than {rows} rows.')
    if [self._pieces.pad_id(), self._pieces.eos_id()] != [PAD, EOS]:
      raise ValueError(
        f'{file} is no T5 vocabulary: padding and end are '
        f'{self._pieces.pad_id()} and {self._pieces.eos_id()}, not 0 and 1.'
      )
    self.rows = rows  # what an encoder of captions needs
    self.first = {}  # the row of id 0 of a kind
    for kind in self.kinds:
      if kind.pieces:
        self.first[kind.name] = rows
        rows += kind.pieces
    self.size = rows  # what a decoder of latents needs

  def __getstate__(self):
    return {k: v for k, v in self.__dict__.items() if k != '_pieces'}

  @functools.cached_property
  def _pieces(self) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(self.file))

  @functools.cached_property
  def fingerprint(self) -> str:
    """Changes when the pieces do."""
    return hashlib.sha256(self.file.read_bytes()).hexdigest()[:16]

  @functools.cached_property
  def separator(self) -> int:
    """The piece that stands between two kinds."""
    pieces = self._pieces.encode(SEPARATOR.strip())
    # In some vocabularies the blank before it is a piece of its own.
    return pieces[-1]

  def encode(self, text: str) -> list[int]:
    """The pieces of a text, without an end."""
    return self._pieces.encode(text)

  def encode_caption(
    self, text: str, length: int
  ) -> tuple[Int32[np.ndarray, ' l'], bool]:
    """Pieces and EOS, padded; and whether it was too long and cut at a word."""
    ids, cut = self._cut(self.encode(text), length - 1)
    return pad(ids + [EOS], length), cut

  def encode_latents(
    self, latents: Latents, lengths: Mapping[str, int]
  ) -> tuple[Int32[np.ndarray, ' m'], list[str]]:
    """z, padded to `length_of(lengths)`, and the kinds that had to be cut."""
    z, cut = self._joined(self.kinds, latents, lengths)
    return pad([*z, EOS], self.length_of(lengths)), cut

  def encode_prefix(
    self, latents: Latents, lengths: Mapping[str, int]
  ) -> tuple[Int32[np.ndarray, ' m'], list[str]]:
    """The same of the first kinds alone, with a separator at the end."""
    z, cut = self._joined(self.kinds[: len(latents)], latents, lengths)
    return pad([*z, self.separator], self.length_of(lengths)), cut

  def _joined(
    self, kinds: Sequence[Kind], latents: Latents, lengths: Mapping[str, int]
  ) -> tuple[list[int], list[str]]:
    """Kinds with separators between, and those that had to be cut."""
    z, cut = [], []
    for index, kind in enumerate(kinds):
      ids, shorter = self._cut(
        self._encode_kind(kind, latents[kind.name]),
        lengths[kind.name],
        objects=hasattr(kind, 'thing'),
      )
      z += [self.separator] * (index > 0) + ids
      cut += [kind.name] * shorter
    return z, cut

  def grammar(
    self, lengths: Mapping[str, int]
  ) -> tuple[Bool[np.ndarray, 'k 2 v'], Int32[np.ndarray, ' k']]:
    """(allowed, full): which tokens a kind has, and how many of them.

    Ids come in their number; words are of pieces, as many as there is room for.
    Then the separator must come, or EOS.
    """
    allowed = np.zeros((len(self.kinds), 2, self.size), bool)
    full = np.zeros(len(self.kinds), np.int32)
    for k, kind in enumerate(self.kinds):
      end = EOS if k + 1 == len(self.kinds) else self.separator
      if kind.pieces:
        first = self.first[kind.name]
        allowed[k, 0, first : first + kind.pieces] = True
        full[k] = kind.count
      else:
        allowed[k, 0, UNKNOWN + 1 : self._pieces.get_piece_size()] = True
        allowed[k, 0, self.separator] = False
        allowed[k, 0, end] = True
        full[k] = lengths[kind.name]
      allowed[k, 1, end] = True
    return allowed, full

  def strange(self, text: str) -> str | None:
    """The first letter that the vocabulary does not have.

    One of an alphabet of which it has most may be written as a byte.
    """
    for letter in text:
      ids = self._pieces.encode(letter)
      if any(map(self._pieces.is_unknown, ids)):
        return letter
      if not letter.isascii() and any(map(self._pieces.is_byte, ids)):
        return letter
    return None

  def length_of(self, lengths: Mapping[str, int]) -> int:
    """How long z gets: every kind, separators, EOS."""
    missing = [kind.name for kind in self.kinds if kind.name not in lengths]
    if missing:
      raise ValueError(
        f'config.data.lengths says nothing of {missing[0]}; it has '
        f'{sorted(lengths)}.'
      )
    return sum(lengths[kind.name] for kind in self.kinds) + len(self.kinds)

  def decode(
    self, ids: Sequence[int] | Int[Array, ' n'], kinds: Kinds | None = None
  ) -> str:
    """The string of any ids, up to EOS: what `Latents.parse` takes.

    Tokens of another kind than the one whose turn it is are written by name,
    `<color_3>`, and so do not pass for what they are not.
    """
    kinds = self.kinds if kinds is None else tuple(map(named, kinds))
    ids = [int(i) for i in ids]
    ids = [i for i in itertools.takewhile(EOS.__ne__, ids) if i != PAD]
    parts, start = [], 0
    for end in [
      *(n for n, i in enumerate(ids) if i == self.separator),
      len(ids),
    ]:
      kind = kinds[len(parts)] if len(parts) < len(kinds) else None
      part = self._decode_part(ids[start:end], kind)
      # A bar that is no separator is a part of the text: it shifts nothing.
      parts.append(part.replace('|', '%7C'))
      start = end + 1
    return SEPARATOR.join(parts)

  def _encode_kind(self, kind: Kind, value) -> list[int]:
    if not kind.pieces:
      return self.encode(kind.encode(value))
    unknown = [i for i in value if not 0 <= i < kind.pieces]
    if unknown:
      raise ValueError(
        f'{kind.name} id {unknown[0]} is outside 0..{kind.pieces - 1}; is it '
        'of another codebook?'
      )
    return [self.first[kind.name] + i for i in value]

  def _decode_part(self, ids: list[int], kind: Kind | None) -> str:
    if kind is not None and kind.pieces:
      first = self.first[kind.name]
      inside = range(first, first + kind.pieces)
      # In quotes, or the piece '5' would be taken for an id.
      return '#'.join(
        str(i - first) if i in inside else f'"{self._token(i)}"' for i in ids
      )
    known = self._pieces.get_piece_size()
    runs = []
    for plain, run in itertools.groupby(ids, key=known.__gt__):
      run = list(run)
      runs.append(
        self._pieces.decode(run) if plain else ' '.join(map(self._token, run))
      )
    return ' '.join(runs)

  def _token(self, i: int) -> str:
    """What a row stands for: '▁dog' or '<voken_12>'."""
    if i < self._pieces.get_piece_size():
      return self._pieces.id_to_piece(i)
    for kind in self.kinds:
      first = self.first.get(kind.name, self.size)
      if first <= i < first + kind.pieces:
        return f'<{kind.name}_{i - first}>'
    return f'<row_{i}>'

  def _cut(
    self, ids: list[int], length: int, *, objects: bool = False
  ) -> tuple[list[int], bool]:
    """At most `length` ids, cut where a word begins.

    Half a word would be another word. Among objects, also where no bracket is
    open: half a box is no box. (In plain words a bracket may never close.)
    """
    if len(ids) <= length:
      return ids, False
    known = self._pieces.get_piece_size()
    pieces = [self._token(i) for i in ids[: length + 1]]
    end, depth = 0, 0
    for n, piece in enumerate(pieces):
      begins = n and (piece.startswith('▁') or ids[n] >= known)
      if begins and not (objects and (depth or _bracketed(pieces, n))):
        end = n
      depth += sum(map(piece.count, _OPEN)) - sum(map(piece.count, _CLOSE))
    # One word longer than everything allowed is cut anywhere.
    return ids[: end or length], True


def _bracketed(pieces: Sequence[str], n: int) -> bool:
  """Whether an object's numbers begin here: its label must not stay alone."""
  return re.match(r'▁?\(', pieces[n]) is not None or (
    pieces[n] == '▁' and n + 1 < len(pieces) and pieces[n + 1].startswith('(')
  )


def pad(ids: Sequence[int], length: int) -> Int32[np.ndarray, ' l']:
  """Fills up with PAD on the right."""
  row = np.full(length, PAD, np.int32)
  row[: len(ids)] = ids
  return row
