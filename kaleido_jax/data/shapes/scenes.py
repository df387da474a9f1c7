"""Draws scenes from the world of shapes by number, without end.

Words first, from the tables of `world`; then exact numbers that agree.
"""

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np

from kaleido_jax.data.shapes import world
from kaleido_jax.data.shapes.world import Facts, Node, Pose, Scene, Thing

RADII = {'small': (0.165, 0.175), 'medium': (0.185, 0.21), 'large': (0.26, 0.3)}
TURNS = {'tilted left': (-35, -15), 'upright': (0, 0), 'tilted right': (15, 35)}
MARGIN = 0.01  # between a thing and the edge of the picture
ASIDE = 0.2  # how far off the middle the sides begin
WANDER = 0.12  # and how far the middle reaches
OVERLAP = 0.4  # how deep circumscribed circles meet, in radii of the smaller
TRIES = 40


def scene(
  seed: int,
  stream: int,
  index: int,
  *,
  counts: Mapping[int, int] = world.COUNTS,
  wordings: Mapping[str, int] = world.WORDINGS,
) -> Scene:
  """Scene number `index` of a stream; streams have nothing in common."""
  draw = _uniforms(seed, stream, index)
  count = _pick(counts, draw)
  chosen: dict[Node, str] = {}
  for node in world.nodes(count):
    chosen[node] = _pick(world.weights(node, count, chosen), draw)
  facts = gather(chosen, count)
  return Scene(
    facts=facts,
    said=say(facts, _pick(wordings, draw)),
    poses=_poses(facts, draw),
    backdrop=tuple(next(draw) for _ in range(3)),
  )


def gather(chosen: Mapping[Node, str], count: int) -> Facts:
  """Facts of what was chosen; the rest is not said."""
  things = [
    Thing(**{a: chosen.get((a, index)) for a in world.ATTRIBUTES})
    for index in range(count)
  ]
  return Facts(
    things=tuple(things),
    tone=chosen.get(('tone', 0)),
    pattern=chosen.get(('pattern', 0)),
  )


def say(facts: Facts, wording: str) -> Facts:
  """What a wording tells of a scene."""
  told = {'one colour': 'colour'}.get(wording, wording)
  things = []
  for index, thing in enumerate(facts.things):
    silent = told == 'tone' or (wording == 'one colour' and index)
    names = ('shape',) if silent else ('shape', told)
    things.append(Thing(**{name: getattr(thing, name) for name in names}))
  tone = facts.tone if told == 'tone' else None
  return Facts(things=tuple(things), tone=tone)


def _uniforms(seed: int, stream: int, index: int) -> Iterator[float]:
  """Independent numbers of 0..1, as many as are asked for."""
  # Philox counts blocks in the first of its four words, so two indices, in the
  # third, never reach each other's numbers.
  key = np.array([seed, stream], np.uint64)
  counter = np.array([0, 0, index, 0], np.uint64)
  random = np.random.Generator(np.random.Philox(key=key, counter=counter))
  while True:
    yield from random.random(48).tolist()


def _pick(row: Mapping, draw: Iterator[float]):
  """A value of a table's row. Ten times faster than numpy's choice."""
  rest = next(draw) * sum(row.values())
  for value, weight in row.items():  # noqa: B007
    rest -= weight
    if rest < 0:
      break
  return value


def _poses(facts: Facts, draw: Iterator[float]) -> tuple[Pose, ...]:
  """Exact places and sizes such that nothing is much hidden.

  Words are never redrawn, so that crowding does not change their frequencies:
  the smallest of every size, at their outermost, always fit.
  """
  for _ in range(TRIES):
    poses = [_pose(thing, draw) for thing in facts.things]
    if not _crowded(poses):
      return tuple(poses)
  still = itertools.cycle((0.0, 0.5, 0.5, 0.5))
  return tuple(_pose(thing, still) for thing in facts.things)


def _pose(thing: Thing, draw: Iterator[float]) -> Pose:
  low, high = RADII[thing.size]
  radius = low + (high - low) * next(draw)
  across = ('right' in thing.place) - ('left' in thing.place)
  down = ('bottom' in thing.place) - ('top' in thing.place)
  x, y = _along(across, radius, next(draw)), _along(down, radius, next(draw))
  least, most = TURNS[thing.tilt]
  degrees = least + (most - least) * next(draw)
  return Pose(x=x, y=y, radius=radius, angle=math.radians(degrees))


def _along(side: int, radius: float, u: float) -> float:
  """A coordinate in its third; u = .5 is outermost, or in the middle."""
  off = 2 * u - 1
  if not side:
    return 0.5 + WANDER * off
  far = 0.5 - MARGIN - radius
  return 0.5 + side * (far - abs(off) * max(far - ASIDE, 0))


def _crowded(poses: list[Pose]) -> bool:
  for a, b in itertools.combinations(poses, 2):
    reach = a.radius + b.radius - OVERLAP * min(a.radius, b.radius)
    if math.hypot(a.x - b.x, a.y - b.y) < reach:
      return True
  return False
