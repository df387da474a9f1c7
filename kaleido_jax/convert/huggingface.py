"""T5 folders of Hugging Face `transformers`, in and out.

A folder holds config.json and the weights: model.safetensors, or shards with
model.safetensors.index.json, or the older pytorch_model.bin (also sharded).
Their matrices are (out, in), ours (in, out) with the layers stacked:

  decoder.block.N.layer.2.DenseReluDense.wo.weight   (width, mlp_dim), N times
  decoder/layers/mlp/wo/kernel                       (N, mlp_dim, width)
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file
from tqdm import tqdm

from kaleido_jax.convert import huggingface_files, stream, t5_tensors
from kaleido_jax.models import t5
from kaleido_jax.models.t5_layers import T5Config

# Within `{half}.block.N.layer.`, and within one of our layers.
LAYER = {
  'encoder': {
    'pre_attention_layer_norm': '0.layer_norm',
    'attention': '0.SelfAttention',
    'pre_mlp_layer_norm': '1.layer_norm',
    'mlp': '1.DenseReluDense',
  },
  'decoder': {
    'pre_self_attention_layer_norm': '0.layer_norm',
    'self_attention': '0.SelfAttention',
    'pre_cross_attention_layer_norm': '1.layer_norm',
    'encoder_decoder_attention': '1.EncDecAttention',
    'pre_mlp_layer_norm': '2.layer_norm',
    'mlp': '2.DenseReluDense',
  },
}
KERNEL = {'query': 'q', 'key': 'k', 'value': 'v', 'out': 'o'}

# What config.json may say, and our T5 takes for granted.
FIXED = {
  'layer_norm_epsilon': 1e-6,
  'pad_token_id': t5.PAD,
  'eos_token_id': t5.EOS,
  'decoder_start_token_id': t5.PAD,
}

# Stored by some versions and read by none: copies of the shared embedding, and
# a cross-attention bias that T5 was released with by mistake.
UNUSED = re.compile(
  r'(encoder|decoder)\.embed_tokens\.weight'
  r'|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias'
  r'\.weight'
)


def load(
  folder: str | pathlib.Path,
  target: Mapping[str, Any] | None = None,
  *,
  halves: tuple[str, ...] = t5_tensors.HALVES,
  strict: bool = True,
  **overrides,
) -> tuple[t5.T5, dict]:
  """Reads a T5, tensor by tensor, into the target's shardings.

  Args:
    folder: with config.json and the weights.
    target: a tree of `jax.ShapeDtypeStruct`, such as `t5.abstract_params` gives
      it, with the sharding and type of each parameter; float32 on the first
      device if there is none.
    halves: 'encoder', 'decoder' or both; the embedding belongs to either.
    strict: raise if a tensor is missing, extra or mis-shaped; otherwise print
      the report, and leave what does not fit at its initial value.
    **overrides: fields of T5Config that are not in the files, such as dtype.

  Returns:
    (module, params), for `module.apply({'params': params}, ...)`.
  """
  folder = pathlib.Path(folder)
  config = load_config(folder, **overrides)
  files = huggingface_files.open_folder(folder)
  config, files = _settle_head(config, files)
  module = t5.T5(config)
  params = t5_tensors.assemble(
    str(folder), module, files, NAMING, target, halves=halves, strict=strict
  )
  return module, params


def load_config(folder: str | pathlib.Path, **overrides) -> T5Config:
  """The architecture that a folder's config.json describes."""
  path = pathlib.Path(folder) / 'config.json'
  if not path.exists():
    raise ValueError(
      f'{folder} has no config.json; give the folder of a T5 model as '
      '`hf download google/flan-t5-xl` leaves it.'
    )
  values = huggingface_files.read_json(path)
  if values.get('model_type') != 't5':
    raise ValueError(
      f'{path}: model_type is {values.get("model_type")!r}, not "t5"; only T5 '
      'v1.0, v1.1 and Flan-T5 can be read.'
    )
  needed = ('vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_heads', 'num_layers')
  lacking = [name for name in needed if name not in values]
  if lacking:
    raise ValueError(f'{path} lacks {", ".join(lacking)}; download it again.')
  for name, only in FIXED.items():
    if values.get(name, only) != only:
      raise ValueError(
        f'{path}: {name}={values[name]!r} is not {only!r}, as in every T5; '
        'another value would be ignored, so it is refused.'
      )
  mlp = values.get('feed_forward_proj', 'relu')
  if mlp not in ('relu', 'gated-gelu'):
    raise ValueError(
      f'{path}: feed_forward_proj={mlp!r} is neither "relu" nor "gated-gelu".'
    )
  fields = dict(
    vocab_size=values['vocab_size'],
    width=values['d_model'],
    num_heads=values['num_heads'],
    head_dim=values['d_kv'],
    mlp_dim=values['d_ff'],
    num_encoder_layers=values['num_layers'],
    num_decoder_layers=values.get('num_decoder_layers') or values['num_layers'],
    mlp=mlp,
    tied_head=_is_scaled(values),
    num_buckets=values.get('relative_attention_num_buckets', 32),
    max_distance=values.get('relative_attention_max_distance', 128),
  )
  return T5Config(**fields | overrides)


