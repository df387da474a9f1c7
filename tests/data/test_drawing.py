"""Pictures of shapes, their masks, and the outlines under them."""

import collections
import dataclasses

import numpy as np
import pytest

from kaleido_jax.data import shapes
from kaleido_jax.data.shapes import drawing, outlines, scenes, world
from kaleido_jax.data.shapes.world import Facts, Pose, Scene, Thing
from kaleido_jax.latents import boxes

SHAPES = list(outlines.OUTLINES)
# How well a blob covers the slender ones, at least.
FITS = {'star': 0.69, 'cross': 0.71, 'square': 0.82}


def lone(shape, *, radius=0.3, angle=0.4, x=0.48, y=0.53, **words):
  thing = Thing(
    **{'shape': shape, 'colour': 'red', 'texture': 'plain', **words}
  )
  return Scene(
    facts=Facts(things=(thing,), tone='black', pattern='plain'),
    said=Facts(things=(thing,)),
    poses=(Pose(x=x, y=y, radius=radius, angle=angle),),
    backdrop=(0.1, 0.2, 0.3),
  )


def grid(size, reach=1.1):
  axis = (np.arange(size) + 0.5) / size * 2 * reach - reach
  return np.meshgrid(axis, axis)


def iou(a, b):
  return (a & b).sum() / (a | b).sum()


def test_there_is_an_outline_for_every_shape():
  assert SHAPES == world.values('shape')
  assert set(drawing.TINTS) == set(world.values('colour'))
  assert set(drawing.GROUNDS) == set(world.values('tone'))
  assert set(drawing.PATTERNS) == set(world.values('pattern')) - {'plain'}
  assert set(drawing.TEXTURES) == set(world.values('texture')) - {'plain'}


@pytest.mark.parametrize('shape', SHAPES)
def test_distances_never_exceed_the_true_ones(shape):
  """Within reach of an edge they grow by one per one: edges are as smooth."""
  size, reach = 800, 1.2
  x, y = grid(size, reach)
  distance = outlines.OUTLINES[shape](x, y)
  slopes = np.hypot(*np.gradient(distance, 2 * reach / size))
  near = slopes[np.abs(distance) < 0.05]
  assert np.quantile(near, 0.99) < 1.001
  assert np.quantile(near, 0.05) > 0.95
  assert np.hypot(x, y)[distance < 0].max() < 1.005


@pytest.mark.parametrize('shape', SHAPES)
def test_measures_agree_with_counting_pixels(shape):
  size = 1000
  x, y = grid(size)
  inside = outlines.OUTLINES[shape](x, y) < 0
  found = outlines.measure(shape)
  x, y = x[inside], y[inside]
  assert found.centre == pytest.approx((x.mean(), y.mean()), abs=2e-3)
  assert found.spread == pytest.approx((x.var(), y.var()), abs=1e-3)
  assert np.cov(x, y)[0, 1] == pytest.approx(0, abs=1e-3)
  for axis, values in zip(found.points, (x, y), strict=True):
    assert axis.min() == pytest.approx(values.min(), abs=0.01)
    assert axis.max() == pytest.approx(values.max(), abs=0.01)


@pytest.mark.parametrize('shape', SHAPES)
def test_an_ellipse_of_the_same_moments_fits_every_outline(shape):
  """Without pixels, hence without the noise of pixels."""
  x, y = grid(800)
  found = outlines.measure(shape)
  (xc, yc), (xx, yy) = found.centre, found.spread
  ellipse = (x - xc) ** 2 / (4 * xx) + (y - yc) ** 2 / (4 * yy) <= 1
  assert iou(outlines.OUTLINES[shape](x, y) < 0, ellipse) > FITS.get(
    shape, 0.89
  )


@pytest.mark.parametrize('shape', SHAPES)
def test_coverage_is_what_finer_pixels_average_to(shape):
  size, fine = 48, 16
  scene = lone(shape)
  smooth = drawing.draw(scene, size).image[..., 0].astype(float)
  sharp = drawing.draw(scene, size * fine).image[..., 0].astype(float)
  average = sharp.reshape(size, fine, size, fine).mean((1, 3))
  difference = np.abs(smooth - average) / np.ptp(smooth)
  assert difference.mean() < 0.003
  assert difference.max() < 0.3  # tips are smaller than a pixel


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('angle', [0.0, 0.5, -0.3])
def test_edges_enclose_what_is_drawn(shape, angle):
  scene = lone(shape, angle=angle)
  drawn = boxes.around('', drawing.draw(scene, 500).mask(0))
  edges = drawing.edges(shape, scene.poses[0])
  found = np.array([drawn.x1, drawn.y1, drawn.x2, drawn.y2]) / 1000
  assert np.abs(found - edges).max() < 0.005


