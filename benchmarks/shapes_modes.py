"""Which hidden modes runs of configs/shapes.py draw, against the true shares.

  python -m benchmarks.shapes_modes --workdir=A --workdir=B --out=modes.png

Captions name a shape and nothing else; its colour is hidden, and so is the tone
of the background. What is drawn is named by the generator's own segmentation
and compared with the frequencies that follow from its tables: total variation,
0 is the truth and 1 nothing in common, with an interval over captions. Guidance
prefers what is typical of a caption over what is frequent. Samples of the truth
itself, as many, are not at 0 either: below that line nothing can be told apart.
"""

import argparse
import pathlib

import matplotlib.pyplot as plt
import numpy as np

from kaleido_jax import api
from kaleido_jax.data.shapes import modes as truth
from kaleido_jax.data.shapes import seeing, wording, world
from kaleido_jax.evaluation import report
from kaleido_jax.metrics import bootstrap, modes
from kaleido_jax.metrics.bootstrap import Interval
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


def sure(each: list[float]) -> Interval:
  values = np.array(each)
  return bootstrap.resampled(len(values), lambda i: values[i].mean()).interval()


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


def draw(
  path: pathlib.Path,
  curves: dict[str, dict[str, dict[float, Interval]]],
  lines: dict[str, float],
) -> None:
  """curves: of an attribute, of a model, by weight."""
  figure, axes = plt.subplots(
    1, len(curves), figsize=(3.6 * len(curves), 3), layout='constrained'
  )
  for ax, (name, models) in zip(axes, curves.items(), strict=True):
    for (model, found), ink in zip(models.items(), report.INKS, strict=False):
      values = np.array(list(found.values()))
      ax.fill_between(
        list(found), values[:, 1], values[:, 2], color=ink, alpha=0.15
      )
      ax.plot(list(found), values[:, 0], '.-', color=ink, label=model)
    ax.axhline(
      lines[name], color=report.REAL, ls=':', label='samples of the truth'
    )
    ax.set(title=name, xlabel='guidance', ylim=(0, None))
    ax.spines[['top', 'right']].set_visible(False)
  axes[0].set_ylabel('off the true frequencies')
  handles = axes[0].get_legend_handles_labels()
  figure.legend(*handles, loc='outside lower center', ncols=3, frameon=False)
  figure.savefig(path, dpi=150)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--workdir', action='append')
  parser.add_argument('--count', type=int, default=50, help='of each caption')
  parser.add_argument('--weights', default='1,4,7')
  parser.add_argument('--out', type=pathlib.Path, help='a picture of it')
  args = parser.parse_args()

  lines = {name: line(args.count, name) for name in SEEN}
  print(
    f'{len(CAPTIONS)} captions, {args.count} pictures of each; samples of the '
    'truth: '
    + ', '.join(f'{name} {value:.3g}' for name, value in lines.items())
  )
  curves = {name: {} for name in SEEN}
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
      told = []
      for name, see in SEEN.items():
        drawn = {
          caption: list(map(see, row))
          for caption, row in zip(CAPTIONS, rows, strict=True)
        }
        found = sure(distances(drawn, name))
        curves[name].setdefault(workdir, {})[weight] = found
        none = np.mean([mode is None for row in drawn.values() for mode in row])
        rest = f' ({none:.1%} show none)' if none else ''
        told.append(f'{name} {found}{rest}')
      print(f'{model}, guidance {weight:g}: {", ".join(told)}', flush=True)
  if args.out:
    draw(args.out, curves, lines)


if __name__ == '__main__':
  main()