def save(
  folder: str | pathlib.Path,
  module: t5.T5,
  params: Mapping[str, Any],
  *,
  max_shard_bytes: int = 5 * 10**9,
) -> None:
  """Writes a folder that `transformers` loads; at most one shard in memory."""
  t5_tensors.check_plain(module, params)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  # Weights of an earlier save, whole where these are in shards, would win.
  for old in ('model*.safetensors', 'model.safetensors.index.json'):
    for file in folder.glob(old):
      file.unlink()
  (folder / 'config.json').write_text(
    json.dumps(_config_json(module.config), indent=2) + '\n'
  )
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  shards = list(_shards(params, max_shard_bytes))
  # transformers tells shards from a single file by their names.
  files = [
    f'model-{i + 1:05}-of-{len(shards):05}.safetensors'
    for i in range(len(shards))
  ]
  if len(shards) == 1:
    files = ['model.safetensors']
  index = {}
  progress = tqdm(shards, desc='writing', disable=None)
  for file, names in zip(files, progress, strict=True):
    tensors = {
      name: NAMING.array(path, flat[path], i) for name, path, i in names
    }
    save_file(tensors, folder / file, metadata={'format': 'pt'})
    index.update(dict.fromkeys(tensors, file))
  if len(shards) > 1:
    total = sum(leaf.nbytes for leaf in flat.values())
    (folder / 'model.safetensors.index.json').write_text(
      json.dumps({'metadata': {'total_size': total}, 'weight_map': index})
    )


def _names(path: str, num_layers: int) -> list[str]:
  """The tensors that a parameter of ours is made of: one, or one per layer."""
  half, *rest = path.split('/')
  if half == 'token_embedder':
    return ['shared.weight']
  if rest[0] == 'logits_dense':
    return ['lm_head.weight']
  if rest[0] == 'relpos_bias':
    layer = f'{half}.block.0.layer.0.SelfAttention'
    return [f'{layer}.relative_attention_bias.weight']
  if rest[0].endswith('_norm'):
    return [f'{half}.final_layer_norm.weight']
  _, part, *kernel = rest
  name = LAYER[half][part]
  if len(kernel) == 2:
    name += f'.{KERNEL.get(kernel[0], kernel[0])}'
  return [f'{half}.block.{i}.layer.{name}.weight' for i in range(num_layers)]


NAMING = t5_tensors.Naming(
  names=_names,
  transposed=lambda path: path.endswith(('/kernel', '/rel_embedding')),
  unused=UNUSED,
)


def _shards(
  params: Mapping[str, Any], limit: int
) -> Iterator[list[tuple[str, str, int]]]:
  """Groups (name, path, layer) so that no group exceeds the limit."""
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  sizes = NAMING.shapes(params)
  shard, size = [], 0
  for name, path, layer in NAMING.tensors(params):
    num_bytes = math.prod(sizes[name]) * flat[path].dtype.itemsize
    if shard and size + num_bytes > limit:
      yield shard
      shard, size = [], 0
    shard.append((name, path, layer))
    size += num_bytes
  yield shard


def _is_scaled(values: Mapping[str, Any]) -> bool:
  """Whether states are scaled by d^-0.5 before the head, as v1.0 does.

  transformers told the versions apart by tie_word_embeddings, until version 5
  gave the scale a name of its own and set the former to true in any case.
  """
  tied = values.get('tie_word_embeddings') is not False
  return bool(values.get('scale_decoder_outputs', tied))


def _settle_head(config: T5Config, files: dict[str, stream.Lazy]):
  """Finds out whether the head is the embedding, and gives it if it is not.

  Folders of v1.1 may lack a head that equals the embedding; those of v1.0 may
  store one, equal or not.
  """
  head, embedding = files.get('lm_head.weight'), files.get('shared.weight')
  if embedding is None:  # the report will say so
    return config, files
  files = dict(files)
  if not config.tied_head:
    files.setdefault('lm_head.weight', embedding)
  elif head is not None and head.shape == embedding.shape:
    if _equal(head, embedding):
      del files['lm_head.weight']
    else:
      config = dataclasses.replace(config, tied_head=False)
      files['lm_head.weight'] = _scaled(head, config.width**-0.5)
  return config, files


def _equal(a: stream.Lazy, b: stream.Lazy, rows: int = 4096) -> bool:
  windows = (
    (slice(i, min(i + rows, a.shape[0])), slice(0, a.shape[1]))
    for i in range(0, a.shape[0], rows)
  )
  return all(np.array_equal(a.read(w), b.read(w)) for w in windows)


def _scaled(leaf: stream.Lazy, factor: float) -> stream.Lazy:
  return dataclasses.replace(
    leaf, read=lambda window: leaf.read(window).astype(np.float32) * factor
  )


def _config_json(config: T5Config) -> dict[str, Any]:
  gated = config.mlp == 'gated-gelu'
  return {
    'architectures': ['T5ForConditionalGeneration'],
    'model_type': 't5',
    'vocab_size': config.vocab_size,
    'd_model': config.width,
    'd_kv': config.head_dim,
    'd_ff': config.mlp_dim,
    'num_heads': config.num_heads,
    'num_layers': config.num_encoder_layers,
    'num_decoder_layers': config.num_decoder_layers,
    'feed_forward_proj': config.mlp,
    'is_gated_act': gated,
    'dense_act_fn': 'gelu_new' if gated else 'relu',
    # Both: 5.0 reads only the second, 4 only the first.
    'tie_word_embeddings': config.tied_head,
    'scale_decoder_outputs': config.tied_head,
    'relative_attention_num_buckets': config.num_buckets,
    'relative_attention_max_distance': config.max_distance,
    'dropout_rate': config.dropout,
    'is_encoder_decoder': True,
    **FIXED,
  }
