"""What the shapes source may show, and how often: one to three things.

A caption says only part of a scene; the rest are hidden modes. Which are likely
depends on what is said, and some are more typical of it than others:

  a circle is red in 42 of 100 pictures; a quarter of what is red is a circle;
  it is orange in 28, and more than half of what is orange is a circle.

Guidance draws what is typical, here orange, though red is more frequent. Chance
is a chain of tables, so the true frequencies given a caption can be computed:

  number, shapes -> colours -> tone of the background -> its pattern
                 -> places, sizes, textures, tilts

Things and grounds are plain as a rule, and most captions name a colour: what is
rare costs a small model more than what it shows.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence

# How many things; in percent, as is all that follows.
COUNTS = {1: 60, 2: 30, 3: 10}

SHAPES = """
       circle  square  star  heart  cross  drop  leaf  pill
any        18      14    15     14      9    11    10     9
"""

# Every shape but the square and the cross has a colour of its own; red and blue
# are everybody's.
COLOURS = """
         red  orange  yellow  green  cyan  blue  purple  pink
circle    42      28       4      5     4    11       3     3
square    22       5       5      9     6    32      11    10
star      21       5      45      2     4    17       4     2
heart     46       4       2      2     2     8       4    32
cross     40       6       4     15     5    22       5     3
drop       9       2       2      6    30    45       3     3
leaf      17       9       9     53     3     4       2     3
pill      24       5       4      5     5    21      31     5
"""

# Stars hang high, drops and leaves fall, hearts are in the middle. Several
# things come as one reads, line by line: what is named first is met first.
PLACES = """
       top-left top top-right left middle right bottom-left bottom bottom-right
circle       12  10        12   10     18     8          10     10           10
square       10   6         9   11     16    11          14      9           14
star         19  24        20    8     10     7           4      4            4
heart         5   9         5   12     44    12           4      5            4
cross        30   8         7   15     10     7          10      7            6
drop          5   7         5    9     12     9          15     22           16
leaf          4   3         4    9      9    11          16     16           28
pill          6   5        14    8     16    22           8      8           13
"""

# A thing that has the picture to itself may be large.
SIZES_ALONE = """
         small  medium  large
circle      15      30     55
square      20      35     45
star        45      35     20
heart       10      25     65
cross       30      50     20
drop        50      35     15
leaf        25      50     25
pill        30      50     20
"""

SIZES_TOGETHER = """
         small  medium
circle      40      60
square      45      55
star        65      35
heart       30      70
cross       50      50
drop        75      25
leaf        45      55
pill        50      50
"""

TEXTURES = """
         plain  striped  dotted  outlined
circle      86        4       7         3
square      82        7       4         7
star        91        1       2         6
heart       89        1       6         4
cross       86        6       1         7
drop        93        1       2         4
leaf        85       11       3         1
pill        81       13       5         1
"""

# Turned by a circle's angle nothing changes, and a star looks the same soon.
TILTS = """
         upright  tilted-left  tilted-right
circle       100            0             0
square        90            5             5
star         100            0             0
heart         90            5             5
cross         88            5             7
drop          88            3             9
leaf          70           10            20
pill          75           15            10
"""

# Of the background, by the colour of the first thing.
TONES = """
         white  cream  mint  grey  navy  black
red         38     24    10    18     5      5
orange      34      3    12    15    24     12
yellow       4      2     5    17    50     22
green       22     45     3    22     4      4
cyan        14     18     3    15    20     30
blue        30     36    18    12     1      3
purple      25     12    40    15     3      5
pink        12     10    12    36    10     20
"""

# Of the background, by its tone: night skies have stars.
PATTERNS = """
         plain  fading  striped  dotted
