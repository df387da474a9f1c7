"""Traffic is read from compiled programs whose traffic is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from kaleido_jax import collectives
from kaleido_jax.collectives import Traffic

ROWS, COLUMNS = 16, 32
WHOLE = ROWS * COLUMNS * 4  # bytes


def compiled(function, inside, outside) -> str:
  mesh = Mesh(np.asarray(jax.devices()), ('x',))
  mapped = jax.shard_map(
    function, mesh=mesh, in_specs=inside, out_specs=outside, check_vma=False
  )
  x = jax.ShapeDtypeStruct(
    (ROWS, COLUMNS), jnp.float32, sharding=NamedSharding(mesh, inside)
  )
  return jax.jit(mapped).lower(x).compile().as_text()


def gather(x):
  return jax.lax.all_gather(x, 'x', tiled=True)


def reduce(x):
  return jax.lax.psum(x, 'x')


def scatter(x):
  return jax.lax.psum_scatter(x, 'x', tiled=True)


def shift(x):
  return jax.lax.ppermute(x, 'x', [(i, (i + 1) % 8) for i in range(8)])


@pytest.mark.parametrize(
  'function, inside, outside, kind, num_bytes',
  [
    (gather, P('x'), P(), 'all-gather', WHOLE),
    (reduce, P(), P(), 'all-reduce', WHOLE),
    (scatter, P(), P('x'), 'reduce-scatter', WHOLE),
    (shift, P('x'), P('x'), 'collective-permute', WHOLE // 8),
  ],
)
def test_each_kind_counts_once_with_its_whole_array(
  function, inside, outside, kind, num_bytes
):
  found = collectives.read(compiled(function, inside, outside))
  assert found == {kind: Traffic(1, 1, num_bytes)}


def test_what_a_scan_repeats_counts_as_often():
  def repeated(x):
    return jax.lax.scan(lambda x, _: (jnp.sin(reduce(x)), None), x, length=5)[0]

  found = collectives.read(compiled(repeated, P(), P()))
  assert found == {'all-reduce': Traffic(1, 5, 5 * WHOLE)}


def test_a_program_of_one_device_has_no_traffic():
  text = jax.jit(jnp.sin).lower(1.0).compile().as_text()
  assert collectives.read(text) == {}
  assert 'none' in collectives.table({})


TPU = """
HloModule m, entry_computation_layout={(bf16[8,4]{1,0})->bf16[8,4]{1,0}}

ENTRY %main.1 (p: bf16[8,4]) -> bf16[64,4] {
  %p = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(0)
  %ag = (bf16[8,4]{1,0}, bf16[64,4]{1,0}) all-gather-start(%p), dimensions={0}
  %done = bf16[64,4]{1,0:T(8,128)} all-gather-done(%ag)
  %again = bf16[64,4]{1,0} while(%done), condition=%test.1, body=%layer.1
  ROOT %copy = bf16[64,4]{1,0} copy(%again)
}

%layer.1 (q: bf16[64,4]) -> bf16[64,4] {
  %rs = bf16[8,4] reduce-scatter(%q), replica_groups=mesh['a'=8,'b'=2] {'a'}
}

%test.1 (i: s32[]) -> pred[] {
  %n = s32[]{:T(128)} constant(24)
  ROOT %lt = pred[]{:T(512)} compare(%i, %n), direction=LT
}
"""


@pytest.mark.parametrize(
  'line, kind',
  [
    (
      '((bf16[64,4]{1,0}), bf16[8,4]{1,0}) reduce-scatter-start(%x)',
      'reduce-scatter',
    ),
    ('((bf16[64,4]{1,0}), bf16[64,4]{1,0}) all-to-all-start(%x)', 'all-to-all'),
  ],
)
def test_what_is_begun_and_done_later_counts_once(line, kind):
  text = f'ENTRY %main (x: bf16[64,4]) -> bf16[8,4] {{\n  %a = {line}\n}}\n'
  assert collectives.read(text) == {kind: Traffic(1, 1, 64 * 4 * 2)}


def test_halves_and_loops_are_read_as_tpus_write_them():
  whole = 64 * 4 * 2
  assert collectives.read(TPU) == {
    'all-gather': Traffic(1, 1, whole),
    'reduce-scatter': Traffic(1, 24, 24 * whole),
  }
