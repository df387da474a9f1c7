"""Latents, then pictures: what they depend on, and what they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filling import filled

from configs import toy
from kaleido_jax import generate, objective, render, sharding
from kaleido_jax.data import sources
from kaleido_jax.models import decoding, kaleido, t5

CAPTIONS = ['class a', 'class b', 'class b', 'class a']
LENGTH = 6  # of z


@pytest.fixture(scope='module')
def config():
  made = toy.get_config()
  made.sample.steps = 8
  made.model.denoiser.width = 32
  return made


@pytest.fixture(scope='module')
def setting(config):
  """Model, mesh, parameters that are drawn, vocabulary."""
  mesh = sharding.create_mesh(config.mesh, jax.devices()[:1])
  model = kaleido.from_config(config)
  # Not as they are at first: a last layer of zeros hears of nothing.
  params = filled(
    lambda key: kaleido.init_params(model, key, config.image_shapes)
  )
  return model, mesh, params, sources.check(config)


@pytest.fixture(scope='module')
def imagine(setting):
  model, mesh, _, _ = setting
  return generate.build_imagine(model, mesh, LENGTH)


@pytest.fixture(scope='module')
def drawn(config, setting):
  model, mesh, _, _ = setting
  return render.Render(config, model, mesh)


@pytest.fixture(scope='module')
def ids(config, setting):
  return generate.captions(config, setting[3], CAPTIONS)


def latents(imagine, setting, ids, rows, *, seed=3, temperature=1.0):
  rule = decoding.SamplingRule(temperature=temperature)
  indices = np.int32(rows)
  return np.asarray(
    imagine(
      *(setting[2], ids[rows], np.uint32(seed), indices, rule),
      generate.nothing(len(rows)),
    )
  )


def points(config, drawn, setting, ids, z, rows, *, seed=3, **options):
  sample = config.sample.copy_and_resolve_references()
  sample.update({'guidance': 3.0} | options)
  xs = drawn(
    setting[2],
    ids[rows],
    None if z is None else z[rows],
    np.uint32(seed),
    np.int32(rows),
    sample,
  )
  return generate.pictures(config, xs)


def test_rows_of_no_token_are_never_drawn(config):
  """T5 has 128 of them; a run of text alone has those of colours."""
  config = config.copy_and_resolve_references()
  words = sources.check(config)
  for part in ('encoder', 'decoder'):
    config.model[part].vocab_size = 2 * words.size
  mesh = sharding.create_mesh(config.mesh, jax.devices()[:1])
  model = kaleido.from_config(config)
  params = filled(
    lambda key: kaleido.init_params(model, key, config.image_shapes)
  )
  grammar = generate.grammar(words, config)
  z = generate.build_imagine(model, mesh, LENGTH, grammar)(
    *(params, generate.captions(config, words, CAPTIONS), np.uint32(3)),
    *(np.arange(len(CAPTIONS), dtype=np.int32), decoding.SamplingRule()),
    generate.nothing(len(CAPTIONS)),
  )
  assert (z > t5.PAD).any() and (z < words.size).all()


@pytest.mark.slow  # what it means to users: test_api
def test_a_row_depends_on_its_number_alone(
  config, imagine, drawn, setting, ids
):
  every = [0, 1, 2, 3]
  z = latents(imagine, setting, ids, every)
  some = latents(imagine, setting, ids, [2, 0])
  np.testing.assert_array_equal(z[[2, 0]], some)
  assert (z[1] != z[2]).any()  # the same caption, another number
  assert (latents(imagine, setting, ids, every, seed=4) != z).any()
  whole = points(config, drawn, setting, ids, z, every)
  part = points(config, drawn, setting, ids, z, [2, 0])
  np.testing.assert_allclose(whole[[2, 0]], part, atol=1e-5)


def test_latents_end(imagine, setting, ids):
  z = latents(imagine, setting, ids, [0, 1, 2, 3])
  for row in z:
    used = row[row != t5.PAD]
    assert (used == t5.EOS).sum() == 1 and used[-1] == t5.EOS
  full = generate.ended(jnp.array([[5, 6, 7], [5, t5.EOS, t5.PAD]]))
  np.testing.assert_array_equal(full, [[5, 6, t5.EOS], [5, t5.EOS, t5.PAD]])


def test_edited_latents_meet_the_same_noise(
  config, imagine, drawn, setting, ids
):
  z = latents(imagine, setting, ids, [0, 1])
  edited = z.copy()
  edited[1, 0] += 1
  before = points(config, drawn, setting, ids, z, [0, 1])
  after = points(config, drawn, setting, ids, edited, [0, 1])
  np.testing.assert_array_equal(before[0], after[0])
  assert (before[1] != after[1]).any()


def test_without_weight_neither_caption_nor_latents_matter(
  config, imagine, drawn, setting, ids
):
  z = latents(imagine, setting, ids, [0, 1, 2, 3])
  swapped, moved = ids[[1, 0, 3, 2]], z[[2, 3, 0, 1]]
  rows = [0, 1, 2, 3]
  for weight, same in ((0.0, True), (1.0, False)):
    a = points(config, drawn, setting, ids, z, rows, guidance=weight)
    b = points(config, drawn, setting, swapped, moved, rows, guidance=weight)
    assert np.allclose(a, b, atol=1e-5) is same


def test_a_perfect_estimate_is_what_training_means(config, setting, ids):
  """The conditions are those under which the loss was taken."""
  model, _, params, words = setting
  z = np.int32([[9, 8, t5.EOS], [7, t5.EOS, t5.PAD]])
  read = jax.jit(lambda p: render.conditions(model, p, ids[:2], z))
  found = read(params)
  xs, now = (np.float32([[0.3, -1], [2, 0.1]]),), np.float32([10, 900])
  for drop, tokens in ((False, found.full), (True, found.null)):
    dropped = np.full(2, drop)
    trained, _ = jax.jit(
      lambda p, d: model.apply(
        {'params': p},
        ids[:2],
        ids[:2] != t5.PAD,
        xs,
        now,
        z,
        drop_caption=d,
        drop_latents=d,
      )
    )(params, dropped)
    sampled = jax.jit(
      lambda p, t: model.apply(
        {'params': p}, xs, now, t, projected=True, method='denoise'
      )
    )(params, tokens)
    np.testing.assert_allclose(trained[0], sampled[0], atol=1e-6)
  del words


def test_changing_what_is_traced_compiles_nothing(
  config, imagine, drawn, setting, ids
):
  z = latents(imagine, setting, ids, [0, 1])
  points(config, drawn, setting, ids, z, [0, 1])
  imagined, rendered = imagine._cache_size(), drawn._proceed._cache_size()
  latents(imagine, setting, ids, [0, 1], seed=9, temperature=0.5)
  points(
    *(config, drawn, setting, ids, z, [1, 0]),
    guidance=9.0,
    steps=77,
    spacing='uniform',
    solver='ddim',
    seed=8,
  )
  now = imagine._cache_size(), drawn._proceed._cache_size()
  assert now == (imagined, rendered)


def test_pictures_are_levels_and_points_stay(config):
  image = np.uint8([[[[0, 127, 255]]]])
  made = config.copy_and_resolve_references()
  made.image_shapes = ((1, 1, 3),)
  (x,) = objective.pyramid(made, jnp.asarray(image))
  np.testing.assert_array_equal(generate.pictures(made, (x,)), image)
  point = np.float32([[0.25, -3]])
  np.testing.assert_array_equal(generate.pictures(config, (point,)), point)
  lost = np.stack([x[0], x[0] * np.nan])
  assert generate.pictures(made, (lost,)).dtype == np.uint8  # on a sheet
  with pytest.raises(ValueError, match='drawn is not finite'):
    generate.pictures(made, (lost,), strict=True)


def test_an_unknown_solver_is_named(config):
  made = config.copy_and_resolve_references()
  made.sample.solver = 'euler'
  with pytest.raises(ValueError, match="'euler' is not one of .*'ddim'"):
    render.solver(made.sample)
