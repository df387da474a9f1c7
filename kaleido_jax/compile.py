"""What a run needs, before there are machines for it.

  python -m kaleido_jax.main --mode=compile --config=configs/imagenet.py \\
    --config.compile.topology=v5p:4x4x4

A step of training, or of sampling, is compiled ahead of time, for the named
TPUs or for this host's devices, from shapes alone: no data, no weights and no
TPU are needed, only libtpu (the extra `tpu`). Prints memory, operations and
traffic; a step that does not fit is an error, with what to change.
"""

import os
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kaleido_jax import (
  checkpoint,
  collectives,
  flops,
  generate,
  objective,
  sharding,
)
from kaleido_jax import state as states
from kaleido_jax.models import kaleido
from kaleido_jax.models.kaleido import Kaleido
from kaleido_jax.render import Render

# Bytes of one device, by its kind, that XLA gives to programs.
MEMORY = {
  'TPU v4': 31.75 * 2**30,
  'TPU v5 lite': 15.75 * 2**30,
  'TPU v5': 95.74 * 2**30,
  'TPU v6 lite': 31.25 * 2**30,
}


class Memory(NamedTuple):
  """Bytes of one device during a step."""

  arguments: int  # the state and the batch
  outputs: int  # the next state
  shared: int  # of the outputs: they lie where the state was
  temporaries: int
  total: int


def run(config: ConfigDict, *, workdir: str) -> None:
  """Compiles a step and prints what it needs."""
  del workdir  # nothing is kept
  devices = find_devices(config.compile.topology, config.mesh.slices)
  mesh = sharding.create_mesh(config.mesh, devices)
  batch_size, parts = config.data.batch_size, config.optimizer.accumulate
  sharding.check_batch(batch_size, mesh, parts)
  model = kaleido.from_config(config)
  shapes, _ = states.shardings(config, model, mesh)
  params = kaleido.join(shapes.trained, shapes.frozen)
  print(sharding.check(params, mesh, config.model.denoiser.kind))

  limit = room(config, devices[0])
  started = time.perf_counter()
  try:
    compiled = lower(config, model, mesh).compile(
      {'exec_time_optimization_effort': config.compile.effort}
    )
  except jax.errors.JaxRuntimeError as error:
    if sentence := refusal(config, mesh, error):
      raise ValueError(sentence) from error
    raise
  seconds = time.perf_counter() - started

  used = memory(compiled)
  kind = devices[0].device_kind
  print(
    f'compiled in {seconds:.0f} s for {len(devices)} devices of kind {kind}'
  )
  print(describe_memory(used, limit))
  print(describe_work(config, compiled, len(devices)))
  print(collectives.table(collectives.read(compiled.as_text())))
  if limit is not None and used.total > limit:
    raise ValueError(
      f'a step needs {used.total / 1e9:.2f} GB of each device, which has '
      f'{limit / 1e9:.2f}. {advice(config, mesh)}'
    )


def find_devices(topology: str, slices: int = 1) -> Sequence[Any]:
  """This host's devices, or those of a TPU topology such as 'v5p:4x4x4'."""
  if not topology:
    return jax.devices()
  # No TPU is here: nobody in the cloud is to be asked for one, and libtpu, told
  # that there is some, does not complain.
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
  os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
  os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5p-8')
  jax.config.update('jax_platforms', 'cpu')
  from jax.experimental import topologies

  extra = {'num_slices': slices} if slices > 1 else {}
  if topology.startswith('v4:'):
    extra['chip_config_name'] = 'megacore'  # one device per chip
  try:
    return topologies.get_topology_desc(
      platform='tpu', topology_name=topology, **extra
    ).devices
  except RuntimeError as error:
    raise ValueError(_no_topology(topology, str(error))) from error


def _no_topology(topology: str, message: str) -> str:
  if 'not installed' in message:
    return (
      f'config.compile.topology={topology} needs the TPU compiler: '
      "pip install 'kaleido_jax[tpu]'. It runs without a TPU."
    )
  if 'lockfile' in message:
    return (
      'another process uses libtpu, which serves one at a time. Wait until it '
      'is done; if there is none, delete /tmp/libtpu_lockfile. Where no TPU is '
      'in use, ALLOW_MULTIPLE_LIBTPU_LOAD=1 lets several compile at once.'
    )
  return (
    f'config.compile.topology={topology} is not known to libtpu; it looks like '
    f'v5p:4x4x4, v4:4x4x4, v5e:8x8 or v6e:8x8. It says: {message}'
  )


def lower(config: ConfigDict, model: Kaleido, mesh: Mesh) -> Any:
  """The step, traced on shapes that lie as arrays will."""
  name = config.compile.step
  if name not in STEPS:
    raise ValueError(
      f'config.compile.step={name!r} is not one of {list(STEPS)}.'
    )
  shapes, where = states.shardings(config, model, mesh)
  state = checkpoint.abstract(shapes, where)
  batch = {
    name: jax.ShapeDtypeStruct(
      array.shape, array.dtype, sharding=sharding.over_batch(mesh)
    )
    for name, array in objective.batch_shapes(config).items()
  }
  return STEPS[name](config, model, mesh, state, batch)


def _train(config, model, mesh, state, batch):
  # Which number separates the latents makes no difference here.
  step = states.build_step(config, model, mesh, separator=0)
  return step.lower(state, batch)


