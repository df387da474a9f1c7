"""Runs that differ in their seed alone are one model, trained several times."""

import json
from collections.abc import Iterator, Mapping, Sequence

from kaleido_jax.api import Kaleido
from kaleido_jax.evaluation.compared import Scored
from kaleido_jax.metrics import repeated

# Fields that say where, how fast, or what happens beside: not what is learned.
BESIDE = ('seed', 'extract', 'mesh', 'compile', 'train', 'sample', 'evaluate')
PLACES = ('path', 'store', 'vocabulary')
SPEED = ('num_workers', 'num_threads', 'cached_memory')

Groups = Mapping[str, tuple[str, ...]]  # names of runs, by one for all of them


def groups(models: Sequence[Kaleido]) -> Groups:
  """One training of each seed: an export of a run is none of its own."""
  found: dict[str, dict[int, str]] = {}
  for model in models:
    found.setdefault(_recipe(model), {}).setdefault(
      model.config.seed, model.name
    )
  runs = (tuple(names.values()) for names in found.values())
  return {f'{n[0]}, {len(n)} trainings': n for n in runs if len(n) > 1}


def _recipe(model: Kaleido) -> str:
  """All that decides what is learned, but for luck."""
  config = model.config.to_dict()
  fields = {n: value for n, value in config.items() if n not in BESIDE}
  data = fields['data'].items()
  fields['data'] = {n: v for n, v in data if n not in PLACES + SPEED}
  # The rate falls until then: a run that was stopped early is another one.
  steps = model.step, model.config.train.num_steps
  return json.dumps([fields, steps, model.words.fingerprint], sort_keys=True)


def of(groups: Groups, scored: Sequence[Scored]) -> Iterator[Scored]:
  """Every setting of every group, of figures that all its trainings have."""
  known = {(one.model, one.way, one.guidance): one.figures for one in scored}
  for name, runs in groups.items():
    for model, way, guidance in known:
      if model != runs[0]:
        continue
      figures = [known[run, way, guidance] for run in runs]
      common = [n for n in figures[0] if all(n in some for some in figures)]
      means = {
        n: repeated.of(runs, [some[n] for some in figures]) for n in common
      }
      yield Scored(name, way, guidance, means)


def with_first(groups: Groups, first: str) -> str:
  """The group of the run that others stand beside; '' if it has none."""
  found = (name for name, runs in groups.items() if first in runs)
  return next(found, '')


def told(groups: Groups, first: str) -> str:
  """Which rows are means, of what, and what they cannot be compared with."""
  means = (
    f'{n} is the mean of {", ".join(runs)}' for n, runs in groups.items()
  )
  said = f'{"; ".join(means)}: its interval is of captions and trainings'
  if not with_first(groups, first):
    said += f'; {first} was trained once, and no mean stands beside it'
  return said
