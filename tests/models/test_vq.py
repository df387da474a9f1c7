"""The small image tokenizer, and the one that ships."""

import jax
import numpy as np
import pytest

from kaleido_jax.data import train_vokens
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.models import vq


@pytest.fixture(scope='module')
def pictures():
  source = Shapes(size=32, split='test', kinds=())
  return np.stack([vq.shrink(source[i].image) for i in range(300)])


@pytest.fixture(scope='module')
def vokens(pictures):
  params = vq.embedded()
  return vq.nearest(params, vq.features(params, pictures))


def test_numpy_and_jax_agree(pictures, vokens):
  """Workers measure with numpy what is trained, and drawn, with jax."""
  params, some = vq.embedded(), pictures[:20]
  ids = jax.jit(lambda p, x: vq.nearest(p, vq.features(p, x)))(params, some)
  assert (np.asarray(ids) == vokens[:20]).mean() > 0.99
  drawn = jax.jit(vq.decode)(params, params['codes'][vokens[:20]])
  again = vq.decode(params, params['codes'][vokens[:20]])
  np.testing.assert_allclose(drawn, again, atol=1e-4)


def test_the_nearest_code_is_the_nearest(pictures):
  params = vq.embedded()
  found = vq.features(params, pictures[:3])
  distances = np.linalg.norm(found[:, :, None] - params['codes'], axis=-1)
  chosen = np.take_along_axis(
    distances, vq.nearest(params, found)[..., None], -1
  )[..., 0]
  np.testing.assert_allclose(chosen, distances.min(-1), rtol=1e-5)


def test_patches_are_put_back_where_they_were():
  """A mixer that passes patches through would return the picture."""
  picture = np.random.default_rng(0).normal(size=(2, 32, 32, 3))
  patches = vq.patches(picture)
  assert patches.shape == (2, 16, 192)
  np.testing.assert_array_equal(
    patches[0, 1].reshape(8, 8, 3), picture[0, :8, 8:16]
  )
  np.testing.assert_array_equal(vq.joined(patches), picture)


def test_the_tokenizer_that_ships_is_small_and_uses_its_codes(vokens):
  assert vq.EMBEDDED.stat().st_size <= 3_000_000
  assert len(np.unique(vokens)) >= vq.CODES / 2


def test_pictures_come_back(pictures, vokens):
  params = vq.embedded()
  drawn = np.clip(vq.decode(params, params['codes'][vokens]), -1, 1)
  error = ((drawn - pictures) ** 2).mean() / 4
  assert -10 * np.log10(error) > PSNR
  # Each is nearer to its own than to another's.
  other = ((drawn - np.roll(pictures, 1, 0)) ** 2).mean() / 4
  assert other > 5 * error


PSNR = 18.0


def test_a_picture_has_the_vokens_of_its_file(pictures):
  image = Shapes(size=64, split='test', kinds=())[0].image
  found = vq.of(image)
  assert len(found) == vq.TOKENS and all(0 <= i < vq.CODES for i in found)
  assert vq.picture(found).shape == (32, 32, 3)


def test_files_keep_the_parameters(tmp_path):
  params = vq.init(3)
  vq.save(tmp_path / 'x.npz', params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    vq.load(tmp_path / 'x.npz'),
    params,
  )


def test_a_few_updates_lower_the_error(pictures):
  import optax

  params = vq.init(0)
  codes = params.pop('codes')
  optimizer = optax.adam(1e-3)
  counts = np.ones(vq.CODES, np.float32)
  state = (params, optimizer.init(params), codes, counts, codes.copy())
  errors = []
  for step in range(12):
    key = jax.random.key(step)
    state, error = train_vokens.step(state, pictures[:64], key, optimizer)
    errors.append(float(error))
  assert errors[-1] < 0.7 * errors[0]
