"""Matryoshka Diffusion weights (apple/ml-mdm): PyTorch's names and layout.

`load` takes the reference's configuration, as JSON, and a state dict of numpy
arrays; `torch_file.read` gets one from a `vis_model_*.pth` file. `save` is the
way back. Names differ little, so the map is mechanical:

  inner_unet.down_blocks.1.attn.0.ffn.1.weight   (O, I, 1, 1)
  inner_unet/down_blocks_1/attn_0/ffn_in/kernel  (I, O)
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from kaleido_jax.convert import report as reports
from kaleido_jax.convert import stream
from kaleido_jax.models.nested_unet import NestedUNet
from kaleido_jax.models.unet import UNet

# Layers that the reference numbers and we name.
RENAMED = {
  'ffn.0': 'ffn_norm',
  'ffn.1': 'ffn_in',
  'ffn.3': 'ffn_out',
  'mlp.main.0': 'mlp_norm',
  'mlp.main.1': 'mlp_in',
  'mlp.main.3': 'mlp_out',
}


def load(
  config: Mapping[str, Any],
  state_dict: Mapping[str, np.ndarray],
  *,
  strict: bool = True,
  source: str = 'the MDM state dict',
  **overrides,
) -> tuple[UNet, dict]:
  """Builds the denoiser that a reference configuration describes, with weights.

  Args:
    config: the JSON form of the reference's UNetConfig or NestedUNetConfig.
    state_dict: PyTorch names to arrays.
    strict: raise if a tensor is missing, extra or mis-shaped; otherwise print
      the report, and leave what does not fit at its initial value.
    source: what messages call the weights.
    **overrides: fields of all U-Nets that no configuration has: dtype, remat.

  Returns:
    (module, params), for `module.apply({'params': params}, xs, times, ...)`.
  """
  config = _with_condition_width(config, state_dict)
  module = denoiser(config, **overrides)
  params = abstract_params(module, config)
  given = {k: v for k, v in state_dict.items() if not _unused(k, config)}
  report = reports.compare(
    source,
    shapes(params),
    {name: np.shape(array) for name, array in given.items()},
  ).check(strict=strict)
  for name in given:
    stream.check_floating(source, name, np.asarray(given[name]).dtype)
  if not report.clean:
    print(report)
    initial = jax.jit(_initialiser(module, config))(jax.random.key(0))
    unfit = {*report.missing, *(name for name, *_ in report.mismatched)}
    given |= {k: v for k, v in to_torch(initial).items() if k in unfit}
  return module, from_torch(params, given)


def from_torch(
  params: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]
) -> dict:
  """Fills a tree of parameters, of which only the names matter."""
  flat = traverse_util.flatten_dict(dict(params))
  return traverse_util.unflatten_dict(
    {
      path: jnp.asarray(_to_ours(path, state_dict), jnp.float32)
      for path in flat
    }
  )


def fill(
  target: Mapping[str, Any],
  state_dict: Mapping[str, np.ndarray],
  *,
  source: str = 'the MDM state dict',
) -> dict:
  """Puts weights into a tree of `jax.ShapeDtypeStruct`, sharded as it says.

  The model is known already: its configuration is ours. Tensors that are
  missing, extra or mis-shaped are refused.
  """
  found = {name: np.shape(array) for name, array in state_dict.items()}
  reports.compare(source, shapes(target), found).check(strict=True)
  for name, array in state_dict.items():
    stream.check_floating(source, name, np.asarray(array).dtype)
  flat = traverse_util.flatten_dict(dict(target))
  return traverse_util.unflatten_dict(
    {
      path: stream.place(stream.in_memory(_to_ours(path, state_dict)), leaf)
      for path, leaf in flat.items()
    }
  )


def save(module: UNet, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The state dict of a denoiser's parameters, as PyTorch names them."""
  if not isinstance(module, UNet):
    raise ValueError(
      f'{type(module).__name__} has no counterpart in the reference; only UNet '
      'and NestedUNet can be saved in its format.'
    )
  return to_torch(params)


