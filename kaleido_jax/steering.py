"""Which guidance `config.sample` asks for, made of the core's functions.

Beside the weight, `config.sample.methods` names any of these, and a section of
the same name has their numbers:

  apart      a weight of its own for the caption; `guidance` is of the latents
  interval   guidance only between two noise levels
  dynamic    guidance that fades in
  rescale    the deviation of the unguided estimate
  apg        directions that are projected, shortened, pushed apart
  autoguidance  away from what a weaker run draws of the same, not of nothing
  cads       a condition that is annealed
  particles  pictures of one prompt that push each other away

What is named decides what is compiled; numbers are data, and compile nothing.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Key

from kaleido_jax.arrays import Array
from kaleido_jax.diffusion import cads, denoiser, guidance
from kaleido_jax.diffusion.denoiser import Denoiser, Model
from kaleido_jax.models.kaleido import Tokens

METHODS = (
  *('apart', 'interval', 'dynamic', 'rescale', 'apg', 'autoguidance'),
  *('cads', 'particles'),
)
WORDS = ('apply_to', 'weaker')  # fields of sections that are no numbers

Numbers = Mapping[str, Any]


class Plan(NamedTuple):
  """What has to be compiled for a way to sample."""

  methods: tuple[str, ...]
  apply_to: str  # of CADS
  threshold: str


class Conditions(NamedTuple):
  """What the denoiser may be told: nothing, the caption, or all."""

  null: Tokens
  caption: Tokens
  full: Tokens
  is_latent: Bool[Array, 'b n']


def plan(sample: Any) -> Plan:
  """Refuses what there is not."""
  unknown = [name for name in sample.methods if name not in METHODS]
  if unknown:
    raise ValueError(
      f'config.sample.methods names {unknown[0]!r}; there are '
      f'{", ".join(METHODS)}.'
    )
  if sample.threshold not in denoiser.THRESHOLDS:
    raise ValueError(
      f'config.sample.threshold={sample.threshold!r} is not one of '
      f'{list(denoiser.THRESHOLDS)}.'
    )
  if sample.cads.apply_to not in cads.APPLY_TO:
    raise ValueError(
      f'config.sample.cads.apply_to={sample.cads.apply_to!r} is not one of '
      f'{list(cads.APPLY_TO)}.'
    )
  if 'autoguidance' in sample.methods:
    if 'apart' in sample.methods:
      raise ValueError(
        'config.sample.methods: apart and autoguidance each say what pictures '
        'are led away from; choose one.'
      )
    if not sample.autoguidance.weaker:
      raise ValueError(
        'autoguidance leads away from a weaker run: give its workdir as '
        'config.sample.autoguidance.weaker.'
      )
  methods = tuple(sorted({*sample.methods}))
  apply_to = sample.cads.apply_to if 'cads' in methods else ''
  return Plan(methods, apply_to, sample.threshold)


def weaker(sample: Any) -> str:
  """The run that pictures are led away from; '' is none."""
  asked = 'autoguidance' in plan(sample).methods
  return sample.autoguidance.weaker if asked else ''


def numbers(sample: Any) -> Numbers:
  """The rest, as arrays: to be traced."""
  found = {
    name: {
      field: np.float32(value)
      for field, value in sample[name].items()
      if field not in WORDS
    }
    for name in plan(sample).methods
  }
  found['weight'] = np.float32(sample.guidance)
  found['threshold'] = {
    'quantile': np.float32(sample.quantile),
    'ceiling': np.float32(sample.ceiling),
  }
  return found


def denoise(
  made: Plan,
  given: Numbers,
  estimate: Model,
  conditions: Conditions,
  keys: Key[Array, ' b'],
  counted: Bool[Array, ' b'] | None = None,
  weaker: tuple[Model, Conditions] | None = None,
) -> Denoiser:
  """A denoiser that is guided as planned; `counted` is of no filling."""
  full = _annealed(made, given, conditions, keys)
  weights = [given['weight']]
  if 'autoguidance' in made.methods:
    if weaker is None:
      raise ValueError('autoguidance was given no weaker network.')
    below, its_own = weaker
    ladder = guidance.by_network(
      # Both read the same noise in the caption: only the networks differ.
      denoiser.conditional(below, _annealed(made, given, its_own, keys)),
      denoiser.conditional(estimate, full),
    )
  elif 'apart' in made.methods:
    told = conditions.null, conditions.caption, full
    ladder = guidance.by_condition(estimate, *told)
    weights.insert(0, given['apart']['caption'])
  else:
    ladder = guidance.by_condition(estimate, conditions.null, full)
  for name in ('dynamic', 'interval'):
    if name in made.methods:
      change = getattr(guidance, name)
      weights = [change(weight, **given[name]) for weight in weights]
  found = guidance.guide(
    ladder,
    *weights,
    projection=guidance.Projection(**given['apg'])
    if 'apg' in made.methods
    else None,
    rescale=given['rescale']['amount'] if 'rescale' in made.methods else None,
  )
  if 'particles' in made.methods:
    found = guidance.particles(found, **given['particles'], counted=counted)
  return denoiser.THRESHOLDS[made.threshold](found, **given['threshold'])


def _annealed(made: Plan, given: Numbers, conditions: Conditions, keys):
  """What the best informed estimate reads."""
  full = conditions.full
  if 'cads' not in made.methods:
    return full
  chosen = cads.tokens(full.mask, conditions.is_latent, made.apply_to)
  features = cads.anneal(full.features, chosen, keys, **given['cads'])
  return lambda point: full._replace(features=features(point))
