"""Quality and diversity of one run, or of several side by side.

  python -m kaleido_jax.main --mode=evaluate --workdir=runs/shapes \\
    --workdir=runs/shapes-mdm --config.evaluate.guidance="(1.0,4.0,7.0)"

Draws pictures of captions that training has not seen, under every weight and
way to guide, lets a network look at them, and compares with real ones. Started
again, only what is missing is drawn; with --part=0/4 and so on, processes share
the work, and whoever finds all of it there reports. See `evaluation/`.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm
from absl import logging
from ml_collections import ConfigDict

from kaleido_jax import api, exported, prompts
from kaleido_jax.evaluation import drawn, plan, report, scores
from kaleido_jax.metrics import features


def run(
  config: ConfigDict,
  *,
  workdir: Sequence[str],
  out: str = '',
  part: str = '0/1',
  said: Sequence[str] = (),
) -> None:
  """Everything, into `out`, or the first workdir's evaluation/."""
  del said
  wanted, share = config.evaluate, prompts.share(part)
  extractor = features.create(wanted.extractor, wanted.weights)
  folder = pathlib.Path(out or exported.home(workdir[0]) / 'evaluation')
  results, pictures, complete = [], {}, True
  for place in workdir:
    model = api.load(place, batch_size=wanted.batch_size)
    reference = plan.reference(model, wanted)
    real = seen(extractor, reference.images, folder / 'real', reference.source)
    for setting in plan.settings(wanted):
      asked = plan.asked(model, reference.captions, setting, wanted)
      name = f'{setting}'.replace(' ', '-').replace('+', '-')
      name += f'-{plan.mark(model, asked)}'
      at = exported.home(place) / 'evaluation/drawn' / name
      with tqdm.tqdm(
        total=-(-len(asked) // share[1]), unit='picture', disable=None
      ) as bar:
        bar.set_description(f'{model.name}, {setting}')
        drawn.draw(model, asked, at, share=share, done=bar.update)
      if not drawn.is_complete(asked, at):
        complete = False
        continue
      images, _ = drawn.read(asked, at, model.words.kinds)
      fake = seen(extractor, images, at, at.name)
      fake = fake.reshape(len(reference.captions), wanted.per_caption, -1)
      figures = scores.of(real, fake, wanted)
      told = ', '.join(f'{n} {i}' for n, i in figures.items())
      logging.info('%s, %s: %s', model.name, setting, told)
      results.append(report.Result(model.name, model.step, *setting, figures))
      shape = len(reference.captions), wanted.per_caption, *images.shape[1:]
      pictures[f'{model.name}, {setting}'] = images.reshape(shape)
  if not complete:
    logging.info('other processes have not drawn their parts yet: no report')
    return
  report.write(folder, results, about(wanted, extractor, reference))
  report.grid(folder / 'grid.png', pictures, reference.captions)
  logging.info('see %s', folder / 'results.md')


def seen(
  extractor: features.Extractor,
  images: np.ndarray,
  folder: pathlib.Path,
  what: str,
) -> np.ndarray:
  """Features, kept beside the pictures that they are of."""
  path = folder / f'{extractor.name}.npz'
  if path.exists():
    with np.load(path) as file:
      if str(file['what']) == what and len(file['features']) == len(images):
        return file['features']
  found = extractor(images)['features']
  folder.mkdir(parents=True, exist_ok=True)
  new = path.with_name(f'{path.stem}.new.npz')
  np.savez(new, features=found, what=what)
  new.replace(path)
  return found


def about(
  wanted: ConfigDict, extractor: features.Extractor, reference: plan.Reference
) -> dict[str, Any]:
  """What no figure may be without."""
  return {
    'extractor': f'{extractor.name} ({extractor.resize})',
    'real': f'{len(reference.images)} of {reference.source}',
    'captions': len(reference.captions),
    'pictures of each': wanted.per_caption,
    'neighbours': wanted.neighbours,
    'seed': wanted.seed,
  }
