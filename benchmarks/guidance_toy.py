"""Draws the paper's toy (figure 3): what guidance does to the modes of a class.

  python -m benchmarks.guidance_toy            # writes docs/guidance_toy.png
  python -m benchmarks.guidance_toy --trained  # writes docs/trained_toy.png

The first trains nothing: its denoiser is exact, so what is seen is guidance
alone. A few seconds on a CPU. The second reads two trained runs,

  python -m kaleido_jax.main --config=configs/toy.py:mdm
  python -m kaleido_jax.main --config=configs/toy.py

and takes two minutes more. Needs matplotlib (`pip install -e '.[eval]'`).
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from kaleido_jax import api
from kaleido_jax.diffusion import guidance, mixture, sampler, schedule
from kaleido_jax.pictures import Asked

ROOT = pathlib.Path(__file__).parents[1]
WEIGHTS = (1, 5, 8, 25)
NUM = 10_000  # samples per class
NUM_TRAINED = 2_000  # a network takes longer
NEAR = 0.6  # half the distance between the modes of a class
SHOWN = 400  # of them, as points
CLASSES = {'A': (0, 1, '#2a6fbb'), 'B': (2, 3, '#d9752b')}
GREY = '#5f6670'
TOY = mixture.toy()


@jax.jit
def draw(modes, weight, keys):
  """Samples, each conditioned on the modes that its row expects."""
  everything = jnp.full((1, 4), 0.25)
  ladder = guidance.by_condition(TOY.model, everything, modes)
  (x,), _ = sampler.sample(
    guidance.guide(ladder, weight),
    (schedule.create('squared_cosine', 1000),),
    sampler.grid(250, 1000, spacing='reference'),
    sampler.gaussian(keys, [(2,)]),
    solver=sampler.SOLVERS['ddpm'],
  )
  return x


def conditions(first, second, *, latent):
  """Either mode of the class may come; a latent says beforehand which."""
  if not latent:
    row = np.zeros(4, np.float32)
    row[[first, second]] = 0.5
    return np.tile(row, (NUM, 1))
  chosen = np.random.default_rng(0).choice([first, second], NUM)
  return np.eye(4, dtype=np.float32)[chosen]


def exact(label, weight, *, latent):
  """Samples of a class by the exact denoiser."""
  first, second, _ = CLASSES[label]
  modes = conditions(first, second, latent=latent)
  keys = sampler.keys(ord(label), np.arange(NUM))
  return np.asarray(draw(modes, float(weight), keys))


def trained(baseline: str, kaleido: str, num: int = NUM_TRAINED):
  """The same of two runs, by their workdirs."""
  models = {
    latent: api.load(folder, batch_size=num)
    for latent, folder in ((False, baseline), (True, kaleido))
  }

  def samples(label, weight, *, latent):
    model, seed = models[latent], ord(label)
    caption = f'class {label.lower()}'
    wanted = [Asked(caption, seed=seed, index=i) for i in range(num)]
    points, _ = model.draw(wanted, model.asked(guidance=float(weight)))
    return points

  return samples


def panel(axes, weight, samples, *, latent):
  """Both classes under one weight; prints the share of the outer mode."""
  grid = np.linspace(-2.3, 2.3, 461)
  for label, (first, second, colour) in CLASSES.items():
    x = samples(label, weight, latent=latent)
    means = TOY.means[[first, second], 0]
    truth = np.exp(-0.5 * ((grid[:, None] - means) / 0.15) ** 2).sum(1)
    axes.plot(grid, truth, color=GREY, lw=0.9, zorder=3)
    # Heights relative to a mode of the data, so that all panels compare.
    density, edges = np.histogram(x[:, 0], bins=115, range=(-2.3, 2.3))
    density = 2 * density / len(x) / (edges[1] - edges[0])
    density *= 0.15 * np.sqrt(2 * np.pi)
    axes.stairs(density, edges, fill=True, color=colour, alpha=0.75, zorder=2)
    points = x[:SHOWN]
    axes.scatter(
      points[:, 0], points[:, 1] - 0.75, s=1.2, color=colour, alpha=0.5, lw=0
    )
    # Near a mode: what flies off belongs to none.
    outer, inner = (
      (np.abs(x[:, 0] - mean) < NEAR).mean()
      for mean in sorted(means, key=abs, reverse=True)
    )
    named = 'latent' if latent else 'class'
    print(
      f'{named:>6}, guidance {weight:>2}, {label}: '
      f'outer {outer:.3f}, inner {inner:.3f}, neither {1 - outer - inner:.3f}'
    )
    axes.text(
      -1.15 if label == 'A' else 1.15, 2.75, f'{outer:.0%}',
      ha='center', va='top', color=colour, fontsize=11, fontweight='bold',
      bbox={'facecolor': 'white', 'edgecolor': 'none', 'pad': 1}, zorder=4,
    )  # fmt: skip
  axes.axhline(0, color=GREY, lw=0.6)
  axes.set(xlim=(-2.3, 2.3), ylim=(-1.35, 2.75), xticks=[], yticks=[])
  for side in ('left', 'right', 'top', 'bottom'):
    axes.spines[side].set_visible(False)


def compare(samples, weights=WEIGHTS) -> plt.Figure:
  """A row without latents and a row with them, a column for each weight."""
  figure, rows = plt.subplots(
    2, len(weights), figsize=(8, 3.7), sharex=True, sharey=True
  )
  plt.close(figure)  # or a notebook shows it twice
  names = {
    False: 'class\nalone',
    True: 'class and\nsubclass\nlatent',
  }
  for row, latent in zip(rows, names, strict=True):
    for axes, weight in zip(row, weights, strict=True):
      panel(axes, weight, samples, latent=latent)
    row[0].set_ylabel(
      names[latent], rotation=0, ha='center', va='center', fontsize=10,
      labelpad=30,
    )  # fmt: skip
  for axes, weight in zip(rows[0], weights, strict=True):
    axes.set_title(f'guidance {weight}', fontsize=10, pad=8)
  figure.text(
    0.55, 0.015,
    'Grey: the data, two modes per class. Coloured: samples given class A or B.'
    ' Numbers: share of the outer mode.',
    ha='center', fontsize=8, color=GREY,
  )  # fmt: skip
  figure.subplots_adjust(0.11, 0.09, 0.995, 0.91, wspace=0.05, hspace=0.1)
  return figure


def main():
  if '--trained' in sys.argv[1:]:
    runs, target = ROOT / 'runs', ROOT / 'docs/trained_toy.png'
    samples = trained(str(runs / 'toy-mdm'), str(runs / 'toy'))
  else:
    samples, target = exact, ROOT / 'docs/guidance_toy.png'
  compare(samples).savefig(target, dpi=200)
  # A palette of 64 colours takes a third of the bytes.
  Image.open(target).convert('RGB').quantize(64).save(target, optimize=True)
  print(f'wrote {target}')


if __name__ == '__main__':
  main()