white       78         9        9       4
cream       74         7       15       4
mint        73         7        8      12
grey        76        15        7       2
navy        65        13        2      20
black       80        16        2       2
"""

# What a caption tells beside the shapes. It does not depend on what is there:
# otherwise captions alone would say something of what they leave out.
WORDINGS = {
  'colour': 33,
  'shape': 28,
  'one colour': 17,  # of the first thing
  'place': 10,
  'size': 6,
  'tone': 6,
}

# What is hard, shown more often than it is met: in a tenth of the scenes above
# two things are named with their colours, and a model that is told too little
# of them reads captions as bags of words. Given a caption, the chances of all
# it leaves out are the same.
CROWDED_COUNTS = {1: 25, 2: 55, 3: 20}
CROWDED_WORDINGS = {'colour': 60, 'shape': 40}

Weights = dict[str, int]
Node = tuple[str, int]  # an attribute, of which thing
# Of a thing, causes first.
ATTRIBUTES = ('shape', 'colour', 'place', 'size', 'texture', 'tilt')
EXCLUSIVE = ('shape', 'place')  # things differ: they depend on earlier ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
  """One object in words; None is what is not said."""

  shape: str | None = None
  colour: str | None = None
  place: str | None = None
  size: str | None = None
  texture: str | None = None
  tilt: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
  """A scene in words, or as much of it as is said.

  Things come in reading order, from the top left to the bottom right, as people
  tell them. Shapes differ, so each names one thing.
  """

  things: tuple[Thing, ...]
  tone: str | None = None
  pattern: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
  """Where exactly a thing is, the side of the picture being 1; y points down.

  The radius is of the circumscribed circle; the angle, in radians, turns x
  towards y, which is clockwise to the eye.
  """

  x: float
  y: float
  radius: float
  angle: float

  def at(self, x, y):
    """Where a point of the outline comes to lie in the picture."""
    cosine, sine = math.cos(self.angle), math.sin(self.angle)
    return (
      self.x + self.radius * (x * cosine - y * sine),
      self.y + self.radius * (x * sine + y * cosine),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
  """All there is to know of a picture, whatever its size."""

  facts: Facts
  said: Facts  # what the caption tells of them
  poses: tuple[Pose, ...]
  backdrop: tuple[float, ...]  # three numbers of 0..1 that vary the pattern


@functools.cache
def table(text: str) -> dict[str, Weights]:
  """Rows by name, a weight per value; the header's 'top-left' is 'top left'."""
  head, *lines = [line.split() for line in text.strip().splitlines()]
  names = [name.replace('-', ' ') for name in head]
  return {
    row: dict(zip(names, map(int, weights), strict=True))
    for row, *weights in lines
  }


TABLES = {
  'shape': SHAPES,
  'colour': COLOURS,
  'place': PLACES,
  'size': SIZES_ALONE,
  'texture': TEXTURES,
  'tilt': TILTS,
  'tone': TONES,
  'pattern': PATTERNS,
}
_CAUSES = {'tone': 'colour', 'pattern': 'tone'}  # of the rest it is the shape


def values(attribute: str) -> list[str]:
  """Everything that an attribute can be."""
  return list(next(iter(table(TABLES[attribute]).values())))


def nodes(count: int) -> list[Node]:
  """Everything that is drawn, causes first."""
  things = itertools.product(range(count), ATTRIBUTES)
  found = [(attribute, index) for index, attribute in things]
  return [*found, ('tone', 0), ('pattern', 0)]


def causes(node: Node) -> list[Node]:
  """What the weights of a node depend on."""
  attribute, index = node
  found = []
  if attribute != 'shape':
    found.append((_CAUSES.get(attribute, 'shape'), index))
  if attribute in EXCLUSIVE:
    found += [(attribute, earlier) for earlier in range(index)]
  return found


def weights(node: Node, count: int, chosen: Mapping[Node, str]) -> Weights:
  """How likely its values are, in proportion, once its causes are chosen."""
  attribute, index = node
  text = TABLES[attribute]
  if attribute == 'size' and count > 1:
    text = SIZES_TOGETHER
  cause = (_CAUSES.get(attribute, 'shape'), index)
  row = table(text)['any' if attribute == 'shape' else chosen[cause]]
  if attribute in EXCLUSIVE:
    earlier = [chosen[attribute, thing] for thing in range(index)]
    left = _behind(earlier, count) if attribute == 'place' else row
    row = {v: row[v] for v in left if v not in earlier}
  return row


def _behind(earlier: Sequence[str], count: int) -> list[str]:
  """Places where the next of some things can be: others follow it."""
  places = values('place')  # in reading order
  first = places.index(earlier[-1]) + 1 if earlier else 0
  return places[first : len(places) - (count - 1 - len(earlier))]
