"""Writes tiny T5 checkpoints as Hugging Face does, and what its T5 computes.

Folders, saved by transformers' `save_pretrained`: `v1_0/` (ReLU, tied output,
one file) and `v1_1/` (gated GELU, an output matrix of its own, in shards).
Beside each a `*_golden.npz`: three batches (`ragged`, `medium`, `long`: its
distances go beyond the last bucket) with ids, encoder states, decoder states
after the final norm and before any scale, and logits; and what greedy
`generate` appends to `ragged`.

Only keys are masked: `encoded` at padded positions is what those queries
computed, so compare it where `attention_mask` is 1. A 0 among the decoder's
tokens is a token like any other; it is not masked.

Made on 2026-11-21 with Python 3.11, torch 2.13.0 (CPU), transformers 5.23.0,
safetensors 0.8.0 and numpy 2.4.6. From the folder that holds this file:

  python3.11 -m venv venv
  venv/bin/pip install torch==2.13.0 transformers==5.23.0 \
    safetensors==0.8.0 numpy==2.4.6
  venv/bin/python make.py
"""

import json
import pathlib
import shutil

import numpy as np
import torch
from transformers import T5Config, T5ForConditionalGeneration

HERE = pathlib.Path(__file__).parent
VOCAB, EOS = 96, 1
SIZES = dict(
  vocab_size=VOCAB,
  d_model=32,
  d_kv=12,
  num_heads=4,  # 4 * 12 is not d_model
  d_ff=64,
  num_layers=3,
  num_decoder_layers=2,
  relative_attention_num_buckets=32,
  relative_attention_max_distance=128,
  decoder_start_token_id=0,
)
# The seeds were searched for sequences that pass `check`.
MODELS = {
  'v1_0': dict(seed=604, feed_forward_proj='relu', tie_word_embeddings=True),
  'v1_1': dict(
    seed=179, feed_forward_proj='gated-gelu', tie_word_embeddings=False
  ),
}
# How far each kind of matrix spreads its input, by its name.
GAINS = dict(q=1, k=1, v=2, o=2, wi=2, wi_0=2, wi_1=2, wo=3)
# Encoder lengths of each batch, and the decoder's length.
BATCHES = {
  'ragged': ([11, 6, 3, 1], 9),
  'medium': ([40], 9),
  'long': ([150], 140),
}


def build(seed, tie_word_embeddings, **kwargs):
  """A model in which no parameter has a trivial value."""
  config = T5Config(**SIZES, tie_word_embeddings=tie_word_embeddings, **kwargs)
  model = T5ForConditionalGeneration(config).eval()
  if not tie_word_embeddings:
    # transformers 5 ties every T5 it initializes. One whose head is a parameter
    # of its own it saves and loads as such.
    model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCAB, 32))
  rng = np.random.default_rng(seed)
  for name, parameter in model.named_parameters():
    noise = torch.from_numpy(rng.standard_normal(parameter.shape)).float()
    if 'layer_norm' in name:
      noise = 1 + 0.2 * noise
    elif name == 'lm_head.weight':
      noise *= 2 * 32**-0.5
    elif name == 'shared.weight':
      noise *= 0.5
    elif 'relative_attention_bias' not in name:
      noise *= GAINS[name.split('.')[-2]] * parameter.shape[1] ** -0.5
    parameter.data = noise
  if tie_word_embeddings:
    # With logits that spread by 2. The sign is against repeating: where input
    # and output embeddings are one, a token's most likely successor is itself.
    model.decoder.final_layer_norm.weight.data *= -4
  model.lm_head.weight.data[EOS] *= 1.6  # or sequences would rarely end
  return model


def save(model, folder, tied):
  shutil.rmtree(folder, ignore_errors=True)
  if tied:
    model.save_pretrained(folder)
    return
  model.save_pretrained(folder, max_shard_size='120KB')
  # In the words of the public v1.1 checkpoints. transformers 5 writes
  # tie_word_embeddings true and scale_decoder_outputs false instead.
  path = folder / 'config.json'
  config = json.loads(path.read_text()) | {'tie_word_embeddings': False}
  del config['scale_decoder_outputs']
  path.write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')


@torch.no_grad()
def compute(model, rng):
  golden = {}
  for name, (lengths, decoder_length) in BATCHES.items():
    shape = len(lengths), max(lengths)
    mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    ids = rng.integers(2, VOCAB, shape) * mask
    targets = rng.integers(2, VOCAB, (len(lengths), decoder_length))
    targets[:, 0] = 0
    inputs = {
      'input_ids': torch.from_numpy(ids),
      'attention_mask': torch.from_numpy(mask.astype(np.int64)),
    }
    states = []  # what the decoder hands on, before v1.0's scale
    hook = model.decoder.register_forward_hook(
      lambda _, __, output, states=states: states.append(output[0])
    )
    out = model(**inputs, decoder_input_ids=torch.from_numpy(targets))
    hook.remove()
    arrays = {
      'input_ids': ids.astype(np.int32),
      'attention_mask': mask.astype(np.int32),
      'encoded': out.encoder_last_hidden_state.numpy(),
      'decoder_input_ids': targets.astype(np.int32),
      'decoded': states[0].numpy(),
      'logits': out.logits.numpy(),
    }
    if name == 'ragged':
      out = model.generate(
        **inputs,
        num_beams=1,
        do_sample=False,
        max_new_tokens=24,
        eos_token_id=EOS,
        pad_token_id=0,
        decoder_start_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
      )
      arrays['generated'] = out.sequences.numpy().astype(np.int32)
      check(arrays['generated'], torch.stack(out.logits, 1))
    golden |= {f'{name}/{key}': value for key, value in arrays.items()}
  return golden


def check(generated, logits):
  """That the sequences are worth comparing, and safe to compare."""
  ended = [EOS in row for row in generated]
  rows = [row[1:].tolist() for row in generated]
  rows = [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]
  assert any(ended) and not all(ended)
  assert min(len(row) for row in rows) > 2
  assert not any(0 in row for row in rows)
  assert len({tuple(row) for row in rows}) == len(rows)
  assert min(len(set(row)) / len(row) for row in rows) > 0.4
  best = logits.topk(2).values
  gaps = best[..., 0] - best[..., 1]
  assert min(gaps[i, : len(row)].min() for i, row in enumerate(rows)) > 0.02


def main():
  for name, options in MODELS.items():
    tied = options['tie_word_embeddings']
    save(build(**options), HERE / name, tied)
    model = T5ForConditionalGeneration.from_pretrained(HERE / name)
    assert (model.lm_head.weight is model.shared.weight) == tied
    assert model.config.scale_decoder_outputs == tied
    golden = compute(model.eval(), np.random.default_rng(options['seed']))
    np.savez_compressed(HERE / f'{name}_golden.npz', **golden)
    for batch in BATCHES:
      print(name, batch, 'std of logits:', golden[f'{batch}/logits'].std())
    print(golden['ragged/generated'])


if __name__ == '__main__':
  main()
