"""How surprised a prior is by real latents of captions that it has not met.

Perplexity: among so many tokens, all of them alike likely, it might as well
have chosen. Tokens of other kinds, or of another vocabulary, are others to
choose among. Nothing is drawn, so that no guidance or temperature counts.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
import optax
from absl import logging
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from kaleido_jax import objective
from kaleido_jax.api import Kaleido
from kaleido_jax.data import sources
from kaleido_jax.data.example import BadRecord, Source
from kaleido_jax.data.recipe import Recipe
from kaleido_jax.metrics import bootstrap
from kaleido_jax.metrics.bootstrap import Resampled
from kaleido_jax.models import kaleido, t5

Ids = Int[np.ndarray, 'rows l']
Row = tuple[str, Mapping[str, np.ndarray]]  # a caption, and arrays of `recipe`


def of(model: Kaleido, wanted: ConfigDict) -> dict[str, Resampled]:
  """Perplexity by kind; nothing of a baseline, or where no latents are known.

  wanted: config.evaluate; of its split as many examples as are compared with.
  """
  if not model.kinds:
    return {}
  config = _of_split(model.config, wanted)
  recipe = sources.recipe_of(config)
  try:
    source = sources.source(config.data, recipe, split=wanted.split)
  except (FileNotFoundError, ValueError) as error:
    # Photographs may have latents of what was trained on alone.
    logging.info('no perplexity of %s: %s', model.name, error)
    return {}
  rows = list(_rows(source, recipe, wanted.real))
  count = _counting(model)
  found: dict[str, list] = collections.defaultdict(list)
  for some in _batches([arrays for _, arrays in rows], wanted.batch_size):
    sums = jax.device_get(count(model.params, *some))
    for name, values in sums.items():
      found[name].extend(values)
  sums = {name: np.array(x)[: len(rows)] for name, x in found.items()}
  captions, which = np.unique([text for text, _ in rows], return_inverse=True)
  return {
    kind: _resampled(
      *(
        np.bincount(which, sums[f'sum/{kind}/{what}'], len(captions))
        for what in ('loss', 'tokens')
      ),
      wanted,
    )
    for kind in model.kinds
  }


def _resampled(
  nats: Float[np.ndarray, ' captions'],
  tokens: Float[np.ndarray, ' captions'],
  wanted: ConfigDict,
) -> Resampled:
  def perplexity(which: Int[np.ndarray, ' some']) -> float:
    with np.errstate(over='ignore'):
      return float(np.exp(nats[which].sum() / tokens[which].sum()))

  return bootstrap.resampled(
    len(nats),
    perplexity,
    times=wanted.resamples,
    seed=wanted.seed,
    within=(1.0, np.inf),
  )


def _of_split(config: ConfigDict, wanted: ConfigDict) -> ConfigDict:
  config = config.copy_and_resolve_references()
  data = config.data
  data.update(path=wanted.path or data.path, flip=False)
  if data.store:
    data.store = config.train.held_out_store
  return config


def _rows(source: Source, recipe: Recipe, most: int) -> Iterator[Row]:
  """From all over the split, as training would have read them."""
  nothing = np.random.default_rng(0)  # is left to chance without flips
  count = min(len(source), most)
  for place in np.linspace(0, len(source) - 1, count).astype(int):
    try:
      example = source[int(place)]
    except BadRecord:
      continue  # as in training
    yield example.caption, recipe(example, nothing).arrays


def _batches(
  rows: Sequence[Mapping[str, np.ndarray]], size: int
) -> Iterator[tuple[Ids, Ids]]:
  """Captions and latents, all of one size: the last row fills up the last."""
  for start in range(0, len(rows), size):
    some = [*rows[start : start + size]]
    some += [some[-1]] * (size - len(some))
    yield tuple(np.stack([row[name] for row in some]) for name in ('ids', 'z'))


def _counting(model: Kaleido):
  """count(params, ids, z): the sums of `objective.by_kind`, row by row."""
  module = kaleido.from_config(model.config)
  separator = model.words.separator

  def of_row(z, nats, logits):
    each = z[None], nats[None], logits[None]
    return objective.by_kind(model.kinds, *each, separator)

  def count(params, ids, z):
    mask = ids != t5.PAD
    memory = module.apply({'params': params}, ids, mask, method='encode')
    _, logits = module.apply(
      {'params': params}, z, memory, mask, method='prior'
    )
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, z)
    return jax.vmap(of_row)(z, nats, logits)

  return jax.jit(count)
