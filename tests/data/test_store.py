"""Latents from a store, and what must not be joined."""

import pickle

import numpy as np
import pytest

from kaleido_jax.data import records, store
from kaleido_jax.data.example import BadRecord, Example
from kaleido_jax.data.recipe import Recipe
from kaleido_jax.latents import Latents
from kaleido_jax.latents.tokens import Vocabulary
from kaleido_jax.latents.vokens import Vokens

PARAMS = {'layers': {'kernel': np.arange(6.0).reshape(2, 3)}}
VOKENS = Vokens(pieces=64, count=2)


class Photographs:
  kinds = ()
  fingerprint = 'photographs-1'

  def __len__(self):
    return 3

  def __getitem__(self, index):
    image = np.full((8, 8, 3), index, np.uint8)
    return Example(f'n{index}.jpg', image, f'photo {index}', Latents())


def name_of(params, dtype, length=5):
  return store.encoder_name(params, dtype, Vocabulary(), length)


def write(folder, *, source='photographs-1', encoder='', **changed):
  rows = [
    {'key': 'n1.jpg', 'latents': {'text': 'one', 'voken': '1#63'}},
    {'key': 'n0.jpg', 'latents': {'text': 'nought', 'voken': '5#6'}},
  ]
  if encoder:
    for row in rows:
      row['memory'] = np.ones((3, 4), np.float16)
  rows[0]['latents'] |= changed
  store.write(
    folder, rows, source=source, kinds=('text', 'voken'), encoder=encoder
  )
  return folder


def test_latents_are_joined_by_key(tmp_path):
  folder = write(tmp_path / 'latents')
  joined = store.Joined(Photographs(), folder, kinds=('text', VOKENS))
  joined = pickle.loads(pickle.dumps(joined))  # as for a worker
  assert joined[0].latents == Latents(text='nought', voken=(5, 6))
  assert joined[1].latents == Latents(text='one', voken=(1, 63))
  assert joined[1].caption == 'photo 1' and joined[1].image[0, 0, 0] == 1
  assert joined.kinds == {'text', 'voken'}


def test_an_example_without_latents_is_a_bad_record(tmp_path):
  joined = store.Joined(
    Photographs(), write(tmp_path / 'latents'), kinds=('text',)
  )
  with pytest.raises(BadRecord, match='n2.jpg: no latents'):
    joined[2]


@pytest.mark.parametrize('voken', ['1#64', '1', 'rubbish', '1#2#3', ''])
def test_garbage_is_a_bad_record(tmp_path, voken):
  folder = write(tmp_path / 'latents', voken=voken)
  joined = store.Joined(Photographs(), folder, kinds=(VOKENS,))
  with pytest.raises(BadRecord, match='n1.jpg: malformed latents .*voken'):
    joined[1]


def test_a_missing_store_names_the_command(tmp_path):
  with pytest.raises(FileNotFoundError, match='no latent records.*extract'):
    store.Joined(Photographs(), tmp_path / 'no', kinds=('text',))


def test_a_stale_store_names_the_command(tmp_path):
  folder = write(tmp_path / 'latents', source='photographs-0')
  with pytest.raises(ValueError, match='another version.*mode=extract'):
    store.Joined(Photographs(), folder, kinds=('text',))


def test_a_store_of_other_kinds_names_the_command(tmp_path):
  folder = write(tmp_path / 'latents')
  with pytest.raises(ValueError, match=r"none of \['bbox'\].*mode=extract"):
    store.Joined(Photographs(), folder, kinds=('bbox',))


def test_a_folder_of_something_else_is_refused(tmp_path):
  records.write(
    tmp_path / 'x', [{'key': 'a'}], kind='emoji', about={'note': 'pictures'}
  )
  with pytest.raises(ValueError, match='emoji records, not latent ones'):
    store.Joined(Photographs(), tmp_path / 'x', kinds=('text',))


def test_cached_states_come_along_padded_to_the_caption(tmp_path):
  encoder = name_of(PARAMS, 'float16')
  folder = write(tmp_path / 'latents', encoder=encoder)
  joined = store.Joined(Photographs(), folder, kinds=(), encoder=encoder)
  example = joined[0]._replace(caption='')
  assert example.memory.shape == (3, 4) and example.memory.dtype == np.float16
  recipe = Recipe(
    vocabulary=Vocabulary(), caption_length=5, lengths={}, size=None
  )
  rng = np.random.default_rng(0)
  with pytest.raises(ValueError, match='of 3 tokens, the caption has 1'):
    recipe(example, rng)
  prepared = recipe(example._replace(memory=example.memory[:1]), rng)
  assert prepared.arrays['memory'].shape == (5, 4)
  assert prepared.arrays['memory'].sum() == 4


@pytest.mark.parametrize(
  'params, dtype',
  [
    (PARAMS, 'bfloat16'),
    ({'layers': {'kernel': PARAMS['layers']['kernel'] + 1}}, 'float16'),
    ({'layer': PARAMS['layers']}, 'float16'),
  ],
)
def test_states_of_another_encoder_or_precision_are_refused(
  tmp_path, params, dtype
):
  name = name_of(PARAMS, 'float16')
  folder = write(tmp_path / 'latents', encoder=name)
  other = name_of(params, dtype)
  with pytest.raises(ValueError, match='cached_memory=False'):
    store.Joined(Photographs(), folder, kinds=(), encoder=other)


def test_states_are_of_a_vocabulary_a_length_and_all_parameters(t5_like):
  words, others = Vocabulary(), Vocabulary(t5_like)
  turned = {'b': {'x': np.ones(2)}, 'a': {'x': np.zeros(2)}}
  names = {
    name_of(PARAMS, 'float32'),
    name_of(PARAMS, 'float32', length=6),
    store.encoder_name(PARAMS, 'float32', others, 5),
    name_of(turned, 'float32'),
  }
  assert len(names) == 4
  again = dict(sorted(turned.items()))  # in whatever order they come
  assert name_of(again, 'float32') == name_of(turned, 'float32')
  assert words.fingerprint != others.fingerprint


def test_bfloat16_states_survive(tmp_path):
  import ml_dtypes

  states = np.linspace(-3, 3, 8).reshape(2, 4).astype(ml_dtypes.bfloat16)
  store.write(
    tmp_path / 'x',
    [{'key': 'n0.jpg', 'latents': {}, 'memory': states}],
    source='photographs-1',
    kinds=(),
    encoder='e',
  )
  joined = store.Joined(Photographs(), tmp_path / 'x', kinds=(), encoder='e')
  np.testing.assert_array_equal(joined[0].memory, states)
