"""Autoguidance: pictures that are led away from a weaker run's."""

import jax
import numpy as np
import pytest
import small_models

from kaleido_jax import api, exported, loading
from kaleido_jax.data.shapes import Shapes

PROMPT = 'a red circle'
# What is drawn in one step is what the network estimates.
ONE_STEP = {'steps': 1, 'threshold': 'none'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return small_models.export(tmp_path_factory.mktemp('export'))


@pytest.fixture(scope='module')
def model(folder):
  return api.Kaleido(loading.load(folder, jax.devices()[:1]))


@pytest.fixture(scope='module')
def weaker(folder, tmp_path_factory):
  """Another run of the same shapes: its folder, and it alone."""
  found = loading.load(folder, jax.devices()[:1])
  params = jax.tree.map(lambda leaf: 0.9 * leaf, found.params)
  out = str(tmp_path_factory.mktemp('weaker'))
  exported.write(out, found.config, params, step=3)
  return out, api.Kaleido(loading.load(out, jax.devices()[:1]))


@pytest.fixture(scope='module')
def latents():
  source = Shapes(size=32, kinds=('text', 'bbox', 'color'))
  return [source[i].latents.numbered(3, i) for i in range(3)]


@pytest.mark.slow  # of one weaker than itself: the next; of the sum: diffusion
def test_the_difference_to_what_the_weaker_one_draws_grows(
  model, weaker, latents
):
  out, alone = weaker
  strong, weak = (
    each.render(PROMPT, latents, guidance=1.0, **ONE_STEP).astype(float)
    for each in (model, alone)
  )
  drawn = model.render(
    *(PROMPT, latents),
    guidance=1.5,
    autoguidance={'weaker': out},
    **ONE_STEP,
  )
  expected = weak + 1.5 * (strong - weak)
  # Levels are rounded, and end at both ends.
  inside = np.stack([strong, weak, expected]).clip(3, 252)
  inside = (inside == np.stack([strong, weak, expected])).all(0)
  assert inside.mean() > 0.5 and np.abs(strong - weak)[inside].mean() > 2
  np.testing.assert_allclose(drawn[inside], expected[inside], atol=2)


def test_away_from_itself_nothing_changes(model, folder, latents):
  itself = {'autoguidance': {'weaker': folder}, 'guidance': 7.0}
  drawn = model.render(PROMPT, latents, **itself).astype(int)
  plain = model.render(PROMPT, latents, guidance=1.0).astype(int)
  assert np.abs(drawn - plain).max() <= 1


@pytest.mark.slow  # two programs more
def test_away_from_itself_nothing_changes_with_an_annealed_caption(
  model, folder, latents
):
  together = {'autoguidance': {'weaker': folder}, 'cads': True}
  drawn = model.render(PROMPT, latents, guidance=7.0, **together).astype(int)
  plain = model.render(PROMPT, latents, guidance=1.0, cads=True).astype(int)
  assert np.abs(drawn - plain).max() <= 1


def test_a_png_remembers_the_weaker_run(model, weaker, latents, tmp_path):
  options = {'guidance': 2.0, 'autoguidance': {'weaker': weaker[0]}}
  (image,) = model.render(PROMPT, latents[1], **options)
  model.save(tmp_path / 'a.png', image, PROMPT, latents[1], **options)
  (again,), _ = model.draw([model.recall(tmp_path / 'a.png')])
  np.testing.assert_array_equal(again, image)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'autoguidance': True}, 'leads away from a weaker run: give its workdir'),
    ({'autoguidance': {'weaker': 'x'}, 'apart': True}, 'choose one'),
    ({'autoguidance': {'weaker': 'runs/nowhere'}}, 'is no workdir of a run'),
    ({'autoguidance': {'weaker': 'pretrained:shapes@5'}}, 'leave out @5'),
  ],
)
def test_what_cannot_be_is_a_sentence(model, latents, options, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    model.render(PROMPT, latents, **options)


def test_a_run_with_other_latents_cannot_be_the_weaker_one(
  model, latents, tmp_path
):
  baseline = small_models.export(tmp_path, 'mdm')
  with pytest.raises(ValueError, match='cannot be the weaker .*latents is'):
    model.render(PROMPT, latents, autoguidance={'weaker': baseline})