def to_torch(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The way back of `from_torch`."""
  flat = traverse_util.flatten_dict(dict(params))
  return {
    _torch_name(path): _to_torch(path, np.asarray(value))
    for path, value in flat.items()
  }


def shapes(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """PyTorch's names and shapes, from arrays or their abstract stand-ins."""
  flat = traverse_util.flatten_dict(dict(params))
  return {
    _torch_name(path): jax.eval_shape(partial(_to_torch, path), value).shape
    for path, value in flat.items()
  }


def denoiser(config: Mapping[str, Any], **overrides) -> UNet:
  """The module that a reference configuration describes."""
  for name in ('resolution_channels', 'attention_levels'):
    if name not in config:
      raise ValueError(
        f'the configuration has no {name}; give the JSON form of a UNetConfig '
        'or NestedUNetConfig of the reference.'
      )
  inner_config = config.get('inner_config')
  levels = len(config['resolution_channels'])
  resnet = config.get('resnet_config', {})
  attention = [
    layers if level in config['attention_levels'] else 0
    for level, layers in enumerate(
      _per_level(config.get('num_attention_layers', 1), levels)
    )
  ]
  if config.get('temporal_mode'):
    raise ValueError(
      'temporal_mode is set: video networks are not supported; no released '
      'configuration uses it.'
    )
  fields: dict[str, Any] = dict(
    channels=tuple(config['resolution_channels']),
    num_resnets=tuple(
      _per_level(config.get('num_resnets_per_resolution', 2), levels)
    ),
    num_attention=tuple(attention),
    embedding_dim=config.get('temporal_dim')
    or 4 * config['resolution_channels'][0],
    micro_conditions=_micro_conditions(config.get('micro_conditioning')),
    attention_ffn=bool(resnet.get('use_attention_ffn', False)),
    dropout=resnet.get('dropout', 0.0),
    groups=resnet.get('num_groups_norm', 32),
    conditional=_condition_width(config) > 0,
    **overrides,
  )
  if inner_config is None:
    projection = config.get('conditioning_feature_proj_dim', -1)
    return UNet(
      condition_dim=max(projection, 0),
      num_condition_blocks=config.get('num_lm_head_layers', 0),
      masked_condition=bool(config.get('masked_cross_attention', 1)),
      middle_blocks=not config.get('skip_mid_blocks', False),
      **fields,
    )
  if config.get('skip_inner_unet_input') or not config.get(
    'skip_cond_emb', True
  ):
    raise ValueError(
      'a nested configuration with skip_inner_unet_input=true or '
      'skip_cond_emb=false cannot be built: the reference itself fails on the '
      'first, and the second holds weights that nothing reads.'
    )
  # The reference hands the outer width on to the inner network (its trap 17).
  inner = {
    **inner_config,
    'conditioning_feature_dim': _condition_width(config),
  }
  return NestedUNet(
    inner_unet=denoiser(inner, **overrides),
    normalise_input=not config.get('skip_normalization', False),
    **fields,
  )


def abstract_params(module: UNet, config: Mapping[str, Any]) -> dict:
  """Shapes of the parameters; nothing is allocated."""
  return jax.eval_shape(_initialiser(module, config), jax.random.key(0))


def _initialiser(module: UNet, config: Mapping[str, Any]):
  ratios = []
  level = module
  while isinstance(level, NestedUNet):
    ratios.append(level.ratio)
    level = level.inner_unet
  size = 2 ** (len(level.channels) - 1)
  sizes = [size]
  for ratio in reversed(ratios):
    sizes.insert(0, sizes[0] * ratio)
  width = _condition_width(config)

  def init(key):
    xs = tuple(jax.random.normal(key, (1, s, s, 3)) for s in sizes)
    features = jnp.zeros((1, 1, width)) if width > 0 else None
    return module.init(key, xs, jnp.zeros(1), features)['params']

  return init


def _with_condition_width(
  config: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The reference's own files leave the language model's width at -1."""
  given = [k for k in state_dict if re.search(r'(^|\.)lm_proj\.weight$', k)]
  given += [k for k in state_dict if re.search(r'(^|\.)cond_emb\.weight$', k)]
  if config.get('conditioning_feature_dim', -1) > 0 or not given:
    return dict(config)
  width = np.shape(state_dict[given[0]])[1]
  return {**config, 'conditioning_feature_dim': width}


def _condition_width(config: Mapping[str, Any]) -> int:
  width = config.get('conditioning_feature_dim', -1)
  if 'inner_config' in config and width > 0:
    # An outer projection replaces the width without projecting anything.
    width = max(config.get('conditioning_feature_proj_dim', -1), 0) or width
  return width


def _per_level(value, levels: int) -> list[int]:
  return [value] * levels if isinstance(value, int) else list(value)


def _micro_conditions(text: str | None) -> tuple[tuple[str, float], ...]:
  pairs = [pair.split(':') for pair in text.split(',')] if text else []
  return tuple((name, float(default)) for name, default in pairs)


def _unused(name: str, config: Mapping[str, Any]) -> bool:
  """Tensors that the reference stores and never reads."""
  return bool(config.get('interp_conditioning')) and bool(
    re.search(r'(^|\.)interp_layer[12]\.', name)
  )


def _torch_name(path: tuple[str, ...]) -> str:
  *modules, leaf = path
  restored = []
  for module in modules:
    for theirs, ours in RENAMED.items():
      if module == ours:
        module = theirs
    module = re.sub(r'^micro_layers_(\w+)_(\d)$', r'cond_layers.\1.\2', module)
    module = re.sub(
      r'^(down_blocks|mid_blocks|up_blocks|resnets|attn|lm_head)_(\d+)$',
      r'\1.\2',
      module,
    )
    restored.append(module)
  name = '.'.join(restored)
  # In a condition block the attention is a module of its own.
  name = re.sub(r'(lm_head\.\d+)\.(norm|qkv|proj_out)$', r'\1.attn.\2', name)
  return f'{name}.{"bias" if leaf == "bias" else "weight"}'


def _is_pointwise(name: str) -> bool:
  """1x1 convolutions there, dense layers here."""
  return bool(
    re.search(
      r'(resnets\.\d+\.conv3|attn\.\d+\.(qkv|proj_out|ffn\.\d))\.', name
    )
  )


def _to_ours(path, state_dict) -> np.ndarray:
  name = _torch_name(path)
  value = np.asarray(state_dict[name])
  if path[-1] != 'kernel':
    return value
  if value.ndim == 4 and value.shape[2:] != (1, 1):
    return value.transpose(2, 3, 1, 0)
  return value.reshape(value.shape[:2]).T


def _to_torch(path, value):
  if path[-1] != 'kernel':
    return value
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)
  value = value.T
  pointwise = _is_pointwise(_torch_name(path))
  return value[..., None, None] if pointwise else value
