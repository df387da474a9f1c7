"""Which hidden modes runs of configs/shapes.py draw, against the true shares.

  python -m benchmarks.shapes_modes --workdir=A --workdir=B

Captions name a shape and nothing else; its colour is hidden, and so is the tone
of the background. What is drawn is named by the generator's own segmentation
and compared with the frequencies that follow from its tables: total variation,
0 is the truth and 1 nothing in common, with an interval over captions. Guidance
prefers what is typical of a caption over what is frequent. Samples of the truth
itself, as many, are not at 0 either: below that line nothing can be told apart.
"""

import argparse

import numpy as np

from kaleido_jax import api
from kaleido_jax.data.shapes import modes as truth
from kaleido_jax.data.shapes import seeing, wording, world
from kaleido_jax.metrics import bootstrap, modes
from kaleido_jax.pictures import Asked

CAPTIONS = [f'a {shape}' for shape in world.values('shape')]


def colour_of(picture: np.ndarray) -> str | None:
  """Of the largest thing."""
  seen = seeing.largest(picture)
  return seen and seen.colour


SEEN = {'colour': colour_of, 'tone': seeing.tone}


def distances(drawn: dict[str, list], attribute: str) -> list[float]:
  """Total variation, caption by caption; 1 where nothing is drawn at all."""
  found = []
  for caption in CAPTIONS:
    shares = truth.frequencies(wording.read(caption), attribute)
    modes_drawn, far = drawn[caption], 1.0
    if any(modes_drawn):
      far = modes.coverage(modes_drawn, shares).distance
    found.append(far)
  return found


def told(name: str, each: list[float]) -> str:
  values = np.array(each)
  found = bootstrap.resampled(
    len(values), lambda i: values[i].mean()
  ).interval()
  return f'{name} {found}'


def line(count: int, attribute: str) -> float:
  """What as many samples of the truth are away from it, on average."""
  random, found = np.random.default_rng(0), []
  for caption in CAPTIONS:
    shares = truth.frequencies(wording.read(caption), attribute)
    names, p = list(shares), np.array(list(shares.values()))
    for _ in range(50):
      drawn = random.choice(names, size=count, p=p)
      found.append(modes.coverage(drawn.tolist(), shares).distance)
  return float(np.mean(found))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', action='append')
  parser.add_argument('--count', type=int, default=50, help='of each caption')
  parser.add_argument('--weights', default='1,4,7')
  args = parser.parse_args()

  lines = {name: line(args.count, name) for name in SEEN}
  print(
    f'{len(CAPTIONS)} captions, {args.count} pictures of each; samples of the '
    'truth: '
    + ', '.join(f'{name} {value:.3g}' for name, value in lines.items())
  )
  for workdir in args.workdir or ['pretrained:shapes']:
    model = api.load(workdir, batch_size=50)
    for weight in map(float, args.weights.split(',')):
      wanted = [
        Asked(caption, index=index)
        for caption in CAPTIONS
        for index in range(args.count)
      ]
      images, _ = model.draw(wanted, model.asked(guidance=weight))
      rows = images.reshape(len(CAPTIONS), args.count, *images.shape[1:])
      found = []
      for name, see in SEEN.items():
        drawn = {
          caption: list(map(see, row))
          for caption, row in zip(CAPTIONS, rows, strict=True)
        }
        found.append(told(name, distances(drawn, name)))
        none = np.mean([mode is None for row in drawn.values() for mode in row])
        found[-1] += f' ({none:.1%} show none)' if none else ''
      print(f'{model}, guidance {weight:g}: {", ".join(found)}', flush=True)


if __name__ == '__main__':
  main()
