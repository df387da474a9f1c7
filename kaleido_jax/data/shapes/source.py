"""Examples of the world of shapes, with their latents.

Descriptions leave to boxes and blobs, if there are any, where things are and
how large: words that said it as well would contradict a box that is moved.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection

from kaleido_jax.data.example import Example
from kaleido_jax.data.shapes import drawing, outlines, scenes, wording, world
from kaleido_jax.data.shapes.drawing import Drawing
from kaleido_jax.data.shapes.world import Facts, Pose, Scene, Thing
from kaleido_jax.latents import Blob, Box, Latents, blobs, boxes, colors, layout
from kaleido_jax.latents.segments import LIMIT

STREAMS = {'train': 0, 'test': 1, 'crowded': 2}
VERSION = 6  # of the tables and the drawing; other ones, other examples

_crowded = functools.partial(
  scenes.scene, counts=world.CROWDED_COUNTS, wordings=world.CROWDED_WORDINGS
)


class Shapes:
  """Scenes of one to three things, by number.

  The split 'crowded' is to learn from: more of them are of several things.
  """

  def __init__(
    self,
    *,
    size: int = 64,
    split: str = 'train',
    seed: int = 0,
    kinds: Collection[str] = ('text', 'bbox', 'blob', 'color', 'layout'),
  ):
    """Only those kinds are worked out; other kinds are left to a store."""
    if split not in STREAMS:
      raise ValueError(
        f'split={split!r} is not one of {list(STREAMS)}, which shapes have.'
      )
    self.kinds = tuple(kind for kind in kinds if kind in _LATENTS)
    self._places = not {'bbox', 'blob'} & set(self.kinds)  # told by words
    self.fingerprint = f'shapes-{VERSION}-{split}-{seed}-{size}'
    self._size, self._seed, self._stream = size, seed, STREAMS[split]
    self._scene = _crowded if split == 'crowded' else scenes.scene

  def __len__(self) -> int:
    return 2**31 - 1

  def __getitem__(self, index: int) -> Example:
    return self.example(self.scene(index), f'{self.fingerprint}-{index}')

  def example(self, scene: Scene, key: str) -> Example:
    """Of any scene, also of one that nobody has drawn by number."""
    drawn = drawing.draw(scene, self._size)
    latents = {kind: _LATENTS[kind](scene, drawn) for kind in self.kinds}
    if 'text' in latents and not self._places:
      latents['text'] = wording.text(_without_places(scene.facts))
    return Example(
      key=key,
      image=drawn.image,
      caption=wording.caption(scene.said),
      latents=Latents(**latents),
    )

  def scene(self, index: int) -> Scene:
    """What example `index` shows, without drawing it."""
    if not 0 <= index < len(self):
      raise IndexError(f'there is no shapes example {index}.')
    return self._scene(self._seed, self._stream, index)


def box(thing: Thing, pose: Pose) -> Box:
  """Around all of a thing; whatever the size of the picture, it is the same."""
  x1, y1, x2, y2 = map(_thousandths, drawing.edges(thing.shape, pose))
  return Box(label=wording.label(thing), x1=x1, y1=y1, x2=x2, y2=y2)


def blob(thing: Thing, pose: Pose) -> Blob:
  """The ellipse with the second moments of all of a thing."""
  found = outlines.measure(thing.shape)
  x, y = pose.at(*found.centre)
  # Outlines are upright: the axes of the ellipse are theirs.
  lies = found.spread[0] > found.spread[1] - 1e-6
  radii = [_thousandths(2 * pose.radius * m**0.5) for m in found.spread]
  return Blob(
    label=wording.label(thing),
    xc=_thousandths(x),
    yc=_thousandths(y),
    r_major=max(radii),
    r_minor=min(radii),
    theta=round(math.degrees(pose.angle) + 90 * (not lies)) % 180,
  )


def _thousandths(value: float) -> int:
  return min(max(round(value * LIMIT), 0), LIMIT)


def _without_places(facts: Facts) -> Facts:
  things = [
    dataclasses.replace(thing, place=None, size=None) for thing in facts.things
  ]
  return dataclasses.replace(facts, things=tuple(things))


def _boxes(scene: Scene, drawn: Drawing) -> tuple:
  return _placed(scene, drawn, box, boxes.around)


def _blobs(scene: Scene, drawn: Drawing) -> tuple:
  return _placed(scene, drawn, blob, blobs.fit)


def _placed(
  scene: Scene, drawn: Drawing, known: Callable, seen: Callable
) -> tuple:
  """Things in a row: a, b and c. Of what is partly hidden, what is seen."""
  segments = []
  for index, thing in enumerate(scene.facts.things):
    if drawn.whole(index):
      segments.append(known(thing, scene.poses[index]))
    else:
      segments.append(seen(wording.label(thing), drawn.mask(index)))
    rest = len(scene.poses) - 1 - index
    segments += ([], ['and'], [','])[rest]
  return tuple(segments)


def _layout(scene: Scene, drawn: Drawing) -> tuple[str, ...]:
  return layout.of([drawn.mask(index) for index in range(len(scene.poses))])


_LATENTS = {
  'text': lambda scene, drawn: wording.text(scene.facts),
  'bbox': _boxes,
  'blob': _blobs,
  'color': lambda scene, drawn: colors.of(drawn.image),
  'layout': _layout,
}
