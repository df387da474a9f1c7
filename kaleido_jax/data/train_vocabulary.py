"""Trains the small SentencePiece vocabularies that ship with the package.

  python -m kaleido_jax.data.train_vocabulary --emoji=FOLDER
  python -m kaleido_jax.data.train_vocabulary --size=640 --out=shapes.model
  python -m kaleido_jax.data.train_vocabulary --emoji=FOLDER --shapes=0 \
    --size=1024 --out=emoji.model

On captions and latents of shapes and emoji, or of one of them: so few words
need few pieces, and a head of a tenth the size. The same kind of file as T5's
spiece.model, read by the same code: padding 0, end 1, unknown 2. Unlike T5's it
changes no character (T5 normalises), and falls back to bytes, so that any text
comes back as it was. Its pieces are merged by frequency (BPE): so small a
unigram model, as T5's is, spends them on numbers and cuts "and" in two.
"""

import io
from collections.abc import Iterator

import sentencepiece
from absl import app, flags

from kaleido_jax.data.emoji import Emoji
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.latents import tokens

KINDS = ('text', 'bbox', 'blob', 'layout')


def sentences() -> Iterator[str]:
  """Everything that the small models read or write."""
  sources = [(Shapes(size=32, kinds=KINDS), flags.FLAGS.shapes)]
  if flags.FLAGS.emoji:
    emoji = Emoji(flags.FLAGS.emoji, split='train', kinds=KINDS)
    sources.append((emoji, len(emoji)))
  for source, count in sources:
    for index in range(count):
      example = source[index]
      yield example.caption
      yield from example.latents.to_strings().values()


def define_flags() -> None:
  """Not when this is imported: flags are for whoever runs the program."""
  flags.DEFINE_string('emoji', None, 'Emoji records; none: shapes alone.')
  flags.DEFINE_integer('shapes', 40_000, 'How many are described.')
  flags.DEFINE_integer('size', 6144, 'Pieces.')
  flags.DEFINE_string('out', str(tokens.EMBEDDED['']), 'Where it is written.')


def main(argv: list[str]) -> None:
  del argv
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=sentences(),
    model_writer=model,
    model_type='bpe',
    vocab_size=flags.FLAGS.size,
    pad_id=tokens.PAD,
    eos_id=tokens.EOS,
    unk_id=tokens.UNKNOWN,
    bos_id=-1,
    byte_fallback=True,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    user_defined_symbols=['|', '▁(', ')'],
    num_threads=1,  # more would not give the same file twice
    minloglevel=1,
  )
  with open(flags.FLAGS.out, 'wb') as file:
    file.write(model.getvalue())
  print(f'{flags.FLAGS.out}: {len(model.getvalue()):,} bytes')


if __name__ == '__main__':
  define_flags()
  app.run(main)
