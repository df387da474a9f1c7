"""Hidden modes that are drawn, where the data knows which there are.

shapes  the tone of the background, which captions seldom say; it is read off
        the picture by the generator's own segmentation
emoji   whose style a drawing has, which captions never say; a classifier that
        has learned it from the training split tells them apart
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from kaleido_jax.evaluation.reference import Reference
from kaleido_jax.evaluation.seen import Features, Seen


@runtime_checkable
class Modes(Protocol):
  """Of one source."""

  what: str  # 'style'
  names: Sequence[str]
  needs: Sequence[Seen]  # what has to be looked at before the rest

  def learn(self) -> str:
    """From what was looked at; says how well it tells the real ones apart."""

  def read(
    self, images: UInt8[np.ndarray, 'n h w 3'], seen: Features
  ) -> Int[np.ndarray, ' n']:
    """Numbers of names."""

  def truth(self, captions: Sequence[str]) -> Float[np.ndarray, 'captions n']:
    """The share of each mode among real pictures of a caption.

    As `read` tells them: its mistakes are in the drawn ones, too.
    """


def of(
  reference: Reference,
  captions: Sequence[str],
  looking: Callable[[Reference], Seen],
) -> Modes | None:
  """Of pictures of some captions.

  looking: makes what an extractor sees of other pictures of this data.
  """
  if reference.name == 'shapes':
    return Tones()
  # Pictures of a file have no keys that say whose they are.
  if reference.name == 'emoji' and reference.statistics is None:
    from kaleido_jax.evaluation import styles

    # What is learned from has other captions, in the same split as well.
    known = reference.other(
      split='train', real=styles.PICTURES, without=captions
    )
    # Those that are compared with, if these are all of them.
    return styles.Styles(looking(known), looking(reference.whole()))
  return None


class Tones:
  """Of the background of shapes."""

  what, needs = 'tone', ()

  def __init__(self):
    from kaleido_jax.data.shapes import world

    self.names = world.values('tone')

  def learn(self) -> str:
    return 'tones by segmentation'

  def read(self, images, seen) -> Int[np.ndarray, ' n']:
    from kaleido_jax.data.shapes import seeing

    del seen
    return np.array([self.names.index(seeing.tone(x)) for x in images])

  def truth(self, captions) -> Float[np.ndarray, 'captions n']:
    from kaleido_jax.data.shapes import modes, wording

    shares = [modes.frequencies(wording.read(c), 'tone') for c in captions]
    return np.array([[each[name] for name in self.names] for each in shares])
