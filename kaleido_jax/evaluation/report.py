"""Figures on paper: JSON and CSV for programs, tables, curves."""

import csv
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kaleido_jax import progress
from kaleido_jax.evaluation import compared, scores
from kaleido_jax.evaluation.compared import Compared
from kaleido_jax.metrics.bootstrap import Interval

TITLES = {
  'fid': 'FID ↓',
  'sfid': 'sFID ↓',
  'frechet': 'Fréchet distance ↓',
  'kid': 'KID ↓',
  'kernel': 'kernel distance ↓',
  'inception_score': 'Inception Score ↑',
  'precision': 'precision ↑',
  'recall': 'recall ↑',
  'density': 'density ↑',
  'coverage': 'coverage ↑',
  'mss': 'MSS ↓',
  'mss_with_diagonal': 'MSS, all ↓',
  'vendi': 'Vendi ↑',
  'text_match': 'match with the text ↑',
  'color_match': 'colours as said ↑',
  'color_match_other': "as of another caption's",
  'box_iou': 'boxes as said ↑',
  'box_iou_other': "as of another caption's",
  'blob_iou': 'blobs as said ↑',
  'blob_iou_other': "as of another caption's",
  'modes': 'modes of a caption ↑',
  'modes_distance': 'modes, off the truth ↓',
}
# The table has all; of these there are curves.
DRAWN = (
  *('fid', 'frechet', 'kid', 'kernel', 'precision', 'recall', 'coverage'),
  *('mss', 'vendi', 'text_match', 'modes'),
)
SOLVER = ('solver', 'spacing', 'steps', 'temperature')  # told under a table
REAL = '#222222'
INKS = (
  *('#5f6670', '#d55e00', '#0072b2', '#009e73', '#cc79a7', '#b8860b'),
  *('#56b4e9', '#6a3d9a'),
)
DASHES = ('-', '--', '-.')  # when there are more lines than inks; REAL is ':'


class Result(NamedTuple):
  """One setting of one model."""

  model: str
  step: int
  weights: str  # a mark of the parameters
  way: str
  guidance: float
  settings: Mapping[str, Any]  # all of config.sample that counts
  figures: Mapping[str, Interval]
  runs: Sequence[str] = ()  # the trainings that it is the mean of, if it is


def write(
  folder: pathlib.Path,
  results: Sequence[Result],
  about: Mapping[str, Any],
  ceiling: Mapping[str, Interval],
  beside: Sequence[Compared],
  perplexity: Mapping[str, Mapping[str, Interval]],
  means: Sequence[Compared] = (),
) -> None:
  """`about`: what every figure carries: extractor, reference, counts, seed.

  ceiling: of real pictures. beside: models with the first of them, and ways
  with none. perplexity: of each model's prior, by kinds of latents. means: as
  `beside`, of what was trained several times.
  """
  folder.mkdir(parents=True, exist_ok=True)
  told = [
    result._asdict()
    | {'figures': {n: _plain(tuple(i)) for n, i in result.figures.items()}}
    for result in results
  ]
  said = {'about': dict(about), 'results': told}
  said['ceiling'] = {name: list(i) for name, i in ceiling.items()}
  said['perplexity'] = {
    name: {kind: _plain(tuple(i)) for kind, i in each.items()}
    for name, each in perplexity.items()
  }
  said['compared'] = [_plain(each._asdict()) for each in (*beside, *means)]
  text = json.dumps(said, indent=1, allow_nan=False)
  progress.replace(folder / 'results.json', f'{text}\n')
  _write_csv(folder / 'results.csv', results)
  text = table(results, about, ceiling)
  text += comparison(beside, 'by the same choices of captions')
  text += comparison(means, 'by captions and trainings')
  text += surprise(perplexity)
  progress.replace(folder / 'results.md', text)
  curves(folder / 'curves.png', results, ceiling)


def read(folder: pathlib.Path) -> list[Result]:
  told = json.loads((folder / 'results.json').read_text())['results']
  return [
    Result(
      **each
      | {'figures': {n: _interval(i) for n, i in each['figures'].items()}}
    )
    for each in told
  ]


def _interval(told: Sequence[float | None]) -> Interval:
  return Interval(*(np.nan if x is None else x for x in told))


def table(
  results: Sequence[Result],
  about: Mapping[str, Any],
  ceiling: Mapping[str, Interval],
) -> str:
  """In Markdown: a row for each setting, and for real pictures."""
  names = _names(results)
  lines = [
    '| model | way | guidance | ' + ' | '.join(TITLES[n] for n in names) + ' |',
    '| --- | --- | --- |' + ' --- |' * len(names),
  ]
  for r in results:
    figures = ' | '.join(str(r.figures.get(name, '–')) for name in names)
    lines.append(
      f'| {r.model}, step {r.step} | {r.way or "guidance"} | {r.guidance:g} | '
      f'{figures} |'
    )
  if ceiling:
    figures = ' | '.join(str(ceiling.get(name, '–')) for name in names)
    lines.append(f'| real pictures | – | – | {figures} |')
  said = '; '.join(f'{name}: {value}' for name, value in about.items())
  how = {f'{name} {r.settings[name]}' for r in results for name in SOLVER}
  return '\n'.join(lines) + (
    f'\n\nIn brackets: where 95 of 100 would lie. {said}; '
    f'sampling: {", ".join(sorted(how))}.\n'
  )


def comparison(beside: Sequence[Compared], how: str) -> str:
  """In Markdown: how far each model is from the first, each way from none."""
  found: dict[str, list[Compared]] = {}
  for each in beside:
    own = each.other == each.model
    title = 'guidance alone, of the same model' if own else each.other
    found.setdefault(title, []).append(each)
  return ''.join(
    _beside(f'Beside {other}, {how}', some) for other, some in found.items()
  )


