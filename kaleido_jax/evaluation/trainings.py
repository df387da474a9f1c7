"""Runs that differ in their seed alone are one model, trained several times."""

import json
from collections.abc import Iterator, Mapping, Sequence

from kaleido_jax.api import Kaleido
from kaleido_jax.evaluation.compared import Figures
from kaleido_jax.metrics import repeated

# A field of these may have another value in another training; of `train` it
# counts how many updates there were.
FREE = ('seed', 'train', 'sample', 'evaluate')

Groups = Mapping[str, tuple[str, ...]]  # names of runs, by one for all of them
Setting = tuple[str, str, float, Figures]  # of a model: way, guidance, figures


def groups(models: Sequence[tuple[Kaleido, str]]) -> Groups:
  """Of models and marks of their weights; the same weights are one training."""
  found: dict[str, dict[str, str]] = {}
  for model, weights in models:
    config = model.config.to_dict()
    fields = {n: value for n, value in config.items() if n not in FREE}
    recipe = json.dumps([fields, model.step], sort_keys=True)
    found.setdefault(recipe, {}).setdefault(weights, model.name)
  runs = (tuple(names.values()) for names in found.values())
  return {f'{n[0]}, {len(n)} trainings': n for n in runs if len(n) > 1}


def of(groups: Groups, settings: Sequence[Setting]) -> Iterator[Setting]:
  """Every setting of every group, of figures that all its trainings have."""
  known = {(run, way, at): figures for run, way, at, figures in settings}
  for name, runs in groups.items():
    for run, way, at, figures in settings:
      if run == runs[0]:
        each = [known[run, way, at] for run in runs]
        names = [n for n in figures if all(n in one for one in each)]
        found = {n: repeated.of(runs, [x[n] for x in each]) for n in names}
        yield name, way, at, found


def told(groups: Groups) -> str:
  """What intervals of their means say."""
  each = (f'{name} ({", ".join(runs)})' for name, runs in groups.items())
  return f'{"; ".join(each)}: by other captions and other trainings'
