"""Live: our metrics beside public tools, on the same features.

`PYTHONPATH=. python tests/peers/test_metrics.py` writes what they say into
tests/data, where the suite reads it without them.
"""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from feature_sets import pair  # noqa: E402

from kaleido_jax.metrics import (  # noqa: E402
  frechet,
  inception_score,
  kernel,
  precision_recall,
  similarity,
)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings('ignore')]
torch = pytest.importorskip('torch')
prdc = pytest.importorskip('prdc')
fidelity = pytest.importorskip('torch_fidelity')
vendi_score = pytest.importorskip('vendi_score')


def theirs() -> dict[str, float]:
  """What the public tools say of one pair of sets."""
  from torch_fidelity.metric_fid import (
    fid_features_to_statistics,
    fid_statistics_to_metric,
  )
  from torch_fidelity.metric_isc import isc_features_to_metric
  from torch_fidelity.metric_kid import kernel_mmd
  from vendi_score import vendi

  real, fake = pair()
  statistics = [
    fid_features_to_statistics(torch.tensor(x)) for x in (real, fake)
  ]
  found = {
    'frechet': fid_statistics_to_metric(*statistics, verbose=False)[
      'frechet_inception_distance'
    ],
    'inception_score': isc_features_to_metric(
      torch.tensor(fake, dtype=torch.float64), splits=5, shuffle=False
    )['inception_score_mean'],
  }
  alike = (x[: len(real)].astype(np.float64) for x in (real, fake))
  found['kernel'] = kernel_mmd(*alike)
  for k in (3, 5):
    scores = prdc.compute_prdc(real, fake, nearest_k=k)
    found |= {f'{name}/{k}': value for name, value in scores.items()}
  unit = real / np.linalg.norm(real, axis=1, keepdims=True)
  for q in (0.5, 1, 2):
    found[f'vendi/{q}'] = vendi.score_dual(unit.astype(np.float64), q=q)
  return {name: float(value) for name, value in found.items()}


def ours() -> dict[str, float]:
  real, fake = pair()
  found = {
    'frechet': frechet.distance(real, fake),
    'kernel': kernel.distance(real, fake[: len(real)]),
    'inception_score': inception_score.of_logits(fake, splits=5).mean,
  }
  for k in (3, 5):
    scores = precision_recall.score(real, fake, k)
    found |= {f'{name}/{k}': value for name, value in scores.items()}
  for q in (0.5, 1, 2):
    found[f'vendi/{q}'] = similarity.vendi(real, q)
  return found


def test_public_tools_say_the_same():
  said = theirs()
  assert ours() == pytest.approx(said, rel=1e-5)


if __name__ == '__main__':
  path = pathlib.Path(__file__).parents[1] / 'data/metrics.json'
  path.write_text(json.dumps(theirs(), indent=1) + '\n')
