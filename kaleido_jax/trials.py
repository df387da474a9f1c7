"""What the averaged parameters do with captions that training never sees.

Losses on the same few batches with the same noise every time, so that only the
parameters move them; and a sheet of pictures with the latents that were
imagined for them, always from the same seeds.
"""

import collections
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from kaleido_jax import generate, loading, objective, render, sharding, sheet
from kaleido_jax.data import sources
from kaleido_jax.data.reading import Replacing
from kaleido_jax.latents import Latents
from kaleido_jax.latents.tokens import Vocabulary
from kaleido_jax.models import kaleido
from kaleido_jax.state import State

POINTS = 256  # of each caption, where pictures are points


class Trials:
  """Held-out losses and sheets of samples of one run."""

  def __init__(
    self,
    config: Any,
    model: kaleido.Kaleido,
    mesh: Mesh,
    words: Vocabulary,
    *,
    encoder: str = '',
  ):
    """Reads what it needs once; `encoder` is as for `sources.batches`."""
    self._config, self._words, self._mesh = config, words, mesh
    self._batches = []
    if config.train.held_out:
      self._measure = build_measure(config, model, mesh, words.separator)
      self._batches = self._read(config.train.measure_batches, encoder)
    length = words.length_of(dict(config.data.lengths))
    grammar = generate.grammar(words, config)
    self._imagine = generate.build_imagine(model, mesh, length, grammar)
    self.captions = self._choose(config.train.sample_count)
    # Now: what is wrong with them should not end a run that has begun.
    render.check(config.sample, config.diffusion.num_times)
    if self.captions:
      renders = loading.renders(config, model, mesh, words)
      self._render = renders(config.sample)
    self._rule = generate.rule(config.sample)

  def losses(self, state: State) -> dict[str, float]:
    """Held-out losses by name; none without held-out examples."""
    totals: dict[str, float] = collections.defaultdict(float)
    for index, batch in enumerate(self._batches):
      found = jax.device_get(
        self._measure(state.ema, state.frozen, batch, index)
      )
      for name, value in found.items():
        share = 1 if name.startswith('sum/') else len(self._batches)
        totals[name] += value / share
    if (
      'prior_loss' in totals
    ):  # of all tokens: batches have more of them or less
      tokens, nats = (
        sum(v for name, v in totals.items() if name.endswith(f'/{what}'))
        for what in ('tokens', 'loss')
      )
      totals['prior_loss'] = nats / tokens
      totals['loss'] = (
        totals['diffusion_loss'] + self._config.eta * totals['prior_loss']
      )
    readable = objective.readable(totals)
    return {f'held_out/{name}': value for name, value in readable.items()}

  def drawn(self, state: State) -> np.ndarray:
    """Pictures of captions, with their latents below."""
    tiles = self._tiles(kaleido.join(state.ema, state.frozen))
    if self._of_points():
      return sheet.draw(dots(tiles), columns=len(set(self.captions)))
    return sheet.draw(tiles)

  def _tiles(self, params) -> list[sheet.Tile]:
    """One for each caption; points are not pictures yet."""
    config, count = self._config, len(self.captions)
    # Rows that fill up the mesh are drawn, and thrown away.
    parts = self._mesh.shape['data'] * self._mesh.shape['fsdp']
    indices = np.arange(-(-count // parts) * parts, dtype=np.int32)
    texts = [self.captions[i % count] for i in indices]
    rows = {
      'ids': generate.captions(config, self._words, texts),
      'indices': indices,
    }
    given = sharding.to_devices(self._mine(rows), self._mesh)
    z, seed = None, np.uint32(config.seed)
    if config.latents:
      prefix = sharding.to_devices(
        {'z': generate.nothing(len(given['ids']))}, self._mesh
      )
      z = self._imagine(
        *(params, given['ids'], seed, given['indices'], self._rule),
        prefix['z'],
      )
    xs = self._render(
      *(params, given['ids'], z, seed, given['indices']), config.sample
    )
    pictures = generate.pictures(config, xs)
    latents = [Latents()] * count
    if z is not None:
      strings = map(self._words.decode, jax.device_get(z)[:count])
      latents = [Latents.parse(s, self._words.kinds)[0] for s in strings]
    return [
      sheet.Tile(*tile)
      for tile in zip(pictures[:count], self.captions, latents, strict=True)
    ]

  def _read(self, count: int, encoder: str) -> list[dict[str, Any]]:
    """The first batches of the split, on the devices."""
    parts, num_parts = sharding.parts(self._mesh)
    config = self._config.copy_and_resolve_references()
    # As many examples, in parts that training has room for.
    count *= config.optimizer.accumulate
    config.data.batch_size //= config.optimizer.accumulate
    found = sources.batches(
      config,
      held_out=True,
      parts=parts,
      num_parts=num_parts,
      encoder=encoder,
    )
    try:
      batches = [next(found).arrays for _ in range(count)]
    finally:
      found.close()
    return [sharding.to_devices(arrays, self._mesh) for arrays in batches]

  def _choose(self, count: int) -> list[str]:
    """Captions from all over the held-out split, or that of training."""
    config = self._config
    split = config.train.held_out or config.data.split
    recipe = sources.recipe_of(config)
    source = sources.alone(config.data, recipe, split=split)
    places = np.linspace(0, len(source) - 1, count).astype(int)
    found = [Replacing(source)[int(i)].example.caption for i in places]
    if self._of_points():
      found = sorted({*found}) * POINTS
    return found

  def _mine(self, rows):
    """This process's share of rows."""
    parts, count = sharding.parts(self._mesh)
    return {
      name: np.concatenate([np.split(row, count)[part] for part in parts])
      for name, row in rows.items()
    }

  def _of_points(self) -> bool:
    return len(self._config.image_shapes[0]) < 3


def build_measure(config: Any, model: kaleido.Kaleido, mesh: Mesh, separator):
  """measure(ema, frozen, batch, index) -> metrics of `objective.losses`.

  At all times alike, whichever the run learns more of.
  """
  config = config.copy_and_resolve_references()
  config.diffusion.early.share = 0.0

  def measure(ema, frozen, batch, index):
    key = jax.random.fold_in(jax.random.key(config.seed), index)
    drawn = objective.draw(config, key, batch)
    tokens = objective.count_tokens(drawn)
    params = kaleido.join(ema, frozen)
    params = sharding.gather_denoiser(params, mesh, config.model.denoiser.kind)
    _, metrics = objective.losses(
      config, model, params, drawn, tokens, separator
    )
    return metrics

  return sharding.jit(measure, mesh, out_shardings=sharding.replicated(mesh))


def dots(tiles: list[sheet.Tile]) -> list[sheet.Tile]:
  """Points of one caption in one picture: the plane from -2.5 to 2.5."""
  by_caption = collections.defaultdict(list)
  for tile in tiles:
    by_caption[tile.caption].append(tile)
  found = []
  for caption, group in by_caption.items():
    canvas = np.full((192, 192, 3), 255, np.uint8)
    where = np.stack([tile.image for tile in group]) * [1, -1]
    where = where[np.isfinite(where).all(1)]
    for column, row in np.int32((where / 5 + 0.5) * 192).clip(1, 190):
      canvas[row - 1 : row + 1, column - 1 : column + 1] = (42, 111, 187)
    texts = collections.Counter(t.latents.get('text', '') for t in group)
    shares = ', '.join(
      f'{text or "no latent"} {n / len(group):.0%}'
      for text, n in texts.most_common(4)
    )
    found.append(sheet.Tile(canvas, f'{caption}: {shares}'))
  return found