def _imagine(config, model, mesh, state, batch):
  if not config.latents:
    raise ValueError('a model without latents imagines nothing.')
  length = batch['z'].shape[1]
  step = generate.build_imagine(model, mesh, length)
  params, ids, rest = _sampled(state, batch)
  # Without its grammar, which only a vocabulary knows: a mask of the scores.
  prefix = jax.ShapeDtypeStruct(
    (ids.shape[0], 0), ids.dtype, sharding=ids.sharding
  )
  return step.lower(params, ids, *rest, generate.rule(config.sample), prefix)


def _render(config, model, mesh, state, batch):
  params, ids, rest = _sampled(state, batch)
  return Render(config, model, mesh).lower(
    *(params, ids, batch.get('z'), *rest), config.sample
  )


def _sampled(state, batch):
  """Parameters, captions, and (seed, indices)."""
  ids = batch['ids']
  indices = jax.ShapeDtypeStruct(
    ids.shape[:1], ids.dtype, sharding=ids.sharding
  )
  params = kaleido.join(state.ema, state.frozen)
  return params, ids, (np.uint32(0), indices)


STEPS = {'train': _train, 'imagine': _imagine, 'render': _render}


def memory(compiled) -> Memory:
  """What XLA has planned."""
  found = compiled.memory_analysis()
  arguments = found.argument_size_in_bytes
  outputs, shared = found.output_size_in_bytes, found.alias_size_in_bytes
  temporaries = found.temp_size_in_bytes
  total = arguments + outputs - shared + temporaries
  return Memory(arguments, outputs, shared, temporaries, total)


def room(config: ConfigDict, device: Any) -> float | None:
  """Bytes that a device has, if that is known."""
  if config.compile.memory:
    return config.compile.memory * 1e9
  if config.compile.topology:
    return MEMORY.get(device.device_kind)
  stats = device.memory_stats() or {}
  return stats.get('bytes_limit')


def describe_memory(used: Memory, limit: float | None) -> str:
  lines = [f'  {"memory of a device":<24}{"GB":>14}']
  for name, value in used._asdict().items():
    lines.append(f'  {name:<24}{value / 1e9:>14.3f}')
  has = 'unknown' if limit is None else f'{limit / 1e9:.2f}'
  return '\n'.join([*lines, f'  {"there is":<24}{has:>14}'])


def describe_work(config: ConfigDict, compiled, num_devices: int) -> str:
  """Operations, as the model needs them and as XLA counts them."""
  cost = compiled.cost_analysis() or {}
  rows = [
    ('as XLA sees it', cost.get('flops', 0) / 1e12, 'TFLOP, a scan once'),
    ('bytes accessed', cost.get('bytes accessed', 0) / 1e9, 'GB, a scan once'),
  ]
  if config.compile.step == 'train':
    needed = flops.per_step(config) / num_devices
    rows.insert(0, ('of the model', needed / 1e12, 'TFLOP'))
  head = '  work of a device, per step'
  return '\n'.join([head, *(f'  {n:<24}{v:>14.3f} {u}' for n, v, u in rows)])


def advice(config: ConfigDict, mesh: Mesh) -> str:
  """Fields that would make a step smaller, the cheapest first."""
  model, found = config.model, []
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  slices = config.mesh.slices
  if mesh.shape['data'] > slices:
    found.append(f'config.mesh.data={slices}')
    found.append(f'config.mesh.fsdp={parts // slices}')
  training = config.compile.step == 'train'
  if training:
    found += [
      f"config.model.{name}.remat='full'"
      for name, section in _trained(config).items()
      if section.get('remat', 'full') != 'full'
    ]
  micro = config.optimizer.accumulate if training else 1
  rows = config.data.batch_size // parts
  if training and rows % (2 * micro) == 0:
    found.append(f'config.optimizer.accumulate={2 * micro}')
  if rows > micro:
    half = max(rows // 2 // micro, 1) * micro
    found.append(f'config.data.batch_size={half * parts}')
  if training and config.latents and not model.decoder.lora_rank:
    found.append('config.model.decoder.lora_rank=16')
  if not found:
    return 'Use more devices, or a smaller model.'
  return 'What would help: ' + ', '.join(found) + '.'


def _trained(config: ConfigDict) -> dict[str, Any]:
  """The sections of networks that keep something for their gradients."""
  model = config.model
  sections = {}
  if not model.freeze_encoder:
    sections['encoder'] = model.encoder
  if config.latents:
    sections['decoder'] = model.decoder
  sections['denoiser'] = model.denoiser
  if 'inner_unet' in model.denoiser:
    sections['denoiser.inner_unet'] = model.denoiser.inner_unet
  return sections


def refusal(config: ConfigDict, mesh: Mesh, error: Exception) -> str | None:
  """What XLA says of too little memory, as a sentence; None if it is else."""
  message = str(error)
  found = re.search(r'Used ([\d.]+\w) of ([\d.]+\w) hbm', message)
  found = found or re.search(
    r'temporaries \(([\d.]+\w)\) exceeds available HBM \(([\d.]+\w)\)', message
  )
  if 'RESOURCE_EXHAUSTED' not in message or not found:
    return None
  return (
    f'a step needs {found[1]} of each device, which has {found[2]} '
    f'(G is 2^30). {advice(config, mesh)}'
  )
