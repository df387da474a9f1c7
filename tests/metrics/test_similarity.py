"""How alike pictures are, where it is known; and the Inception Score."""

import json

import numpy as np
import pytest
from feature_sets import pair

from kaleido_jax.metrics import inception_score, similarity


@pytest.mark.parametrize('q', [0.5, 1, 2])
def test_vendi_score_says_the_same(data, q):
  said = json.loads((data / 'metrics.json').read_text())[f'vendi/{q}']
  assert similarity.vendi(pair()[0], q) == pytest.approx(said, rel=1e-9)


@pytest.mark.parametrize('q', [0, 0.5, 1, 2, np.inf])
def test_copies_count_once_and_strangers_each(q):
  copies = np.tile(np.arange(1.0, 6), (7, 1)) * np.arange(1, 8)[:, None]
  assert similarity.vendi(copies, q) == pytest.approx(1)
  assert similarity.vendi(np.eye(7) * 3, q) == pytest.approx(7)
  # Two of one, two of another kind: two.
  both = np.repeat(np.eye(2), 2, axis=0)
  assert similarity.vendi(both, q) == pytest.approx(2)


def test_orders_differ_where_kinds_are_uneven():
  """Shares 3/4 and 1/4: exp of the entropy, and 1 over the largest."""
  uneven = np.eye(2)[[0, 0, 0, 1]]
  entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
  assert similarity.vendi(uneven) == pytest.approx(np.exp(entropy))
  assert similarity.vendi(uneven, 2) == pytest.approx(1 / (0.75**2 + 0.25**2))
  assert similarity.vendi(uneven, np.inf) == pytest.approx(4 / 3)
  assert similarity.vendi(uneven, 5000) == pytest.approx(4 / 3, rel=1e-3)


def test_mss_is_the_mean_over_pairs():
  """Two copies and a stranger: one of three pairs is alike."""
  found = similarity.mss(np.eye(2)[[0, 0, 1]])
  assert found == pytest.approx((1 / 3, 5 / 9))
  opposite = similarity.mss(np.array([[1.0, 0], [-2.0, 0]]))
  assert opposite == pytest.approx((-1, 0))
  sets = [np.eye(2)[[0, 0, 1]], np.eye(3)]
  mean = similarity.mean_over(sets, lambda x: similarity.mss(x).pairs)
  assert mean == pytest.approx(1 / 6)


def test_words_match_what_lies_in_their_direction():
  pictures = np.array([[2.0, 0], [0, 3], [-1, 0], [5, 5]])
  found = similarity.match(pictures, np.array([7.0, 0]))
  assert found == pytest.approx(100 * (1 + 0 - 1 + 0.5**0.5) / 4)


def test_what_has_no_direction_is_a_sentence():
  with pytest.raises(ValueError, match='picture 1 have no direction'):
    similarity.vendi(np.array([[1.0, 0], [0, 0]]))
  with pytest.raises(ValueError, match='picture 2 have no direction'):
    similarity.mss(np.array([[1.0, 0], [0, 1], [np.nan, 0]]))
  with pytest.raises(ValueError, match='n of 2 or more, not .1, 3'):
    similarity.mss(np.ones((1, 3)))
  with pytest.raises(ValueError, match='no order of an entropy'):
    similarity.vendi(np.eye(2), -1)


def test_torch_fidelity_says_the_same_of_the_inception_score(data):
  said = json.loads((data / 'metrics.json').read_text())['inception_score']
  found = inception_score.of_logits(pair()[1], splits=5)
  assert found.mean == pytest.approx(said, rel=1e-9)


def test_the_inception_score_counts_classes():
  """Sure of everything, and of all classes alike often: as many as those."""
  sure = 50.0 * np.eye(8)
  assert inception_score.of_logits(sure, 1).mean == pytest.approx(8)
  assert inception_score.of_logits(2000 * np.eye(8), 1).mean == pytest.approx(8)
  assert inception_score.of_logits(np.zeros((8, 5)), 2) == (1, 0)
  never = 2000 * np.eye(3)[[0, 1, 1, 0]]  # nobody is of the third
  assert inception_score.of_logits(never, 1).mean == pytest.approx(2)
  with pytest.raises(ValueError, match='cannot be cut into 10 parts'):
    inception_score.of_logits(sure)
