"""What every source gives: a picture, what was said of it, what hides in it."""

from collections.abc import Collection
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from kaleido_jax.latents import Latents


class Example(NamedTuple):
  """One picture, before anything is done to it."""

  key: str  # names it in logs and in the latent store; unique in its source
  image: np.ndarray  # uint8 [h, w, 3]; the toy: float32 [2]
  caption: str
  latents: Latents  # the kinds that the source knows by itself; maybe none
  memory: np.ndarray | None = None  # the caption's encoder states, if cached


@runtime_checkable
class Source(Protocol):
  """Examples by index. Reading one twice gives the same.

  Sources are pickled into worker processes: they open files when they read, and
  never touch an accelerator.
  """

  kinds: Collection[str]  # the latents that every example comes with
  fingerprint: str  # changes when the examples do: latent stores compare it

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Example: ...


class BadRecord(Exception):
  """A record that cannot be used; a run counts it and takes another.

  `reason` is short and comes from a fixed set ('truncated', 'no caption' ...),
  since records are counted by it; `detail` is for the log.
  """

  def __init__(self, reason: str, key: str, detail: str = ''):
    super().__init__(reason, key, detail)  # all three, or it does not pickle
    self.reason, self.key, self.detail = reason, key, detail

  def __str__(self) -> str:
    detail = f' ({self.detail})' if self.detail else ''
    return f'{self.key}: {self.reason}{detail}'