def test_angles_turn_clockwise():
  """A drop, whose tip is above, leans to the right."""
  mask = drawing.draw(lone('drop', angle=0.5, x=0.5), 64).mask(0)
  columns = np.arange(64)
  upper = (mask[:26].sum(0) * columns).sum() / mask[:26].sum()
  assert upper > 34


@pytest.mark.parametrize('texture', world.values('texture'))
@pytest.mark.parametrize('pattern', world.values('pattern'))
def test_the_same_scene_at_any_size(texture, pattern):
  """A large picture, averaged, is the small one but for its edges."""
  scene = lone('square', texture=texture)
  scene = dataclasses.replace(
    scene, facts=dataclasses.replace(scene.facts, pattern=pattern, tone='mint')
  )
  small = drawing.draw(scene, 64).image.astype(float)
  large = drawing.draw(scene, 256).image.astype(float)
  average = large.reshape(64, 4, 64, 4, 3).mean((1, 3))
  assert np.abs(small - average).mean() < 2.5


def test_later_things_hide_earlier_ones():
  scene = lone('circle')
  over = Thing(shape='square', colour='blue', texture='plain')
  facts = dataclasses.replace(scene.facts, things=(*scene.facts.things, over))
  pose = dataclasses.replace(scene.poses[0], x=0.8)
  scene = dataclasses.replace(scene, facts=facts, poses=(*scene.poses, pose))
  drawn = drawing.draw(scene, 64)
  circle, square = drawn.mask(0), drawn.mask(1)
  assert not (circle & square).any()
  assert not drawn.whole(0) and drawn.whole(1)
  expected = np.abs(drawn.image.astype(int) - drawing.TINTS['blue']).max(2) < 3
  assert iou(square, expected) > 0.9
  expected = np.abs(drawn.image.astype(int) - drawing.TINTS['red']).max(2) < 3
  assert iou(circle, expected) > 0.9


def test_colours_are_far_from_each_other_and_from_backgrounds():
  tints = [np.array(rgb) for rgb in drawing.TINTS.values()]
  grounds = [np.array(rgb) for pair in drawing.GROUNDS.values() for rgb in pair]
  vivid = [np.ptp(rgb) for rgb in tints]
  assert min(vivid) > 125 > 65 > max(np.ptp(rgb) for rgb in grounds)
  for index, tint in enumerate(tints):
    for other in tints[index + 1 :] + grounds:
      assert np.linalg.norm(tint - other) > 80


@pytest.fixture(scope='module')
def drawn():
  """Things of many scenes, with masks: words, blob, box, mask, and size."""
  found = []
  for size in (64, 128):
    source = shapes.Shapes(size=size, kinds=('bbox', 'blob'))
    for index in range(400):
      scene, latents = source.scene(index), source[index].latents
      picture = drawing.draw(scene, size)
      for n, thing in enumerate(scene.facts.things):
        alone = drawing.Drawing(
          image=picture.image, patches=picture.patches[n : n + 1]
        )
        found.append(
          (size, thing, latents.boxes[n], latents.blobs[n], picture.mask(n))
          + (alone.mask(0), picture.whole(n))
        )
  return found


def test_a_blob_covers_the_pixels_of_its_shape(drawn):
  """From 64 pixels on. (A small one is itself rough, and may do worse.)"""
  means = collections.defaultdict(list)
  for size, thing, _, blob, mask, *_ in drawn:
    found = iou(blob.mask(size, size), mask)
    means[size, thing.shape].append(found)
    assert found > FITS.get(thing.shape, 0.89) - 0.05
  assert np.mean([iou for found in means.values() for iou in found]) > 0.85


def test_a_box_is_where_the_pixels_are(drawn):
  for size, _, box, _, mask, _, _ in drawn:
    around = boxes.around('', mask)
    for corner in ('x1', 'y1', 'x2', 'y2'):
      off = abs(getattr(around, corner) - getattr(box, corner)) * size / 1000
      # The last pixel of a tip is covered by less than half; and from a line of
      # the grid it is half a line at most.
      assert off < 1.25 + size / 32 / 2


def test_nothing_is_much_hidden(drawn):
  shares = [mask.sum() / alone.sum() for *_, mask, alone, _ in drawn]
  assert min(shares) >= 0.85
  assert sum(share < 1 for share in shares) > 10


def test_the_smallest_thing_at_32_pixels_can_be_seen():
  low = min(min(radii) for radii in scenes.RADII.values())
  for shape in SHAPES:
    x, y = np.ptp(outlines.measure(shape).points, axis=1) * low * 32
    assert min(x, y) > 4.7 and max(x, y) > 7
