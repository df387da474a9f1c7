"""Quality and diversity of one run, or of several side by side.

  python -m kaleido_jax.main --mode=evaluate --workdir=runs/shapes-mdm \\
    --workdir=runs/shapes --config.evaluate.guidance="(1.0,4.0,7.0)"

Draws pictures of captions that training has not seen, under every weight and
way to guide, lets a network look at them, and compares with real ones. Started
again, only what is missing is done; with --part=0/4 and so on, processes share
the work, and whoever finds all of it there reports. See `evaluation/`.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

import kaleido_jax
from kaleido_jax import exported, flops, prompts
from kaleido_jax.api import Kaleido
from kaleido_jax.evaluation import (
  compared,
  followed,
  grids,
  histograms,
  jobs,
  plan,
  report,
  scores,
  surprise,
  trainings,
)
from kaleido_jax.evaluation.compared import Scored
from kaleido_jax.metrics import features
from kaleido_jax.metrics.bootstrap import Interval


def run(
  config: ConfigDict,
  *,
  workdir: Sequence[str],
  out: str = '',
  part: str = '0/1',
  said: Sequence[str] = (),
) -> None:
  """Everything, into `out`, or the first workdir's evaluation/.

  said: fields of config.sample that are set for all runs alike.
  """
  wanted, share = config.evaluate, prompts.share(part)
  plan.check(wanted)
  extractor = features.create(wanted.extractor, wanted.weights)
  work = jobs.prepared(config, workdir, extractor, said)
  work.do(share)
  # Now, and not in between: whoever is the last finds all of it.
  if not work.is_done:
    logging.info('other processes are not through with their parts: no report')
    return

  real = work.real.read()
  distances, statistics = extractor.distances, work.reference.statistics
  captions = work.reference.of_captions(work.captions)
  truth = scores.truth(real, distances, wanted, statistics, captions)
  about, shares, ceiling = _about(wanted, work, truth), None, {}
  if work.known:
    about['modes'] = work.known.learn()
    shares = work.known.truth(work.captions)
  if work.ceiling:
    other = work.ceiling.read()
    own = scores.own(truth, real, wanted)
    ceiling = scores.ceiling(truth, other, distances, wanted, shares, own)
    about['ceiling'] = f'{len(other["features"])} of {work.ceiling.pictures}'
    if own:
      about['within captions'] = f'real pictures of {len(own)} of those drawn'
  words = extractor.read(work.captions) if extractor.read else None
  results, hidden, scored = [], {}, []
  for job in work.jobs:
    seen, drawn = job.seen.read(), None
    if work.known:
      numbers = work.known.read(job.drawn.all(), seen)
      drawn = hidden[job.name] = scores.Drawn(work.known.names, numbers, shares)
    source, each = work.reference.name, wanted.per_caption
    follows = followed.of(job.drawn, source, each)
    figures = scores.of(truth, seen, distances, wanted, drawn, words, follows)
    scored.append(Scored(job.model.name, *job.setting, figures))
    figures = _intervals(figures)
    told = ', '.join(f'{name} {i}' for name, i in figures.items())
    logging.info('%s: %s', job.name, told)
    results.append(
      report.Result(
        *(job.model.name, job.model.step, job.weights),
        *job.setting,
        settings=job.asked[0].settings,
        figures=figures,
      )
    )
  first, groups = work.models[0].name, trainings.groups(work.models)
  means = list(trainings.of(groups, scored))
  if groups:
    about['several trainings'] = trainings.told(groups, first)
    results += _rows(groups, means, results)
  folder = pathlib.Path(out or exported.home(workdir[0]) / 'evaluation')
  beside = list(compared.of(scored, first))
  of_means = list(compared.of(means, trainings.with_first(groups, first)))
  ceiling = _intervals(ceiling)
  perplexity = {
    model.name: _intervals(surprise.of(model, wanted)) for model in work.models
  }
  report.write(folder, results, about, ceiling, beside, perplexity, of_means)
  _show(folder, work, groups, hidden, wanted.guidance)
  logging.info('see %s', folder / 'results.md')


def _rows(
  groups: trainings.Groups,
  means: Sequence[Scored],
  results: Sequence[report.Result],
) -> Iterator[report.Result]:
  """Of what was trained several times: its first run, with means of figures."""
  known = {(r.model, r.way, r.guidance): r for r in results}
  for name, way, guidance, figures in means:
    runs = groups[name]
    yield known[runs[0], way, guidance]._replace(
      model=name, weights='', figures=_intervals(figures), runs=runs
    )


def _show(
  folder: pathlib.Path,
  work: jobs.Work,
  groups: trainings.Groups,
  hidden: Mapping[str, scores.Drawn],
  weights: Sequence[float],
) -> None:
  """Of a few captions: a picture under each weight, all under the largest.

  And how often each hidden mode is drawn. Of several trainings the first is
  seen.
  """
  more = {run for runs in groups.values() for run in runs[1:]}
  some = [job for job in work.jobs if job.model.name not in more]
  shown = {job.name: job.drawn.first(grids.ROWS) for job in some}
  grids.grid(folder / 'grid.png', shown, work.captions)
  strong = [job for job in some if job.setting.guidance == max(weights)]
  strips = {job.name: shown[job.name] for job in strong}
  grids.strips(folder / 'diversity.png', strips, work.captions)
  if hidden:
    seen = {job.name: hidden[job.name] for job in some}
    histograms.draw(folder / 'modes.png', seen, columns=len(weights))


def _intervals(figures: compared.Figures) -> dict[str, Interval]:
  return {name: figure.interval() for name, figure in figures.items()}


def _about(
  wanted: ConfigDict, work: jobs.Work, truth: scores.Truth
) -> dict[str, Any]:
  """What no figure may be without."""
  resamples = min(wanted.resamples, scores.FEW_RESAMPLES)
  return {
    'made by': f'kaleido_jax {kaleido_jax.__version__}',
    'extractor': f'{work.extractor}, {work.extractor.resize}',
    'real': f'{truth.count} of {work.reference}',
    'captions': wanted.num_captions,
    'pictures of each': wanted.per_caption,
    'neighbours': wanted.neighbours,
    'seed': wanted.seed,
    'resamples': f'{wanted.resamples} of captions, of distances {resamples}',
    'trained': ', '.join(map(_training, work.models)),
  }


def _training(model: Kaleido) -> str:
  """What it took: comparisons are of equal numbers of updates."""
  cost = flops.per_step(model.config)
  told = f'{cost / 1e12:.3g} T' if cost >= 1e12 else f'{cost / 1e9:.3g} G'
  return (
    f'{model.name} by {model.step:,} updates, each of '
    f'{model.config.data.batch_size} examples and {told}FLOP'
  )