def _beside(title: str, beside: Sequence[Compared]) -> str:
  # Of colours that latents say a baseline has none.
  more = dict.fromkeys(name for each in beside for name in each.differences)
  times = dict.fromkeys(name for each in beside for name in each.ratios)
  heads = [f'{TITLES[name]} by' for name in more]
  for name in times:
    above = (
      f', above {compared.RATIOS[name]:g}' if compared.RATIOS[name] else ''
    )
    heads.append(f'{TITLES[name]}{above}, times')
  lines = [
    '',
    f'{title}:',
    '',
    '| model | way | guidance | ' + ' | '.join(heads) + ' |',
    '| --- | --- | --- |' + ' --- |' * len(heads),
  ]
  for c in beside:
    found = [str(c.differences.get(name, '–')) for name in more]
    found += [str(c.ratios.get(name, '–')) for name in times]
    lines.append(
      f'| {c.model} | {c.way or "guidance"} | {c.guidance:g} | '
      + ' | '.join(found)
      + ' |'
    )
  return '\n'.join(lines) + '\n'


def surprise(perplexity: Mapping[str, Mapping[str, Interval]]) -> str:
  """In Markdown: a row for each prior, a column for each kind of latents."""
  kinds = dict.fromkeys(kind for each in perplexity.values() for kind in each)
  if not kinds:
    return ''
  lines = [
    '',
    'Perplexity of priors, of real latents of the split that is compared with:',
    '',
    '| model | ' + ' | '.join(f'{kind} ↓' for kind in kinds) + ' |',
    '| --- |' + ' --- |' * len(kinds),
  ]
  for name, each in perplexity.items():
    found = ' | '.join(str(each.get(kind, '–')) for kind in kinds)
    lines += [f'| {name} | {found} |'] if each else []
  return '\n'.join(lines) + '\n'


def curves(
  path: pathlib.Path,
  results: Sequence[Result],
  ceiling: Mapping[str, Interval],
) -> None:
  """Each figure over the weight, a line for each model and way (figure 5).

  Of what was trained several times the mean, without the single trainings.
  """
  import matplotlib.pyplot as plt

  names = [name for name in DRAWN if name in _names(results)]
  columns = 4 if len(names) > 6 else min(3, len(names))
  rows = -(-len(names) // columns)
  figure, axes = plt.subplots(
    *(rows, columns),
    figsize=(3.1 * columns, 2.4 * rows),
    layout='constrained',
    squeeze=False,
  )
  single = {run for r in results for run in r.runs}
  results = [r for r in results if r.model not in single]
  lines = list(dict.fromkeys((r.model, r.way) for r in results))
  for ax, name in zip(axes.flat, names, strict=False):
    looks = itertools.cycle(itertools.product(DASHES, INKS))
    for (model, way), (dash, ink) in zip(lines, looks, strict=False):
      some = [
        r
        for r in sorted(results, key=lambda r: r.guidance)
        if (r.model, r.way) == (model, way) and name in r.figures
      ]
      if not some:
        continue
      x = [r.guidance for r in some]
      values = np.array([r.figures[name] for r in some])
      ax.fill_between(x, values[:, 1], values[:, 2], color=ink, alpha=0.15)
      label = f'{model} + {way}' if way else model
      ax.plot(*(x, values[:, 0]), marker='.', ls=dash, color=ink, label=label)
    if name in ceiling:
      ax.axhline(ceiling[name].value, color=REAL, ls=':', label='real pictures')
    if single:
      shown = [r.figures for r in results] + [ceiling]
      _limit(ax, [some[name].value for some in shown if name in some])
    ax.set_title(TITLES[name], fontsize=10)
    ax.set_xlabel('guidance', fontsize=8)
    ax.spines[['top', 'right']].set_visible(False)
    ax.tick_params(labelsize=8)
  for ax in axes.flat[len(names) :]:
    ax.set_visible(False)
  handles, labels = axes[0, 0].get_legend_handles_labels()
  figure.legend(
    handles, labels, loc='outside lower center', ncols=3, frameon=False
  )
  figure.savefig(path, dpi=150)
  plt.close(figure)


def _limit(ax: Any, values: Sequence[float]) -> None:
  """A band of two trainings may end beyond the axis, or lines would be flat."""
  low, high = ax.dataLim.intervaly
  room = max(values) - min(values)
  low, high = max(low, min(values) - room), min(high, max(values) + room)
  edge = 0.05 * (high - low)
  if edge:  # nothing is cut where all are alike
    ax.set_ylim(low - edge, high + edge)


def _names(results: Sequence[Result]) -> list[str]:
  """Of figures that any of them has."""
  return [n for n in scores.NAMES if any(n in r.figures for r in results)]


def _plain(value: Any) -> Any:
  """As JSON has it: null is what is not finite."""
  if isinstance(value, Mapping):
    return {name: _plain(each) for name, each in value.items()}
  if isinstance(value, tuple):
    return [_plain(each) for each in value]
  return None if isinstance(value, float) and not np.isfinite(value) else value


def _write_csv(path: pathlib.Path, results: Sequence[Result]) -> None:
  new = path.with_name(f'{path.name}.new')
  with new.open('w', newline='') as file:
    writer = csv.writer(file)
    names = _names(results)
    ends = [f'{name}{end}' for name in names for end in ('', '_low', '_high')]
    writer.writerow(['model', 'runs', 'step', 'way', 'guidance', *ends])
    for r in results:
      figures = [v for name in names for v in r.figures.get(name, [''] * 3)]
      runs = max(1, len(r.runs))
      writer.writerow([r.model, runs, r.step, r.way, r.guidance, *figures])
  new.replace(path)
