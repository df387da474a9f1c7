"""What the averaged parameters do with captions that training never sees."""

import jax
import numpy as np
import pytest
import small_models
import small_runs
from PIL import Image

from configs import toy
from kaleido_jax import objective, progress, sharding, sheet, trials
from kaleido_jax import state as states
from kaleido_jax.data import sources
from kaleido_jax.latents import Latents
from kaleido_jax.models import kaleido


def trial(config, devices=1):
  mesh = sharding.create_mesh(config.mesh, jax.devices()[:devices])
  model = kaleido.from_config(config)
  words = sources.check(config)
  state = states.init(config, model, mesh)
  return trials.Trials(config, model, mesh, words), state


@pytest.fixture(scope='module')
def points():
  config = toy.get_config()
  config.data.batch_size = 16
  config.model.denoiser.update(width=32, num_layers=1)
  config.sample.steps = 2
  return config


def test_held_out_losses_are_of_the_averages_on_held_out_examples(points):
  tried, state = trial(points)
  told = tried.losses(state)
  assert told == tried.losses(state)  # the same noise every time
  # Of all tokens, as perplexity is: the toy has one kind.
  assert np.exp(told['held_out/prior_loss']) == pytest.approx(
    told['held_out/perplexity/text'], rel=1e-6
  )
  # Only the averages count.
  moved = jax.tree.map(lambda leaf: leaf + 1, state.trained)
  assert told == tried.losses(state._replace(trained=moved))
  moved = jax.tree.map(lambda leaf: leaf * 1.1, state.ema)
  assert told != tried.losses(state._replace(ema=moved))
  # One loss by hand: the first batch of another split, in one piece.
  one = points.copy_and_resolve_references()
  one.train.measure_batches = 1
  one.diffusion.early.share = 0.9  # of training alone
  tried, _ = trial(one)
  one.diffusion.early.share = 0.0
  batch = next(sources.batches(one, held_out=True)).arrays
  key = jax.random.fold_in(jax.random.key(one.seed), 0)

  @jax.jit
  def by_hand(params, batch):
    drawn = objective.draw(one, key, batch)
    tokens = (drawn['z'] != 0).sum().astype('float32')
    model = kaleido.from_config(one)
    return objective.losses(one, model, params, drawn, tokens, 0)[0]

  loss = by_hand(kaleido.join(state.ema, state.frozen), dict(batch))
  assert tried.losses(state)['held_out/loss'] == pytest.approx(
    float(loss), rel=1e-5
  )


@pytest.mark.slow  # of training: test_state
def test_losses_and_samples_do_not_depend_on_the_mesh(points):
  few = points.copy_and_resolve_references()
  few.train.update(measure_batches=2, sample_count=2)
  alone, state = trial(few)
  spread, same = trial(few, devices=8)
  for name, value in alone.losses(state).items():
    assert spread.losses(same)[name] == pytest.approx(value, rel=1e-5)
  a = alone._tiles(kaleido.join(state.ema, state.frozen))
  b = spread._tiles(kaleido.join(same.ema, same.frozen))
  assert [tile.latents for tile in a] == [tile.latents for tile in b]
  np.testing.assert_allclose(
    [tile.image for tile in a], [tile.image for tile in b], atol=1e-4
  )


def test_points_of_a_caption_are_drawn_into_one_picture():
  tiles = [
    sheet.Tile(np.float32([x, y]), 'class a', Latents(text=text))
    for x, y, text in ((-1.5, 0, 'outer'), (-1.5, 2, 'outer'), (2, 0, 'inner'))
  ]
  (drawn,) = trials.dots(tiles)
  assert drawn.caption == 'class a: outer 67%, inner 33%'
  rows, columns = np.nonzero((drawn.image != 255).any(-1))
  assert rows.size == 3 * 4
  place = np.unique((columns / 192 - 0.5) * 5 // 0.25 * 0.25)
  assert set(place) <= {-1.75, -1.5, 1.75, 2.0}
  assert rows.min() < 192 / 2 - 60  # what is high is drawn high


@pytest.mark.slow  # that there are sheets: the next one
def test_a_sheet_has_captions_that_training_never_sees():
  config = small_models.config()
  config.data.batch_size = 4
  config.train.update(measure_batches=1, sample_count=3)
  config.sample.steps = 2
  tried, state = trial(config)
  tiles = tried._tiles(kaleido.join(state.ema, state.frozen))
  test = sources.alone(config.data, sources.recipe_of(config), split='test')
  assert tiles[0].caption == test[0].caption
  assert [tile.image.shape for tile in tiles] == [(32, 32, 3)] * 3
  assert tried.drawn(state).dtype == np.uint8
  assert tiles[0].latents


def test_a_run_leaves_sheets_and_held_out_losses(tmp_path):
  changed = {
    'train.num_steps': 5,
    'train.held_out': 'test',
    'train.measure_every': 2,
    'train.sample_every': 4,
    'train.measure_batches': 1,
  }
  small_runs.run(tmp_path, **changed)
  told = progress.read(tmp_path)
  assert [t['step'] for t in told if 'held_out/loss' in t] == [2, 4, 5]
  sheets = sorted((tmp_path / progress.SHEETS).iterdir())
  assert [path.name for path in sheets] == [
    f'{step:06}.png'
    for step in (1, 2, 4, 5)  # early ones, on time, the last
  ]
  with Image.open(sheets[0]) as sheet_of_points:
    assert sheet_of_points.width > 192
