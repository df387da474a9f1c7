"""From features to figures, with how sure they are.

Quality and diversity stand side by side: a method that wins one by losing the
other shows. A distance of features that are not Inception's is not called FID.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from kaleido_jax.metrics import (
  bootstrap,
  frechet,
  inception_score,
  kernel,
  modes,
  precision_recall,
  similarity,
)
from kaleido_jax.metrics.bootstrap import Resampled

Features = Mapping[str, Float[np.ndarray, 'n _']]

NAMES = (
  *('fid', 'sfid', 'frechet', 'kid', 'kernel', 'inception_score'),
  *('precision', 'recall', 'density', 'coverage'),
  *('mss', 'mss_with_diagonal', 'vendi', 'text_match'),
  *('color_match', 'color_match_other'),
  *('box_iou', 'box_iou_other', 'blob_iou', 'blob_iou_other'),
  *('modes', 'modes_distance'),
)
# Each takes the eigenvalues of a large matrix, or all logits.
FEW_RESAMPLES = 20
ENDINGS = {'fid': '', 'sfid': '_s'}  # of statistics in a file of ADM's
KERNEL = {'fid': 'kid', 'frechet': 'kernel'}  # of the same features
GROUPS = 2_048  # of pictures, at most: their square is kept
WITHIN = ('mss', 'mss_with_diagonal', 'vendi')  # a caption
SHARES = ('precision', 'recall', 'coverage')


class Truth(NamedTuple):
  """All that is compared with, computed once."""

  gaussians: Mapping[str, frechet.Gaussian]  # by the distance's name
  reached: precision_recall.Reached | None  # None: no pictures, no neighbours
  count: int
  kernels: kernel.Kind | None = None  # of the same pictures, caption by caption
  firsts: Int[np.ndarray, ' groups'] | None = None  # a picture of each group
  # Of which drawn caption each is, or -1; None if nobody knows.
  captions: Int[np.ndarray, ' reals'] | None = None

  def weights(self, which: Int[np.ndarray, ' some']) -> Float[np.ndarray, ' n']:
    """How often each counts where captions are chosen anew, with all of theirs.

    Pictures of other captions stay: nothing chooses among those.
    """
    found = np.ones(self.count)
    if self.captions is not None:
      times = np.bincount(which, minlength=self.captions.max() + 1)
      found = np.where(self.captions < 0, 1.0, times[self.captions])
    return found


class Drawn(NamedTuple):
  """Hidden modes of all pictures of a setting, and of real ones."""

  names: Sequence[str]
  numbers: Int[np.ndarray, ' n']
  truth: Float[np.ndarray, 'captions modes']

  def shares(self) -> dict[str, float]:
    """Of each mode, in all pictures."""
    counts = np.bincount(self.numbers, minlength=len(self.names))
    return dict(zip(self.names, counts / counts.sum(), strict=True))


def truth(
  real: Features,
  distances: Mapping[str, str],
  wanted: ConfigDict,
  statistics: pathlib.Path | None = None,
  captions: Int[np.ndarray, ' reals'] | None = None,
) -> Truth:
  """distances: how an extractor's outputs are called. statistics: ADM's.

  captions: of which drawn one each is, or -1.
  """
  gaussians = {}
  for output, name in distances.items():
    if statistics is not None and name in ENDINGS:
      gaussians[name] = frechet.read(statistics, ENDINGS[name])
    elif real:
      gaussians[name] = frechet.moments(real[output]).gaussian
  if not gaussians:
    raise ValueError(
      f'{statistics} has no pictures, and statistics of Inception alone: give '
      'config.evaluate.extractor=inception_v3 and its published weights.'
    )
  if not real:
    return Truth(gaussians, None, 0)
  found = real['features']
  reached = precision_recall.reached(found, wanted.neighbours)
  group = np.zeros(len(found), int)
  if captions is not None:
    group = np.where(captions < 0, -1, _groups(wanted.num_captions)[captions])
  order = np.argsort(group, kind='stable')
  _, firsts, sizes = np.unique(
    group[order], return_index=True, return_counts=True
  )
  kernels = kernel.kind(found[order], sizes)
  return Truth(gaussians, reached, len(found), kernels, order[firsts], captions)


def of(
  truth: Truth,
  fake: Features,
  distances: Mapping[str, str],
  wanted: ConfigDict,
  drawn: Drawn | None = None,
  said: Float[np.ndarray, 'captions d'] | None = None,
  followed: Mapping[str, Float[np.ndarray, ' n']] | None = None,
) -> dict[str, Resampled]:
  """All figures of one setting; fakes lie caption by caption.

  said: features of the captions, where the extractor reads. followed: how far
  each picture follows its latents, where there are any.
  """
  fake = {name: _by_caption(x, wanted) for name, x in fake.items()}
  features, k = fake['features'], wanted.neighbours
  captions, each, width = features.shape

  def sure(statistic, within=(-np.inf, np.inf), times=wanted.resamples):
    return bootstrap.resampled(
      captions, statistic, times=times, seed=wanted.seed, within=within
    )

  few, found = min(wanted.resamples, FEW_RESAMPLES), {}
  for output, name in distances.items():
    rows = fake[output]
    found[name] = sure(
      lambda which, rows=rows, name=name: truth.gaussians[name].to(
        frechet.moments(_flat(rows[which])).gaussian
      ),
      within=(0.0, np.inf),
      times=few,
    )
  if 'fid' in found and captions * each >= 10:
    order = np.random.default_rng(wanted.seed).permutation(captions * each)
    found['inception_score'] = sure(
      lambda which: (
        inception_score.of_logits(_flat(fake['logits'][which])[order]).mean
      ),
      within=(1.0, np.inf),
      times=few,
    )
  if truth.kernels is not None and captions * each >= 10:
    name = KERNEL[distances['features']]
    found[name] = _kernel(truth, features, wanted)
  if truth.reached is not None:
    reached = precision_recall.reached(features.reshape(-1, width), k)
    near = precision_recall.near(truth.reached, reached, captions)
    # The reach of a fake is that in the whole set: of a part of it reaches
    # would be longer, and figures of another size.
    for name in ('precision', 'recall', 'density', 'coverage'):
      found[name] = sure(
        lambda which, name=name: precision_recall.figures(
          near.of(which), k, truth.weights(which)
        )[name],
        within=(0.0, 1.0 if name in SHARES else np.inf),
      )
  if each > 1:
    for name, values in _alike(list(features)).items():
      ends = (1.0, float(each)) if name == 'vendi' else (-1.0, 1.0)
      found[name] = sure(_mean_of(values), within=ends)
  if said is not None:
    matches = list(map(similarity.match, features, said))
    found['text_match'] = sure(_mean_of(matches), within=(-100.0, 100.0))
  for name, values in (followed or {}).items():
    means = values.reshape(captions, each).mean(1).tolist()
    found[name] = sure(_mean_of(means), within=(0.0, 1.0))
  if drawn is not None:
    found |= _of_modes(drawn, captions, sure)
  return {name: found[name] for name in NAMES if name in found}


def ceiling(
  truth: Truth,
  real: Features,
  distances: Mapping[str, str],
  wanted: ConfigDict,
  shares: Float[np.ndarray, 'captions modes'] | None = None,
  own: Sequence[Float[np.ndarray, 'each d']] = (),
) -> dict[str, Resampled]:
  """Figures of other real pictures, as if drawn: what can be reached at all.

  They are of many captions. What lies within one is told of hidden modes, by
  their true shares, and of how alike its `own` real pictures are.
  """
  rows = len(real['features']) // wanted.per_caption
  alike = wanted.copy_and_resolve_references()
  alike.num_captions = rows
  found = of(
    truth._replace(captions=None),
    {name: x[: rows * wanted.per_caption] for name, x in real.items()},
    *(distances, alike),
  )
  found = {name: found[name] for name in found if name not in WITHIN}
  means = _alike(own) if own else {}
  if shares is not None:
    means['modes'] = [modes.distinct(x, wanted.per_caption) for x in shares]
  for name, each in means.items():
    found[name] = bootstrap.resampled(
      len(each), _mean_of(each), times=wanted.resamples, seed=wanted.seed
    )
  return found


def own(
  truth: Truth, real: Features, wanted: ConfigDict
) -> list[Float[np.ndarray, 'each d']]:
  """Real pictures of drawn captions that have as many as are drawn, or more.

  As many of each as are drawn, or Vendi would be another; fewer than two such
  captions say nothing.
  """
  each = wanted.per_caption
  if truth.captions is None or each == 1:
    return []
  numbers = range(wanted.num_captions)
  places = [np.flatnonzero(truth.captions == n)[:each] for n in numbers]
  found = [real['features'][some] for some in places if len(some) == each]
  return found if len(found) > 1 else []


def _alike(
  captions: Sequence[Float[np.ndarray, 'each d']],
) -> dict[str, list[float]]:
  """How alike the pictures of each are."""
  alike = [similarity.mss(some) for some in captions]
  return {
    'mss': [a.pairs for a in alike],
    'mss_with_diagonal': [a.all for a in alike],
    'vendi': [similarity.vendi(some) for some in captions],
  }


def _kernel(
  truth: Truth, fake: Float[np.ndarray, 'captions each d'], wanted: ConfigDict
) -> Resampled:
  captions, each, _ = fake.shape
  groups = _groups(captions)
  sizes = np.bincount(groups) * each
  both = kernel.both(truth.kernels, kernel.kind(_flat(fake), sizes))

  def distance(which: Int[np.ndarray, ' some']) -> float:
    times = np.bincount(which, minlength=len(sizes))
    chosen = np.repeat(np.arange(captions), times[groups])
    return both.distance(truth.weights(chosen)[truth.firsts], times)

  return bootstrap.resampled(
    len(sizes), distance, times=wanted.resamples, seed=wanted.seed
  )


def _groups(captions: int) -> Int[np.ndarray, ' captions']:
  """Of each caption: its own, or a block's where they are many."""
  return np.arange(captions) * min(captions, GROUPS) // captions


def _mean_of(values: Sequence[float]):
  values = np.array(values)
  return lambda which: values[which].mean()


def _of_modes(drawn: Drawn, captions: int, sure) -> dict[str, Resampled]:
  """How many a caption's pictures show; and how far all are from the truth."""
  rows = drawn.numbers.reshape(captions, -1)
  distinct = [float(len(set(row))) for row in rows]

  def distance(which: Int[np.ndarray, ' some']) -> float:
    truth = drawn.truth[which].mean(0)
    return modes.coverage(
      [drawn.names[number] for number in rows[which].ravel()],
      dict(zip(drawn.names, truth.tolist(), strict=True)),
    ).distance

  return {
    'modes': sure(_mean_of(distinct), within=(1.0, float(rows.shape[1]))),
    'modes_distance': sure(distance, within=(0.0, 1.0)),
  }


def _by_caption(x: Float[np.ndarray, 'n d'], wanted: ConfigDict):
  return x.reshape(wanted.num_captions, wanted.per_caption, -1)


def _flat(x: Float[np.ndarray, 'captions each d']):
  return x.reshape(-1, x.shape[-1])
