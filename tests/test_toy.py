"""The paper's figure 3, by models that are trained for it."""

import jax
import numpy as np
import pytest

from configs import toy
from kaleido_jax import checkpoint, sharding, train, trials
from kaleido_jax import state as states
from kaleido_jax.data import sources
from kaleido_jax.models import kaleido


def shares(tiles) -> list[tuple[float, float]]:
  """Of the outer and the inner mode, class by class; some may be near none."""
  found = {}
  for tile in tiles:
    found.setdefault(tile.caption, []).append(abs(tile.image[0]))
  return [
    tuple(np.mean(np.abs(np.array(x) - mode) < 0.6) for mode in (1.5, 0.3))
    for x in found.values()
  ]


@pytest.mark.slow
@pytest.mark.parametrize('variant', ['mdm', ''])
def test_guidance_collapses_the_baseline_and_not_kaleido(variant, tmp_path):
  config = toy.get_config(variant)
  config.mesh.data = 1
  config.train.sample_every = 0
  mesh = sharding.create_mesh(config.mesh, jax.devices()[:1])
  model, words = kaleido.from_config(config), sources.check(config)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, 'devices', lambda: list(mesh.devices.flat))
    train.run(config, workdir=str(tmp_path))
  shapes, where = states.shardings(config, model, mesh)
  with checkpoint.Checkpoints(str(tmp_path / 'checkpoints')) as saved:
    state = train.restore(saved, shapes, where)
  tried = trials.Trials(config, model, mesh, words)
  for weight in (1.0, 5.0, 8.0, 25.0):
    config.sample.guidance = weight
    found = shares(tried._tiles(kaleido.join(state.ema, state.frozen)))
    print(variant or 'kaleido', weight, found)
    for outer, inner in found:
      if variant == '':
        assert 0.35 <= outer <= 0.65 and 0.35 <= inner <= 0.65, weight
      elif weight >= 8:
        assert outer >= 0.85, weight
