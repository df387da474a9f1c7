"""Pictures from the web, in tar shards as img2dataset writes them.

  img2dataset --url_list=cc12m.tsv --input_format=tsv --url_col=url \\
    --caption_col=caption --output_format=webdataset --output_folder=FOLDER

makes FOLDER/00000.tar, 00001.tar ... with 000000012.jpg, .txt (the caption) and
.json (where it comes from) per picture; `cc12m.tsv` needs a first line that
names its columns. The name of a picture is the key in its json, and unique in
the whole set; statistics and tables that lie beside the shards are ignored.

Samples are read by offset from an index (`shards`): any order, no scanning.
"""

import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np

from kaleido_jax.data import captions, images, shards
from kaleido_jax.data.example import Example
from kaleido_jax.latents import Latents

MAX_OPEN_FILES = 64

COMMAND = (
  'img2dataset --url_list=cc12m.tsv --input_format=tsv --url_col=url '
  '--caption_col=caption --output_format=webdataset --output_folder={}'
)


class WebDataset:
  """The tar shards of a folder, or of a pattern such as 'FOLDER/0*.tar'."""

  kinds = ()

  def __init__(self, where: str | pathlib.Path):
    found = shards.find(where)
    if not found:
      raise FileNotFoundError(
        f'there are no tar files in {where}. For CC12M they are made by\n'
        '  pip install img2dataset\n  ' + COMMAND.format(where) + '\nwhere '
        'cc12m.tsv is https://storage.googleapis.com/conceptual_12m/cc12m.tsv '
        'with the names of its columns, url and caption, as a first line.'
      )
    self._index = shards.index(found)
    shards.warn(self._index.about)
    self.fingerprint = self._index.fingerprint

  @property
  def damaged(self) -> dict[str, str]:
    """Shards that end early, and how."""
    return self._index.about['damaged']

  def __len__(self) -> int:
    return self._index.about['samples']

  def __getitem__(self, index: int) -> Example:
    row = self._samples[index]
    key = os.fsdecode(bytes(row['name']))
    path = self._index.shards[row['shard']]
    if not self._index.about['unique']:
      key = f'{pathlib.Path(path).stem}/{key}'
    file = self._open(path)
    text = os.pread(file.fd, int(row['text_size']), int(row['text']))
    caption = captions.decode(text, key)
    data = os.pread(file.fd, int(row['image_size']), int(row['image']))
    return Example(key, images.decode(data, key), caption, Latents())

  # Files are opened where they are read: neither maps nor descriptors travel
  # to another process.
  def __getstate__(self) -> dict:
    return {'_index': self._index, 'fingerprint': self.fingerprint}

  @functools.cached_property
  def _samples(self) -> np.ndarray:
    return self._index.samples()

  @functools.cached_property
  def _open(self) -> Callable[[str], '_File']:
    return functools.lru_cache(MAX_OPEN_FILES)(_opened)


class _File:
  """Closes when nobody has it any more.

  The cache may let go of a file while another thread reads it; closed there and
  then, its number could already be that of another shard.
  """

  def __init__(self, fd: int):
    self.fd = fd

  def __del__(self, close=os.close):  # at exit `os` may be gone before
    close(self.fd)


def _opened(path: str) -> _File:
  return _File(os.open(path, os.O_RDONLY))
