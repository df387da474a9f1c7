"""Words and ids as tokens, by the embedded vocabulary and by one like T5's."""

import pickle

import drawn
import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from kaleido_jax.latents import KINDS, Box, Latents, tokens
from kaleido_jax.latents.tokens import EOS, PAD, Vocabulary
from kaleido_jax.latents.vokens import Vokens

pytestmark = pytest.mark.filterwarnings('ignore:Do not use the .random. module')

LENGTHS = {
  'text': 400,
  'bbox': 900,
  'blob': 900,
  'voken': 32,
  'color': 16,
  'layout': 100,
}
ALL = Vocabulary(kinds=tuple(KINDS))


@given(drawn.latents())
def test_latents_survive_their_tokens(value):
  """Any printable text, since unknown characters are written as bytes."""
  vocabulary = Vocabulary(kinds=tuple(value))
  z, cut = vocabulary.encode_latents(value, LENGTHS)
  assert not cut and len(z) == vocabulary.length_of(LENGTHS)
  assert vocabulary.decode(z) == value.to_string()
  assert Latents.parse(vocabulary.decode(z), vocabulary.kinds) == (value, [])


@given(st.lists(st.integers(0, ALL.size + 50), max_size=60))
def test_whatever_the_prior_emits_parses(ids):
  found, problems = Latents.parse(ALL.decode(ids), ALL.kinds)
  assert list(found) == list(KINDS)
  assert problems  # sixty random tokens are no complete latents


def test_kinds_of_ids_are_whole_tokens_behind_the_pieces():
  vocabulary = Vocabulary(kinds=('text', 'voken', 'color'), rows=32128)
  assert vocabulary.first == {'voken': 32128, 'color': 40320}
  assert vocabulary.size == 40832 and vocabulary.rows == 32128
  value = Latents(text='a', voken=range(32), color=range(100, 116))
  z, _ = vocabulary.encode_latents(value, LENGTHS)
  ids = z[z != PAD].tolist()
  assert ids[-1] == EOS and ids[-17:-1] == list(range(40420, 40436))
  assert ids[-18] == vocabulary.separator
  assert ids[-50:-18] == list(range(32128, 32160))


def test_a_token_of_another_kind_is_not_taken_for_an_id():
  vocabulary = Vocabulary(kinds=('text', 'voken', 'color'))
  five = vocabulary.encode('5')
  ids = [
    *vocabulary.encode('a'),
    vocabulary.first['color'],
    vocabulary.separator,
    *five,
    vocabulary.first['color'] + 7,
    vocabulary.first['voken'] + 3,
  ]
  string = vocabulary.decode(ids)
  assert string.startswith('a <color_0> | ') and string.endswith('#3')
  found, problems = Latents.parse(string, vocabulary.kinds)
  assert found.vokens == (3,)
  assert any('<color_7>' in problem.piece for problem in problems)


def test_what_comes_after_the_end_is_not_read():
  ids = [*ALL.encode('a dog'), EOS, *ALL.encode('a cat')]
  assert ALL.decode(ids) == 'a dog'


@pytest.mark.parametrize('length', range(1, 30))
def test_what_is_too_long_is_cut_between_words_and_never_in_a_box(length):
  vocabulary = Vocabulary(kinds=('bbox',))
  dog = Box(label='red dog', x1=12, y1=34, x2=567, y2=890)
  value = Latents(bbox=('a photo of', dog, 'and', dog))
  z, cut = vocabulary.encode_latents(value, {'bbox': length})
  assert (z != PAD).sum() <= length + 1 and z[z != PAD][-1] == EOS
  string = vocabulary.decode(z)
  if not cut:
    assert string == value.to_string()
    return
  assert cut == ['bbox'] and value.to_string().startswith(string)
  found, problems = Latents.parse(string, ('bbox',))
  assert not problems and set(found.boxes) <= {dog}
  if len(string) > 9:  # more than the first word was kept
    assert value.to_string()[len(string)] == ' '
    assert not string.endswith(('dog', ']'))


def test_captions_are_ended_padded_and_cut_at_a_word():
  ids, cut = ALL.encode_caption('a red circle', 12)
  assert not cut
  assert ids.shape == (12,) and ids.dtype == np.int32
  assert ALL.decode(ids) == 'a red circle'
  assert (ids == EOS).sum() == 1 and (
    ids[np.argmax(ids == EOS) + 1 :] == 0
  ).all()
  long, cut = ALL.encode_caption('a red circle ' * 20, 12)
  assert cut
  assert long[-1] == EOS or long[-1] == PAD
  assert ALL.decode(long).split()[-1] in ('a', 'red', 'circle')
  assert ALL.decode(ALL.encode_caption('', 4)[0]) == ''


