"""Draws scenes of shapes at any size, and knows which pixels show what.

Edges are smooth: how much of a pixel is covered follows from its distance to
the outline. A thing is computed only where it is, in coordinates of its own.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Bool, Float, UInt8

from kaleido_jax.data.shapes import outlines
from kaleido_jax.data.shapes.world import Pose, Scene, Thing

Plane = Float[np.ndarray, 'h w']

# Things are vivid, and a fifth of the circle of hues or so apart.
TINTS = {
  'red': (222, 30, 38),
  'orange': (255, 132, 10),
  'yellow': (255, 222, 40),
  'green': (34, 164, 60),
  'cyan': (40, 204, 214),
  'blue': (36, 84, 230),
  'purple': (142, 46, 196),
  'pink': (255, 124, 196),
}
# Backgrounds are not: pale, grey or dark, with a second colour for patterns.
GROUNDS = {
  'white': ((246, 246, 244), (222, 224, 230)),
  'cream': ((250, 240, 214), (234, 216, 178)),
  'mint': ((208, 234, 218), (174, 210, 190)),
  'grey': ((146, 148, 154), (114, 117, 124)),
  'navy': ((20, 28, 62), (52, 62, 106)),
  'black': ((16, 16, 18), (58, 58, 64)),
}
SHADE = 0.42  # how much darker stripes, dots and rims are


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patch:
  """How much a thing covers of each pixel, from a corner on."""

  top: int
  left: int
  cover: Plane

  @property
  def window(self) -> tuple[slice, slice]:
    height, width = self.cover.shape
    return (
      slice(self.top, self.top + height),
      slice(self.left, self.left + width),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
  """A picture, and its things from back to front."""

  image: UInt8[np.ndarray, 'size size 3']
  patches: tuple[Patch, ...]

  def mask(self, index: int) -> Bool[np.ndarray, 'size size']:
    """The pixels of which most show this thing."""
    patch, *later = self.patches[index:]
    shown = np.zeros(self.image.shape[:2], np.float32)
    shown[patch.window] = patch.cover
    for other in later:
      shown[other.window] *= 1 - other.cover
    return shown >= 0.5

  def whole(self, index: int) -> bool:
    """Whether nothing lies in front of it."""
    patch, *later = self.patches[index:]
    return not any(_meet(patch, other) for other in later)


def draw(scene: Scene, size: int) -> Drawing:
  """The picture of a scene, size x size pixels."""
  image, patches = _backdrop(scene, size), []
  for thing, pose in zip(scene.facts.things, scene.poses, strict=True):
    patch, ink = _thing(thing, pose, size)
    behind = image[:, *patch.window]
    behind += patch.cover * (ink - behind)
    patches.append(patch)
  image += 0.5  # to round
  pixels = np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))
  return Drawing(image=pixels, patches=tuple(patches))


def edges(shape: str, pose: Pose) -> tuple[float, float, float, float]:
  """The box around a thing: left, top, right, bottom; the picture is 0..1."""
  x, y = pose.at(*outlines.measure(shape).points)
  return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _thing(thing: Thing, pose: Pose, size: int):
  """Where a thing is, and its colours there."""
  pixels = pose.radius * size  # that make 1 in the outline's coordinates
  reach = pixels + 1
  left, right = _range(pose.x * size, reach, size)
  top, bottom = _range(pose.y * size, reach, size)
  across = (_centres(size)[left:right] - pose.x) / pose.radius
  down = (_centres(size)[top:bottom, None] - pose.y) / pose.radius
  cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
  x = across * cosine + down * sine
  y = down * cosine - across * sine
  distance = outlines.OUTLINES[thing.shape](x, y)
  cover = _inside(distance, pixels)
  ink = _planes(TINTS[thing.colour])
  if thing.texture != 'plain':
    shade = TEXTURES[thing.texture](x, y, distance, pixels)
    ink = ink - (SHADE * shade) * ink
  return Patch(top=top, left=left, cover=cover), ink


def _range(middle: float, reach: float, size: int) -> tuple[int, int]:
  return max(int(middle - reach), 0), min(math.ceil(middle + reach), size)


def _inside(distance: Plane, pixels: float) -> Plane:
  """0..1: the share of a pixel, whose edge is taken to be straight."""
  share = distance * np.float32(-pixels)
  share += np.float32(0.5)
  return np.minimum(np.maximum(share, 0), 1)


def _striped(x: Plane, y: Plane, distance: Plane, pixels: float) -> Plane:
  return _inside(np.sin(y * np.float32(9)), pixels / 9)


def _dotted(x: Plane, y: Plane, distance: Plane, pixels: float) -> Plane:
  spacing = np.float32(0.56)
  x, y = (axis - spacing * np.rint(axis / spacing) for axis in (x, y))
  return _inside(np.hypot(x, y) - np.float32(0.18), pixels)


def _outlined(x: Plane, y: Plane, distance: Plane, pixels: float) -> Plane:
  return _inside(np.float32(-0.24) - distance, pixels)


TEXTURES = {'striped': _striped, 'dotted': _dotted, 'outlined': _outlined}


def _backdrop(scene: Scene, size: int) -> Float[np.ndarray, '3 {size} {size}']:
  """Colours come first: numpy is several times faster with long last axes."""
  base, other = map(_planes, GROUNDS[scene.facts.tone])
  image = np.empty((3, size, size), np.float32)
  if scene.facts.pattern == 'plain':
    image[:] = base
  else:
    field = PATTERNS[scene.facts.pattern](*scene.backdrop, size)
    np.multiply(field, other - base, out=image)
    image += base
  return image


@functools.cache
def _planes(colour: tuple[int, int, int]) -> Float[np.ndarray, '3 1 1']:
  return np.float32(colour)[:, None, None]


def _across(turn: float, size: int) -> Plane:
  """A coordinate that grows in the direction of an angle; 0 in the middle."""
  angle, axis = 2 * math.pi * turn, _centres(size) - np.float32(0.5)
  return axis * math.cos(angle) + axis[:, None] * math.sin(angle)


def _fading(turn: float, scale: float, phase: float, size: int) -> Plane:
  return np.float32(0.7) + _across(turn, size)


def _bands(turn: float, scale: float, phase: float, size: int) -> Plane:
  rate = 2 * math.pi * (4 + 3 * scale)  # stripes per picture
  wave = np.sin(_across(turn, size) * rate + np.float32(2 * math.pi * phase))
  return _inside(wave, size / rate)


def _speckles(turn: float, scale: float, phase: float, size: int) -> Plane:
  spacing = 1 / (6 + 3 * scale)
  x, y = (_centres(size) / spacing + shift for shift in (turn, phase))
  x, y = (axis - np.rint(axis) for axis in (x, y))
  return _inside(np.hypot(x, y[:, None]) - np.float32(0.24), spacing * size)


PATTERNS = {'fading': _fading, 'striped': _bands, 'dotted': _speckles}


@functools.cache
def _centres(size: int) -> Float[np.ndarray, ' size']:
  """Where pixels are, along a side."""
  return ((np.arange(size) + 0.5) / size).astype(np.float32)


def _meet(a: Patch, b: Patch) -> bool:
  """Whether two things touch a pixel in common."""
  top, left = max(a.top, b.top), max(a.left, b.left)
  bottom = min(p.top + p.cover.shape[0] for p in (a, b))
  right = min(p.left + p.cover.shape[1] for p in (a, b))
  if top >= bottom or left >= right:
    return False
  first, second = (
    p.cover[top - p.top : bottom - p.top, left - p.left : right - p.left]
    for p in (a, b)
  )
  return bool((first * second).any())
