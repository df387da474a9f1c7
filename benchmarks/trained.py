"""Draws from a finished run; what the other files here share."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from kaleido_jax import checkpoint, generate, sharding
from kaleido_jax import state as states
from kaleido_jax.data import sources
from kaleido_jax.latents import Latents
from kaleido_jax.models import kaleido

ROOT = pathlib.Path(__file__).parents[1]


class Drawn(NamedTuple):
  """Pictures, and the latents that were imagined for them."""

  pictures: np.ndarray
  latents: list[Latents]


class Run:
  """The averaged parameters of a run, on one device."""

  def __init__(self, config: Any, folder: pathlib.Path):
    mesh = sharding.create_mesh(config.mesh, jax.devices()[:1])
    model = kaleido.from_config(config)
    shapes, where = states.shardings(config, model, mesh)
    wanted = checkpoint.abstract(shapes._asdict(), where._asdict())
    path = str(folder / 'checkpoints')
    with checkpoint.Checkpoints(path, read_only=True) as saved:
      self.step = saved.latest()
      found = saved.restore({name: wanted[name] for name in ('ema', 'frozen')})
    self.config = config
    self.params = kaleido.join(found['ema'], found['frozen'])
    self.words = sources.check(config)
    length = self.words.length_of(dict(config.data.lengths))
    self.imagine = generate.build_imagine(model, mesh, length)
    self.render = generate.build_render(config, model, mesh)

  def draw(self, captions: list[str], seed: int, weight: float) -> Drawn:
    """A picture of each caption; the i-th depends on the seed and on i."""
    config, z = self.config, None
    ids = generate.captions(config, self.words, captions)
    given = np.uint32(seed), np.arange(len(captions), dtype=np.int32)
    if config.latents:
      z = self.imagine(self.params, ids, *given, generate.rule(config))
    xs = self.render(
      *(self.params, ids, z, *given, np.float32(weight)),
      generate.times(config),
      generate.solver(config),
    )
    latents = [Latents()] * len(captions)
    if z is not None:
      strings = map(self.words.decode, jax.device_get(z))
      latents = [Latents.parse(s, self.words.kinds)[0] for s in strings]
    return Drawn(generate.pictures(config, xs), latents)
