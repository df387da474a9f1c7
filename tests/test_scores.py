"""Figures of --mode=evaluate are those of the metrics, and their intervals."""

import numpy as np
import pytest

from configs import default
from kaleido_jax.evaluation import scores
from kaleido_jax.metrics import (
  bootstrap,
  frechet,
  kernel,
  precision_recall,
  similarity,
)


@pytest.fixture
def settings():
  found = default.get_config().evaluate
  found.resamples = 10
  return found


def test_figures_are_those_of_the_metrics(settings):
  random = np.random.default_rng(0)
  real, fake = random.normal(size=(40, 5)), random.normal(size=(8, 4, 5)) + 0.2
  settings.update(num_captions=8, per_caption=4)
  flat, names = fake.reshape(32, 5), {'features': 'frechet'}
  truth = scores.truth({'features': real}, names, settings)
  found = scores.of(truth, {'features': flat}, names, settings)
  expected = precision_recall.score(real, flat) | {
    'frechet': frechet.distance(real, flat),
    'kernel': kernel.distance(real, flat),
    'vendi': similarity.mean_over(fake, similarity.vendi),
    'mss': similarity.mean_over(fake, lambda x: similarity.mss(x).pairs),
  }
  for name, value in expected.items():
    assert found[name].value == pytest.approx(value)


def test_of_many_captions_kernels_are_added_up_in_blocks(settings, monkeypatch):
  random = np.random.default_rng(0)
  fake = {'features': random.normal(size=(8 * 4, 5))}
  real = {'features': random.normal(size=(40, 5)) + 0.2}
  settings.update(num_captions=8, per_caption=4, resamples=50)
  names, said = {'features': 'frechet'}, []
  for groups in (8, 3):
    monkeypatch.setattr(scores, 'GROUPS', groups)
    of = np.arange(40) % 9 - 1  # every ninth has a caption that is not drawn
    truth = scores.truth(real, names, settings, captions=of)
    said.append(scores.of(truth, fake, names, settings)['kernel'])
  fine, coarse = said
  assert fine.value == pytest.approx(coarse.value)
  assert 0.3 < fine.others.std() / coarse.others.std() < 3

  # A choice by hand: captions with all of theirs, drawn and real, or without.
  choices: list = []
  bootstrap.resampled(8, lambda which: choices.append(which) or 0.0)
  for which, found in zip(choices[:3], fine.others, strict=False):
    fakes = [4 * c + n for c in which for n in range(4)]
    reals = [*np.flatnonzero(of < 0)]
    reals += [n for c in which for n in np.flatnonzero(of == c)]
    x, y = real['features'], fake['features']
    expected = _mean((x[i], x[j]) for i in reals for j in reals if i != j)
    expected += _mean((y[i], y[j]) for i in fakes for j in fakes if i != j)
    expected -= 2 * _mean((x[i], y[j]) for i in reals for j in fakes)
    assert found == pytest.approx(expected)


def _mean(pairs):
  return np.mean([(a @ b / 5 + 1) ** 3 for a, b in pairs])


def test_real_pictures_are_judged_as_drawn_ones(settings):
  """By the reach of a full set; three of 11 pictures make no row of two."""
  random = np.random.default_rng(0)
  real, other = random.normal(size=(40, 5)), random.normal(size=(11, 5))
  settings.update(num_captions=8, per_caption=2)
  names, of = {'features': 'frechet'}, np.arange(40) % 8
  # of: captions of drawn ones; these have others.
  real = {'features': real}
  truth = scores.truth(real, names, settings, captions=of)
  shares = np.array([[1.0, 0.0], [0.5, 0.5]])
  found = scores.ceiling(truth, {'features': other}, names, settings, shares)
  expected = precision_recall.score(real['features'], other[:10]) | {
    'frechet': frechet.distance(real['features'], other[:10]),
    'kernel': kernel.distance(real['features'], other[:10]),
    'modes': 1.25,  # of two pictures: one; one in half of the cases, else two
  }
  assert found.keys() == expected.keys()
  for name, value in expected.items():
    assert found[name].value == pytest.approx(value)


def test_real_pictures_of_a_caption_are_as_many_as_are_drawn(settings):
  """Of four captions two have three: the first three are told of."""
  random = np.random.default_rng(0)
  real = {'features': random.normal(size=(12, 5))}
  of = np.array([0, 1, -1, 2, 1, 0, 1, 3, 3, 0, 1, -1])
  settings.update(num_captions=4, per_caption=3)
  names = {'features': 'frechet'}
  truth = scores.truth(real, names, settings, captions=of)
  own = scores.own(truth, real, settings)
  by_hand = [real['features'][[0, 5, 9]], real['features'][[1, 4, 6]]]
  np.testing.assert_array_equal(own, by_hand)
  found = scores.ceiling(truth, real, names, settings, None, own)
  vendi = similarity.mean_over(by_hand, similarity.vendi)
  assert found['vendi'].value == pytest.approx(vendi)
  pairs = similarity.mean_over(by_hand, lambda x: similarity.mss(x).pairs)
  assert found['mss'].value == pytest.approx(pairs)
  # One caption says nothing of others, and a file none of its captions.
  for few in (np.where(of == 1, -1, of), None):
    assert scores.own(truth._replace(captions=few), real, settings) == []


def test_modes_are_counted(settings):
  """Two captions, of which one hides a coin and the other nothing."""
  settings.update(num_captions=2, per_caption=4)
  drawn = scores.Drawn(
    ['red', 'blue'],
    np.array([0, 0, 0, 1, 1, 1, 1, 1]),
    truth=np.array([[0.5, 0.5], [0.0, 1.0]]),
  )
  assert drawn.shares() == {'red': 3 / 8, 'blue': 5 / 8}
  random = np.random.default_rng(0)
  x, names = random.normal(size=(8, 3)), {'features': 'frechet'}
  truth = scores.truth({'features': x}, names, settings)
  found = scores.of(truth, {'features': x}, names, settings, drawn)
  assert found['modes'].value == 1.5
  assert found['modes_distance'].value == pytest.approx(1 / 8)
