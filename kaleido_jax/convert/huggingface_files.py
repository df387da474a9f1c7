"""The weight files of a Hugging Face folder, opened but not read.

model.safetensors, or shards with model.safetensors.index.json, or the older
pytorch_model.bin, whole or in shards.
"""

import json
import pathlib
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from kaleido_jax.convert import stream, torch_file

# What safetensors calls the types that weights may have.
SAFETENSORS_DTYPES = {
  'F64': np.dtype(np.float64),
  'F32': np.dtype(np.float32),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
}


def open_folder(folder: pathlib.Path) -> dict[str, stream.Lazy]:
  """All tensors of a folder, by name; none of them read."""
  for name, opener in (
    ('model.safetensors', _open_safetensors),
    ('pytorch_model.bin', _open_bin),
  ):
    if (folder / name).exists():
      return opener(folder / name)
    index = folder / f'{name}.index.json'
    if index.exists():
      shards = read_json(index).get('weight_map', {})
      tensors = {}
      for shard in sorted(set(shards.values())):
        if not (folder / shard).exists():
          lost = [k for k, v in shards.items() if v == shard]
          raise ValueError(
            f'{folder / shard} is missing: {index.name} says that it holds '
            f'{len(lost)} tensors, {lost[0]} among them; download it again.'
          )
        tensors |= opener(folder / shard)
      return tensors
  raise ValueError(
    f'{folder} has neither model.safetensors nor pytorch_model.bin, whole or '
    'in shards; give the folder of a T5 model with its weights.'
  )


def _open_safetensors(path: pathlib.Path) -> dict[str, stream.Lazy]:
  try:
    archive = safe_open(path, 'np')
  except SafetensorError as error:
    raise ValueError(
      f'{path} is not a readable safetensors file ({error}); download it again.'
    ) from error

  def lazy(name: str) -> stream.Lazy:
    part = archive.get_slice(name)
    return stream.Lazy(
      shape=tuple(part.get_shape()),
      dtype=SAFETENSORS_DTYPES.get(part.get_dtype(), part.get_dtype()),
      read=lambda window: part[window],
    )

  return {name: lazy(name) for name in archive.keys()}


def _open_bin(path: pathlib.Path) -> dict[str, stream.Lazy]:
  tensors = torch_file.state_dict(path)
  return {name: stream.in_memory(array) for name, array in tensors.items()}


def read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    return dict(json.loads(path.read_text()))
  except (TypeError, ValueError) as error:
    raise ValueError(f'{path} is broken ({error}); get it again.') from error
