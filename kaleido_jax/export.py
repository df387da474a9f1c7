"""A run's averages as plain files, for who has no Orbax, or no jax.

  python -m kaleido_jax.main --mode=export --workdir=runs/shapes --out=shapes

  shapes/config.json, weights.safetensors   the whole model; `load` takes it
  shapes/prior/                             the prior, for `transformers`

The prior reads captions and writes latents with two tables of embeddings, where
a T5 of `transformers` has one. So its vocabulary has both: tokens of latents,
then those of captions, `offset` further on, which are never written.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from kaleido_jax import exported, loading, progress
from kaleido_jax.convert import huggingface
from kaleido_jax.latents import tokens
from kaleido_jax.models import adaptation, t5
from kaleido_jax.models.t5_layers import T5Config


def run(
  config: ConfigDict, *, workdir: str, out: str = '', said: Sequence[str] = ()
) -> None:
  """Writes both."""
  del config, said  # the run's own is what its parameters mean
  if ':' in workdir and not out:
    raise ValueError(f'{workdir} is no folder here; say --out=FOLDER.')
  loaded = loading.load(workdir, jax.devices()[:1])
  folder = pathlib.Path(out or pathlib.Path(workdir) / 'export')
  if (folder / 'checkpoints').exists():
    raise ValueError(
      f'{folder} is the workdir of a run, which would be hidden by its export; '
      'say another --out.'
    )
  if loaded.config.latents:
    joined(loaded.model, loaded.params)  # or say so before anything is written
  exported.write(str(folder), loaded.config, loaded.params, loaded.step)
  own = folder / exported.VOCABULARY
  if loaded.words.file in tokens.EMBEDDED.values():
    own.unlink(missing_ok=True)
  elif not own.exists() or not own.samefile(loaded.words.file):
    shutil.copy(loaded.words.file, own)
  size = (folder / exported.WEIGHTS).stat().st_size / 1e6
  logging.info('%s: step %d, %.1f MB', folder, loaded.step, size)
  if loaded.config.latents:
    write_prior(folder / 'prior', loaded)
    logging.info('%s: the prior, for transformers', folder / 'prior')


def write_prior(folder: pathlib.Path, loaded: loading.Loaded) -> None:
  """The prior as a folder of `transformers`."""
  module, params = joined(loaded.model, loaded.params)
  huggingface.save(folder, module, params)
  offset = loaded.model.decoder.config.vocab_size
  hidden = list(range(offset, module.config.vocab_size))
  progress.replace(
    folder / 'generation_config.json',
    json.dumps(
      {
        'decoder_start_token_id': t5.PAD,
        'eos_token_id': t5.EOS,
        'pad_token_id': t5.PAD,
        'suppress_tokens': hidden,
      }
    ),
  )
  progress.replace(
    folder / 'kaleido.json',
    json.dumps({'latents': loaded.config.latents, 'offset': offset}) + '\n',
  )
  shutil.copy(loaded.words.file, folder / 'spiece.model')


def joined(model: Any, params: Any) -> tuple[t5.T5, dict]:
  """Encoder and decoder as one T5, over both vocabularies."""
  encoder = model.encoder.config
  decoder, prior = adaptation.restore(model.decoder.config, params['decoder'])
  free = {'vocab_size', 'num_encoder_layers', 'num_decoder_layers', 'dropout'}
  free |= {'remat', 'dtype', 'tied_head'}
  ours, theirs = dataclasses.asdict(decoder), dataclasses.asdict(encoder)
  different = [n for n in ours if n not in free and ours[n] != theirs[n]]
  if different:
    raise ValueError(
      'encoder and decoder differ in '
      f'{", ".join(different)}: no T5 of transformers has both.'
    )
  config = T5Config(
    **ours
    | {
      'vocab_size': decoder.vocab_size + encoder.vocab_size,
      'num_encoder_layers': encoder.num_encoder_layers,
    }
  )
  tables = [
    part['token_embedder']['embedding'] for part in (prior, params['encoder'])
  ]
  found = {
    'token_embedder': {'embedding': jnp.concatenate(tables)},
    'encoder': params['encoder']['encoder'],
    'decoder': dict(prior['decoder']),
  }
  if not decoder.tied_head:
    head = prior['decoder']['logits_dense']['kernel']
    room = ((0, 0), (0, encoder.vocab_size))
    found['decoder']['logits_dense'] = {'kernel': jnp.pad(head, room)}
  return t5.T5(config), found
