"""Whether runs of configs/shapes.py know which colour belongs to which thing.

  python -m benchmarks.shapes_bound --workdir=A --workdir=B

Held-out pictures of two things, such as 'a blue star and a red circle', and the
denoiser's loss on them, told the truth and told 'a red star and a blue circle':
the colours change places in all that it reads, caption, text and boxes.
Pictures, noise and swatches stay. One that reads a bag of words loses nothing
by it. No picture has to be drawn, so a minute tells what `shapes_right` takes
many for, and at which times.
"""

import argparse
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from kaleido_jax import loading, objective
from kaleido_jax.data import sources
from kaleido_jax.data.example import Example
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.data.shapes.world import Facts, Scene
from kaleido_jax.diffusion import loss
from kaleido_jax.latents import Latents
from kaleido_jax.metrics import bootstrap
from kaleido_jax.metrics.bootstrap import Interval
from kaleido_jax.models import t5

TIMES = (150, 350, 550, 650, 750, 850, 950, 1000)


def scenes(source: Shapes, count: int) -> list[Scene]:
  """The first whose captions name two things in two colours."""
  found, index = [], 0
  while len(found) < count:
    scene = source.scene(index)
    colours = {thing.colour for thing in scene.said.things}
    if len(scene.said.things) == len(colours) == 2 and None not in colours:
      found.append(scene)
    index += 1
  return found


def exchanged(scene: Scene) -> Scene:
  """The same with the colours of its two things in each other's place."""

  def swap(facts: Facts) -> Facts:
    one, other = facts.things
    things = (
      dataclasses.replace(one, colour=other.colour),
      dataclasses.replace(other, colour=one.colour),
    )
    return dataclasses.replace(facts, things=things)

  return dataclasses.replace(
    scene, facts=swap(scene.facts), said=swap(scene.said)
  )


def pairs(source: Shapes, count: int) -> list[tuple[Example, Example]]:
  """Examples, each with one whose words are those of the exchanged scene."""
  found = []
  for index, scene in enumerate(scenes(source, count)):
    true = source.example(scene, f'true-{index}')
    other = source.example(exchanged(scene), f'exchanged-{index}')
    latents = Latents(**{**other.latents, 'color': true.latents['color']})
    found.append((true, other._replace(image=true.image, latents=latents)))
  return found


class Judge:
  """The denoiser's loss, example by example."""

  def __init__(self, loaded: loading.Loaded):
    self._loaded, config = loaded, loaded.config
    self._recipe = sources.recipe_of(config)
    self._run = jax.jit(self._losses)

  def read(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """A batch of them, the same for all times."""
    random = np.random.default_rng(0)
    rows = [self._recipe(example, random).arrays for example in examples]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

  def __call__(self, batch: dict[str, np.ndarray], time: int) -> np.ndarray:
    return np.asarray(self._run(self._loaded.params, batch, jnp.int32(time)))

  def _losses(self, params, batch, time):
    config = self._loaded.config
    x0s = objective.pyramid(config, batch['image'])
    _, epss = loss.draw(jax.random.fold_in(jax.random.key(0), time), x0s, 1)

    def network(xs, times):
      ids = batch['ids']
      predicted, _ = self._loaded.model.apply(
        {'params': params}, ids, ids != t5.PAD, xs, times, batch.get('z')
      )
      return predicted

    _, parts = loss.denoising(
      network,
      objective.schedules(config),
      x0s,
      jnp.full(len(batch['ids']), time),
      epss,
      prediction=config.diffusion.prediction,
      target=config.diffusion.target,
    )
    return sum(parts.mse)


def rise(true: np.ndarray, other: np.ndarray) -> Interval:
  """By what percentage the loss is higher, over choices of examples."""
  return bootstrap.resampled(
    len(true), lambda i: 100 * (other[i].mean() / true[i].mean() - 1)
  ).interval()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', action='append')
  parser.add_argument('--count', type=int, default=192, help='of pictures')
  parser.add_argument('--times', default=','.join(map(str, TIMES)))
  args = parser.parse_args()

  times = list(map(int, args.times.split(',')))
  for workdir in args.workdir or ['pretrained:shapes']:
    loaded = loading.load(workdir)
    size = loaded.config.image_shapes[0][0]
    kinds = {*loaded.config.latents, 'color'}
    source = Shapes(split='test', kinds=kinds, size=size)
    judge, sums = Judge(loaded), np.zeros((2, args.count))
    both = zip(*pairs(source, args.count), strict=True)
    told_true, told_other = map(judge.read, both)
    print(f'{workdir}, {args.count} pictures: loss with colours exchanged')
    for time in times:
      found = judge(told_true, time), judge(told_other, time)
      sums += found
      print(f'  time {time}: {rise(*found)} %', flush=True)
    won = np.mean(sums[1] > sums[0])
    print(f'  over all: the truth has the lower one in {won:.1%}', flush=True)


if __name__ == '__main__':
  main()
