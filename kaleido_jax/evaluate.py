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
from typing import Any, NamedTuple

import numpy as np
import tqdm
from absl import logging
from ml_collections import ConfigDict

from kaleido_jax import api, exported, prompts
from kaleido_jax.evaluation import drawn, plan, report, scores
from kaleido_jax.metrics import features
from kaleido_jax.pictures import Asked


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
  wanted = config.evaluate
  plan.check(wanted)
  extractor = features.create(wanted.extractor, wanted.weights)
  jobs, reference = prepared(wanted, workdir)
  for job in jobs:
    with tqdm.tqdm(total=len(job.asked), unit='picture', disable=None) as bar:
      bar.set_description(job.name)
      share = prompts.share(part)
      drawn.draw(job.model, job.asked, job.folder, share=share, done=bar.update)
  # Now, and not in between: whoever is the last sees all of it.
  if not all(drawn.is_complete(job.asked, job.folder) for job in jobs):
    logging.info('other processes have not drawn their parts yet: no report')
    return
  folder = pathlib.Path(out or exported.home(workdir[0]) / 'evaluation')
  real = seen(extractor, reference.images, folder / 'real', reference.source)
  results, shown = [], {}
  for job in jobs:
    images = drawn.read(job.asked, job.folder)
    fake = seen(extractor, images, job.folder, job.folder.name)
    fake = fake.reshape(wanted.num_captions, wanted.per_caption, -1)
    figures = scores.of(real, fake, wanted)
    told = ', '.join(f'{name} {i}' for name, i in figures.items())
    logging.info('%s: %s', job.name, told)
    model, setting = job.model, job.setting
    results.append(report.Result(model.name, model.step, *setting, figures))
    shown[job.name] = images[:: wanted.per_caption][: report.ROWS]
  report.write(folder, results, about(wanted, extractor, reference))
  report.grid(folder / 'grid.png', shown, reference.captions)
  logging.info('see %s', folder / 'results.md')


class Job(NamedTuple):
  """One setting of one model."""

  model: api.Kaleido
  setting: plan.Setting
  asked: list[Asked]
  folder: pathlib.Path

  @property
  def name(self) -> str:
    return f'{self.model.name}, {self.setting}'


def prepared(
  wanted: ConfigDict, workdir: Sequence[str]
) -> tuple[list[Job], plan.Reference]:
  """All that is to be drawn, checked; all models are asked the same."""
  jobs, first = [], None
  for place in workdir:
    model = api.load(place, batch_size=wanted.batch_size)
    reference = plan.reference(model, wanted)
    first = first or reference
    if (reference.source, reference.captions) != (first.source, first.captions):
      raise ValueError(
        f'{place} has learned {reference.source}, and {workdir[0]} '
        f'{first.source}: they cannot stand side by side.'
      )
    for setting in plan.settings(wanted):
      asked = plan.asked(model, reference.captions, setting, wanted)
      model.check(asked)
      name = f'{setting}'.replace(' ', '-').replace('+', '-')
      name += f'-{plan.mark(model, asked)}'
      at = exported.home(place) / 'evaluation/drawn' / name
      jobs.append(Job(model, setting, asked, at))
  return jobs, first


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