def test_a_vocabulary_like_t5s_goes_through_the_same_code(t5_like):
  vocabulary = Vocabulary(t5_like, kinds=('text', 'bbox', 'color'), rows=64)
  value = Latents(
    text='a dog',
    bbox=[Box(label='cat', x1=1, y1=2, x2=30, y2=40)],
    color=range(16),
  )
  z, cut = vocabulary.encode_latents(value, LENGTHS)
  assert not cut and vocabulary.first['color'] == 64
  assert Latents.parse(vocabulary.decode(z), vocabulary.kinds) == (value, [])
  random = np.random.default_rng(0).integers(0, 600, (50, 40))
  for row in random:
    Latents.parse(vocabulary.decode(row), vocabulary.kinds)


def test_it_travels_to_workers(t5_like):
  vocabulary = pickle.loads(pickle.dumps(Vocabulary(t5_like)))
  assert vocabulary.encode('a dog') == Vocabulary(t5_like).encode('a dog')


def test_a_missing_vocabulary_and_too_few_rows_are_sentences(tmp_path, t5_like):
  with pytest.raises(FileNotFoundError, match='spiece.model'):
    Vocabulary(str(tmp_path / 'spiece.model'))
  with pytest.raises(ValueError, match='pieces, more than 3 rows'):
    Vocabulary(t5_like, rows=3)
  with pytest.raises(ValueError, match='says nothing of text'):
    Vocabulary(kinds=('text',)).length_of({'bbox': 3})
  with pytest.raises(ValueError, match='voken id 9 is outside 0..7'):
    Vocabulary(kinds=(Vokens(pieces=8, count=1),)).encode_latents(
      Latents(voken=(9,)), {'voken': 1}
    )


def test_the_embedded_vocabulary_is_small_and_reads_as_t5s_does():
  assert tokens.EMBEDDED[''].stat().st_size <= 100_000
  pieces = sentencepiece.SentencePieceProcessor(
    model_file=str(tokens.EMBEDDED[''])
  )
  assert (pieces.pad_id(), pieces.eos_id(), pieces.unk_id()) == (0, 1, 2)


@pytest.mark.parametrize(
  'caption',
  ['so happy :) ' + 'a dog sits on ' * 20, 'a [dog ' + 'sits on a ' * 20],
)
def test_brackets_in_a_caption_do_not_cut_it_short(caption):
  ids, cut = ALL.encode_caption(caption, 40)
  assert cut and (ids != PAD).sum() > 35
  assert caption.startswith(ALL.decode(ids))


@pytest.mark.parametrize('length', range(2, 40))
@pytest.mark.parametrize(
  'text',
  ['Experts explain quartz: XYZ-axes', '日本語 の 文字', 'Ünïcödé wörds X'],
)
def test_words_of_strange_letters_are_not_cut_in_two(text, length):
  """The small vocabulary writes them as bytes."""
  vocabulary = Vocabulary(kinds=('text',))
  z, cut = vocabulary.encode_latents(Latents(text=text), {'text': length})
  found = vocabulary.decode(z)
  if not cut:
    assert found == text
  elif ' ' in found or found == text.split()[0]:
    assert text.startswith(found) and text[len(found)] == ' '


def test_a_bar_that_is_no_separator_shifts_nothing(t5_like):
  for vocabulary in (
    Vocabulary(kinds=('text', 'color')),
    Vocabulary(t5_like, kinds=('text', 'color'), rows=64),
  ):
    value = Latents(text='a dog', color=range(16))
    z, _ = vocabulary.encode_latents(value, LENGTHS)
    bars = [
      i
      for i in range(vocabulary.rows)
      if i != vocabulary.separator and '|' in vocabulary.decode([i, i])
    ]
    ids = z.tolist()
    for bar in bars:
      assert vocabulary.decode([*ids[:1], bar, *ids[1:]]).endswith('#14#15')


def test_wide_forms_of_bars_and_brackets_are_no_syntax(t5_like):
  """T5 normalises them to plain ones."""
  vocabulary = Vocabulary(t5_like, kinds=('text', 'color'), rows=64)
  value = Latents(text='a ｜ dog（3）⑴ ％7C', color=range(16))
  z, _ = vocabulary.encode_latents(value, LENGTHS)
  assert (z == vocabulary.separator).sum() == 1
  string = value.to_string()
  assert not set(string.partition(' | ')[0]) & set('｜（）⑴％')
  assert Latents.from_string(string, ('text', 'color')) == value
