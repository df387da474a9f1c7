"""All that is to be done before there are figures, checked before it begins."""

import functools
import hashlib
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tqdm
from ml_collections import ConfigDict

from kaleido_jax import api, exported
from kaleido_jax.evaluation import modes, plan
from kaleido_jax.evaluation.drawn import Drawn, Share
from kaleido_jax.evaluation.reference import Reference
from kaleido_jax.evaluation.seen import Seen
from kaleido_jax.metrics.features import Extractor
from kaleido_jax.pictures import Asked

# Fields of config.sample that every setting says, or that are a model's own.
OF_SETTINGS = ('guidance', 'methods', 'autoguidance')


class Job(NamedTuple):
  """One setting of one model."""

  model: api.Kaleido
  weights: str  # a mark of its parameters
  setting: plan.Setting
  asked: list[Asked]
  drawn: Drawn
  seen: Seen

  @property
  def name(self) -> str:
    return f'{self.model.name}, {self.setting}'


class Work(NamedTuple):
  """What several processes share."""

  reference: Reference
  captions: list[str]
  extractor: Extractor
  real: Seen
  ceiling: Seen | None  # other real ones, judged as drawn ones are
  known: modes.Modes | None  # hidden ones, where the data knows them
  jobs: list[Job]

  def do(self, share: Share) -> None:
    """One process's share of what is missing."""
    for job in self.jobs:
      with _bar(job.name, len(job.asked), 'picture') as bar:
        job.drawn.draw(share, bar.update)
    for name, seen in self._all_seen():
      with _bar(f'{self.extractor.name}, {name}', seen.parts, 'part') as bar:
        seen.look(share, bar.update)

  @property
  def is_done(self) -> bool:
    """By all of them."""
    return all(seen.is_complete for _, seen in self._all_seen())

  @property
  def models(self) -> list[api.Kaleido]:
    """Each once."""
    return list({job.model.name: job.model for job in self.jobs}.values())

  def _all_seen(self) -> Iterator[tuple[str, Seen]]:
    yield 'real', self.real
    if self.ceiling:
      yield 'real, as if drawn', self.ceiling
    for seen in self.known.needs if self.known else ():
      yield f'{self.known.what}s', seen
    for job in self.jobs:
      yield job.name, job.seen


def prepared(
  config: ConfigDict,
  workdir: Sequence[str],
  extractor: Extractor,
  said: Sequence[str],
) -> Work:
  """said: fields of config.sample that are set for all runs alike."""
  wanted = config.evaluate
  models = [_loaded(place, config, said) for place in workdir]
  reference = _shared(models, wanted)
  agree(models)
  homes = [exported.home(place) / 'evaluation' for place in workdir]
  captions = reference.captions(wanted.num_captions)
  if wanted.matched:
    reference = reference.other(only=captions)

  def looking(pictures: Reference) -> Seen:
    mark = hashlib.sha256(str(pictures).encode()).hexdigest()[:8]
    return Seen(pictures, extractor, homes[0] / 'real' / mark)

  other = reference.ceiling()
  return Work(
    *(reference, captions, extractor, looking(reference)),
    ceiling=other and looking(other),
    known=modes.of(reference, captions, looking),
    jobs=[
      job
      for model, home in zip(models, homes, strict=True)
      for job in _jobs(model, captions, extractor, wanted, home)
    ],
  )


def _jobs(
  model: api.Kaleido,
  captions: Sequence[str],
  extractor: Extractor,
  wanted: ConfigDict,
  home: pathlib.Path,
) -> Iterator[Job]:
  weights = plan.digest(model)
  for setting in plan.settings(wanted):
    asked = plan.asked(model, captions, setting, wanted)
    model.check(asked)
    at = home / 'drawn' / plan.folder(model, weights, setting, asked)
    each, batch = wanted.per_caption, wanted.batch_size
    drawn = Drawn(model, asked, at, each=each, batch=batch)
    seen = Seen(drawn, extractor, at)
    yield Job(model, weights, setting, asked, drawn, seen)


def _loaded(place: str, config: ConfigDict, said: Sequence[str]) -> api.Kaleido:
  model = api.load(place, batch_size=config.evaluate.batch_size)
  for field in said:
    if field.startswith('sample.'):
      names = field.split('.')
      value = functools.reduce(lambda at, name: at[name], names, config)
      model.config.update_from_flattened_dict({field: value})
  return model


def _shared(models: Sequence[api.Kaleido], wanted: ConfigDict) -> Reference:
  """Of all models, or they cannot stand side by side."""
  first, *others = [Reference(model.config, wanted) for model in models]
  for model, other in zip(models[1:], others, strict=True):
    if str(other) != str(first):
      raise ValueError(
        f'{model.name} has learned {other}, and {models[0].name} {first}: '
        'they cannot stand side by side.'
      )
  return first


def agree(models: Sequence[api.Kaleido]) -> None:
  """All draw in one way, but for what the settings of the evaluation say."""
  first, *others = models
  for model in others:
    for name, value in first.config.sample.items():
      if name in OF_SETTINGS or model.config.sample[name] == value:
        continue
      raise ValueError(
        f'{first.name} draws with {name}={value}, and {model.name} with '
        f'{model.config.sample[name]}: for all alike, give '
        f'--config.sample.{name}.'
      )


def _bar(what: str, total: int, unit: str) -> tqdm.tqdm:
  return tqdm.tqdm(desc=what, total=total, unit=unit, disable=None)
