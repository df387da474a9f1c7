"""A step is compiled from shapes alone, and what it needs is told."""

import importlib.util
import math
import subprocess
import sys
from types import SimpleNamespace

import jax
import pytest

from configs import imagenet, toy
from kaleido_jax import collectives, objective, sharding
from kaleido_jax import compile as compiling
from kaleido_jax import state as states
from kaleido_jax.data import sources
from kaleido_jax.models import kaleido


def config():
  made = toy.get_config()
  made.mesh.fsdp = -1
  made.model.denoiser.num_layers = 1
  return made


def mesh_of(made):
  return sharding.create_mesh(made.mesh, jax.devices())


@pytest.mark.parametrize('made', [toy.get_config(), toy.get_config('mdm')])
def test_the_shapes_of_a_batch_are_those_of_a_batch(made):
  source = sources.batches(made)
  arrays = next(iter(source)).arrays
  source.close()
  shapes = objective.batch_shapes(made)
  found = {name: (a.shape, a.dtype) for name, a in arrays.items()}
  assert found == {name: (s.shape, s.dtype) for name, s in shapes.items()}


def compiled(made):
  return compiling.lower(
    made, kaleido.from_config(made), mesh_of(made)
  ).compile({'exec_time_optimization_effort': made.compile.effort})


@pytest.fixture(scope='module')
def step():
  return compiled(config())


def test_arguments_are_the_state_and_the_batch_as_they_lie(step):
  made = config()
  mesh, model = mesh_of(made), kaleido.from_config(made)
  used = compiling.memory(step)

  def on_first(tree):
    first = jax.devices()[0]
    return sum(
      shard.data.nbytes
      for leaf in jax.tree.leaves(tree)
      for shard in leaf.addressable_shards
      if shard.device == first
    )

  state = on_first(states.init(made, model, mesh))
  batch = sum(
    math.prod(shape.shape) * shape.dtype.itemsize
    for shape in objective.batch_shapes(made).values()
  )
  assert used.arguments == state + batch // 8
  # What is donated is where the new state goes.
  assert used.shared == pytest.approx(state, abs=64)
  assert used.temporaries > 0
  assert used.total == (
    used.arguments + used.outputs - used.shared + used.temporaries
  )


def test_everything_is_told(capsys):
  compiling.run(config(), workdir='')
  text = capsys.readouterr().out
  for line in (
    'sharding on data=1 x fsdp=8',
    'arguments',
    'temporaries',
    'TFLOP',
    'all-gather',
    'all-reduce',
  ):
    assert line in text


def traffic(step) -> int:
  found = collectives.read(step.as_text())
  assert 'all-gather' in found
  return sum(kind.num_bytes for kind in found.values())


@pytest.mark.slow  # a large program
def test_weights_travel_and_activations_do_not(step):
  # Sixteen times as many examples, and as much traffic.
  larger = config()
  larger.data.batch_size *= 16
  assert traffic(compiled(larger)) == pytest.approx(traffic(step), rel=0.02)


@pytest.mark.parametrize('step', ['imagine', 'render'])
def test_sampling_is_compiled_too(step, capsys):
  made = config()
  made.compile.step = step
  compiling.run(made, workdir='')
  assert 'temporaries' in capsys.readouterr().out


def test_what_is_no_step_is_refused():
  made = config()
  made.compile.step = 'trian'
  with pytest.raises(ValueError, match="'trian' is not one of .*'render'"):
    compiling.run(made, workdir='')


def test_what_does_not_fit_is_refused_with_advice(step, monkeypatch):
  made = config()
  made.mesh.fsdp = 2
  made.compile.memory = 1e-4
  lowered = SimpleNamespace(compile=lambda options: step)
  monkeypatch.setattr(compiling, 'lower', lambda *_: lowered)
  with pytest.raises(ValueError) as error:
    compiling.run(made, workdir='')
  text = str(error.value)
  assert 'a step needs' in text and 'which has 0.00' in text
  assert 'config.mesh.data=1, config.mesh.fsdp=8' in text
  assert "config.model.decoder.remat='full'" in text
  assert 'config.optimizer.accumulate=2' in text


def test_advice_is_not_what_is_done_already():
  made = imagenet.get_config()
  made.mesh.update(data=-1, fsdp=8)
  made.data.batch_size = 8
  made.model.decoder.update(remat='full', lora_rank=4)
  made.model.denoiser.remat = made.model.denoiser.inner_unet.remat = 'full'
  text = compiling.advice(made, mesh_of(made))
  assert text == 'Use more devices, or a smaller model.'


@pytest.mark.parametrize(
  'message, remedy',
  [
    ('TPU support not installed', "pip install 'kaleido_jax\\[tpu\\]'"),
    ('accessing libtpu multi-process lockfile', 'one at a time'),
    ('Unsupported topology', 'v5p:4x4x4'),
  ],
)
def test_what_libtpu_refuses_has_a_remedy(monkeypatch, message, remedy):
  from jax.experimental import topologies

  def refuse(**_):
    raise RuntimeError(message)

  monkeypatch.setattr(topologies, 'get_topology_desc', refuse)
  with pytest.raises(ValueError, match=remedy):
    compiling.find_devices('v5p:2x2x1')


@pytest.mark.parametrize(
  'message',
  [
    'XLA:TPU compile permanent error. Ran out of memory in memory space hbm. '
    'Used 20.15G of 15.75G hbm. Exceeded by 4.40G.',
    'Ran out of memory on HBM, the total memory required for HLO temporaries '
    '(20.15G) exceeds available HBM (15.75G).',
  ],
)
def test_xlas_refusal_is_a_sentence(message):
  made = config()
  error = RuntimeError(f'RESOURCE_EXHAUSTED: {message}')
  text = compiling.refusal(made, mesh_of(made), error)
  assert text.startswith('a step needs 20.15G of each device, which has 15.75G')


def test_other_errors_of_xla_stay():
  made = config()
  assert compiling.refusal(made, mesh_of(made), RuntimeError('else')) is None


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason="needs the TPU compiler: pip install -e '.[tpu]'",
)
@pytest.mark.parametrize('topology', ['v4:2x2x2', 'v5e:2x4'])
def test_a_step_is_compiled_for_tpus_that_are_not_here(topology):
  command = [
    *(sys.executable, '-m', 'kaleido_jax.main', '--mode=compile'),
    *('--config=configs/toy.py', '--config.mesh.fsdp=-1'),
    f'--config.compile.topology={topology}',
  ]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'for 8 devices of kind TPU' in done.stdout
