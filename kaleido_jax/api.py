"""The model in a person's hands: imagine, render, edit.

  model = kaleido.load('runs/shapes')
  latents = model.imagine('a red circle', num=8)
  images = model.render('a red circle', latents, guidance=4.0)

A picture depends on its prompt, its latents, the seed and its number alone:
not on what is drawn beside it, nor on how many devices draw.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from ml_collections import ConfigDict

from kaleido_jax import (
  batches,
  generate,
  loading,
  options,
  pictures,
  prompts,
  reading,
  sharding,
)
from kaleido_jax.arrays import Array
from kaleido_jax.batches import Row
from kaleido_jax.latents import Latents
from kaleido_jax.pictures import MOST, Asked
from kaleido_jax.render import Glimpse

Watch = Callable[[Glimpse], None]
# Or points, as the toy has.
Pictures = UInt8[np.ndarray, 'n h w 3'] | Float[np.ndarray, 'n d']


def load(workdir: str, *, batch_size: int = 8) -> 'Kaleido':
  """A run's averages, an export, or `pretrained:NAME`; here or in a bucket.

  batch_size: how many pictures are drawn at once on a device, at most.
  """
  return Kaleido(loading.load(workdir), batch_size=batch_size)


class Kaleido:
  """A trained model on some devices."""

  def __init__(self, loaded: loading.Loaded, *, batch_size: int = 8):
    self.config, self.words = loaded.config, loaded.words
    self.kinds = tuple(loaded.config.latents)  # of latents; () is the baseline
    self.name, self.step = loaded.name, loaded.step
    self.params, self._mesh = loaded.params, loaded.mesh
    self._batch_size = batch_size  # of a device
    self._parts = self._mesh.shape['data'] * self._mesh.shape['fsdp']
    lengths = dict(self.config.data.lengths)
    self._reader = reading.Reader(self.name, self.words, lengths)
    self._imagine = generate.build_imagine(
      *(loaded.model, self._mesh, self.words.length_of(lengths)),
      generate.grammar(self.words, self.config),
    )
    self._render = loading.renders(
      self.config, loaded.model, self._mesh, self.words
    )

  @property
  def batch_rows(self) -> int:
    """How many pictures are drawn at once, at most."""
    return self._batch_size * self._parts

  def __repr__(self) -> str:
    size = 'x'.join(map(str, self.config.image_shapes[0][:2]))
    kinds = ', '.join(self.kinds) or 'no latents'
    return f'<{self.name}: {size}, {kinds}, step {self.step}>'

  def imagine(
    self,
    prompt: str | Sequence[str],
    num: int = 1,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    prefix: Latents | None = None,
  ) -> list[Latents]:
    """`num` latents for each prompt, one prompt after another.

    Args:
      prompt: one, or several.
      num: how many of each; of every prompt they are numbers 0, 1, 2, ... of
        the seed, also if it is there twice.
      temperature, top_k, top_p: how tokens are drawn; None is the run's own.
      seed: None is 0; or, with a prefix and num=1, the prefix's own number.
      prefix: the first kinds, which are kept: `latents.upto('bbox')`.
    """
    sample = self.asked(temperature=temperature, top_k=top_k, top_p=top_p)
    kept = prefix.number if prefix is not None and num == 1 else None
    texts = [text for text in prompts.several(prompt) for _ in range(num)]
    rows = [
      self._row(text, prompts.number(seed, kept, index))
      for text, index in zip(texts, prompts.counted(texts), strict=True)
    ]
    return self._imagined(rows, sample, prefix)

  def render(
    self,
    prompt: str | Sequence[str],
    latents: Latents | Sequence[Latents] | None = None,
    *,
    seed: int | None = None,
    watch: Watch | None = None,
    **changed: Any,
  ) -> Pictures:
    """Draws: a picture for each of the latents, or for each prompt.

    Args:
      prompt: one for all, or one for each of the latents.
      latents: None: they are imagined first, for the same numbers.
      seed: of the noise: those of a prompt are its numbers 0, 1, 2, ... None:
        the number that latents remember; or, if they do not, seed 0.
      watch: is shown what there is, every few steps; the last of
        `seen.images()` is the inner network's, of few pixels and early.
      changed: fields of config.sample: guidance=4.0, steps=50, solver='ddim';
        and guidance methods by name, with those of their numbers that differ:
        cads=True, interval={'low': 0.3}; False is without.
    """
    sample = self.asked(**changed)
    texts = prompts.several(prompt)
    if latents is None:
      wanted = [
        Asked(text, seed=seed or 0, index=index)
        for text, index in zip(texts, prompts.counted(texts), strict=True)
      ]
      return self.draw(wanted, sample, watch)[0]
    latents = [latents] if isinstance(latents, Latents) else list(latents)
    texts, latents = prompts.paired(texts, latents)
    rows = [
      self._row(text, prompts.number(seed, each.number, index), each)
      for text, each, index in zip(
        texts, latents, prompts.counted(texts), strict=True
      )
    ]
    return self._rendered(rows, sample, watch)

  def draw(
    self,
    wanted: Sequence[Asked],
    sample: ConfigDict | None = None,
    watch: Watch | None = None,
  ) -> tuple[Pictures, list[Latents]]:
    """What a list asks for; latents that it lacks are imagined.

    sample: of `asked`, for all; None is as each of them remembers.
    """
    if sample is None:
      return self._each_its_own(wanted, watch)
    latents = self.complete(wanted, sample)
    rows = [
      dataclasses.replace(self._row_of(each), latents=some)
      for each, some in zip(wanted, latents, strict=True)
    ]
    return self._rendered(rows, sample, watch), latents

  def complete(
    self, wanted: Sequence[Asked], sample: ConfigDict
  ) -> list[Latents]:
    """The latents of a list; those that it lacks are imagined."""
    rows = [self._row_of(each) for each in wanted]
    lacking = [row for row in rows if row.latents is None]
    imagined = iter(self._imagined(lacking, sample))
    return [
      next(imagined) if row.latents is None else row.latents for row in rows
    ]

  def check(self, wanted: Sequence[Asked]) -> None:
    """Refuses what could not be drawn, before anything is."""
    for number, each in enumerate(wanted):
      try:
        self._render(self.asked(**each.settings))
        row = self._row_of(each)
        if row.latents is not None:
          self._reader.tokens(row.latents)
      except ValueError as error:
        if len(wanted) == 1:
          raise
        raise ValueError(f'picture {number}: {error}') from error

  def edit(
    self,
    prompt: str,
    latents: Latents,
    *,
    imagine_later: bool = False,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    **edits: Any,
  ) -> Latents:
    """`latents.replace(...)`, checked; what comes later is kept, or not.

    imagine_later: the kinds behind the last edited one are imagined again, as
    in `imagine`. A moved box contradicts old visual tokens; the same number
    draws new ones. Kinds before it, and between edited ones, are kept.
    """
    self._reader.agree(latents)
    edited = latents.replace(**edits)
    self._reader.agree(edited)
    changed = [k for k in self.words.kinds if edited[k.name] != latents[k.name]]
    edited.validate(changed)
    if not imagine_later or not changed or changed[-1] is self.words.kinds[-1]:
      return edited
    (again,) = self.imagine(
      prompt,
      prefix=edited.upto(changed[-1].name),
      temperature=temperature,
      top_k=top_k,
      top_p=top_p,
    )
    return again

  def recall(self, file: str | pathlib.Path) -> Asked:
    """How a PNG of ours came about; `draw([asked])` does it again.

    To change something: `render(asked.prompt, asked.latents,
    **{**asked.settings, 'guidance': 7.0})`.
    """
    found = pictures.asked_of(pathlib.Path(file), self.words.kinds)
    pictures.warn_of_another(found, self.name, self.step)
    return found

  def save(
    self,
    file: str | pathlib.Path,
    image: UInt8[np.ndarray, 'h w 3'],
    prompt: str,
    latents: Latents,
    *,
    number: tuple[int, int] | None = None,
    **changed: Any,
  ) -> None:
    """Writes a PNG that remembers how it came about.

    number: (seed, index), where `render` was given a seed; or latents know it.
    changed: what else `render` was told.
    """
    number = number or latents.number
    if number is None:
      raise ValueError('these latents do not know their number=(seed, index).')
    asked = Asked(
      *(prompt, latents, *number),
      settings=options.settings(self.asked(**changed)),
      model=self.name,
      step=self.step,
    )
    pictures.save(pathlib.Path(file), image, asked)

  def asked(self, **changed: Any) -> ConfigDict:
    """config.sample with what a request says; refuses what cannot be done."""
    return options.asked(self.config, changed)

  def _each_its_own(
    self, wanted: Sequence[Asked], watch: Watch | None
  ) -> tuple[Pictures, list[Latents]]:
    found = [self.draw([w], self.asked(**w.settings), watch) for w in wanted]
    return np.concatenate([x for x, _ in found]), [z for _, (z,) in found]

  def _imagined(
    self, rows: Sequence[Row], sample, prefix: Latents | None = None
  ) -> list[Latents]:
    if not self.kinds:
      return [Latents().numbered(*row.number) for row in rows]
    start = self._reader.prefix(prefix)
    found: dict[int, Latents] = {}
    for places, chunk in batches.of(rows, self._parts, self._batch_size):
      tokens = self._imagine(
        self.params,
        *self._placed(chunk),
        generate.rule(sample),
        self._spread(np.tile(start, (len(chunk), 1))),
      )
      strings = map(self.words.decode, np.asarray(tokens))
      for place, string in zip(places, strings, strict=False):
        # What is kept is as it was given, not as the model reads it.
        latents = Latents(**{**self._reader.latents(string), **(prefix or {})})
        found[place] = latents.numbered(*rows[place].number)
    return [found[place] for place in range(len(rows))]

  def _rendered(self, rows: Sequence[Row], sample, watch) -> Pictures:
    found: dict[int, np.ndarray] = {}
    apart = 'particles' in sample.methods
    for places, chunk in batches.of(
      rows, self._parts, self._batch_size, apart=apart
    ):
      z = None
      if self.kinds:
        tokens = [self._reader.tokens(row.latents) for row in chunk]
        z = self._spread(np.stack(tokens))
      ids, seeds, indices = self._placed(chunk)
      xs = self._render(sample)(
        *(self.params, ids, z, seeds, indices, sample),
        watch and self._shown(watch, sample, places),
      )
      drawn = generate.pictures(self.config, xs, strict=True)
      found |= dict(zip(places, drawn, strict=False))
    return np.stack([found[place] for place in range(len(rows))])

  def _row_of(self, asked: Asked) -> Row:
    return self._row(asked.prompt, (asked.seed, asked.index), asked.latents)

  def _row(
    self, text: str, number: tuple[int, int], latents: Latents | None = None
  ) -> Row:
    for name, value in zip(('seed', 'index'), number, strict=True):
      if not 0 <= value < MOST[name] or value % 1:
        raise ValueError(f'{name}={value} is no number of 0..{MOST[name] - 1}.')
    if latents is not None:
      self._reader.agree(latents)
    ids = prompts.ids(text, self.words, self.config.data.caption_length)
    return Row(text, ids, latents, number)

  def _placed(self, rows: Sequence[Row]) -> tuple[Array, Array, Array]:
    """Captions, seeds and indices on the devices."""
    return (
      self._spread(np.stack([row.ids for row in rows])),
      self._spread(np.uint32([row.number[0] for row in rows])),
      self._spread(np.int32([row.number[1] for row in rows])),
    )

  def _spread(self, array: np.ndarray) -> Array:
    return sharding.to_devices({'rows': array}, self._mesh)['rows']

  def _shown(self, watch: Watch, sample, places: list[int]):
    def show(done, xs):
      def images():
        return tuple(
          generate.pictures(self.config, (x[: len(places)],))
          for x in jax.device_get(xs)
        )

      watch(Glimpse(places, done, sample.steps, images))

    return show
