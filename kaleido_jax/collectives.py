"""What devices send each other: read from a compiled program, as XLA prints it.

An operation inside a scanned layer stands in the text once and runs as often as
there are layers; `times` counts that, and so do the bytes.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = (
  'all-gather',
  'all-reduce',
  'all-to-all',
  'collective-broadcast',
  'collective-permute',
  'ragged-all-to-all',
  'reduce-scatter',
)
_OPERATION = re.compile(
  rf'= (?P<type>.*?) (?P<kind>{"|".join(KINDS)})(?:-start)?\('
)
_ARRAY = re.compile(r'\b(pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]')
# {{0,1},{2,3}}, or [2,2]<=[4], or mesh['a'=2,'b'=2] {'b'}.
_GROUP = re.compile(
  r'replica_groups=(?:\{\{(?P<list>[\d,]*)\}|\[\d+,(?P<size>\d+)\]|'
  r'mesh\[(?P<mesh>[^\]]*)\] \{(?P<axes>[^}]*)\})'
)
_CALLED = re.compile(
  r'\b(?:body|condition|calls|to_apply|true_computation|false_computation|'
  r'branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)'
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r'\bcondition=%?([\w.\-]+)')
_BOUND = re.compile(r'= s32\[\]\S* constant\((\d+)\)')


class Traffic(NamedTuple):
  """All operations of one kind."""

  count: int  # in the program
  times: int  # in one run of it
  num_bytes: int  # of the arrays that they put together or reduce, in one run


def read(text: str) -> dict[str, Traffic]:
  """The traffic of a compiled program, by kind; kinds that it lacks are not."""
  found: dict[str, Traffic] = {}
  computations, entry = _computations(text)
  often = _often(computations, entry)
  for name, lines in computations.items():
    for line in lines:
      if match := _OPERATION.search(line):
        kind, times = match['kind'], often.get(name, 0)
        num_bytes = times * _size(match['type'], kind, line)
        old = found.get(kind, Traffic(0, 0, 0))
        new = Traffic(1, times, num_bytes)
        found[kind] = Traffic(*map(sum, zip(old, new, strict=True)))
  return found


def table(traffic: dict[str, Traffic]) -> str:
  """Traffic, the heaviest kind first."""
  row = '  {:<24}{:>8}{:>8}{:>14}'
  lines = [row.format('collectives of a device', 'count', 'times', 'GB')]
  for kind, t in sorted(traffic.items(), key=lambda item: -item[1].num_bytes):
    lines.append(row.format(kind, t.count, t.times, f'{t.num_bytes / 1e9:.3f}'))
  return '\n'.join(lines if traffic else [*lines, '  none'])


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """The lines of every computation, and the one that is run."""
  computations: dict[str, list[str]] = {}
  entry, lines = '', []
  for line in text.splitlines():
    if line.endswith('{') and not line.startswith((' ', 'HloModule')):
      first = line.removeprefix('ENTRY ').split(' ', 1)[0]
      name = first.split('(', 1)[0].removeprefix('%')
      lines = computations[name] = []
      if line.startswith('ENTRY'):
        entry = name
    else:
      lines.append(line)
  return computations, entry


def _often(computations: dict[str, list[str]], entry: str) -> dict[str, int]:
  """How many times each computation runs."""
  often = dict.fromkeys(computations, 0)

  def visit(name: str, times: int) -> None:
    often[name] += times
    for line in computations[name]:
      inside = times * _trips(line, computations)
      for called in _called(line):
        if called in computations:
          visit(called, inside)

  visit(entry, 1)
  return often


def _trips(line: str, computations: dict[str, list[str]]) -> int:
  """How many times a loop runs; 1 for what is none, or if nobody knows."""
  if trips := _TRIPS.search(line):
    return int(trips[1])
  if condition := _CONDITION.search(line):
    # TPUs do not say it. A scan counts from 0, and its condition is i < n.
    test = '\n'.join(computations.get(condition[1], ()))
    bounds = _BOUND.findall(test)
    if len(bounds) == 1 and 'direction=LT' in test:
      return int(bounds[0])
  return 1


def _called(line: str) -> Iterator[str]:
  for match in _CALLED.finditer(line):
    yield from re.findall(r'[\w.\-]+', match[1])


def _size(kinds: str, kind: str, line: str) -> int:
  """Bytes of the whole array: gathered, or before it is scattered."""
  sizes = [
    math.prod(int(n) for n in shape.split(',') if n)
    * (1 if name == 'pred' else int(bits) / 8)
    for name, bits, shape in _ARRAY.findall(kinds)
  ]
  started = f' {kind}-start(' in line
  given, result = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
  if started and kind == 'all-gather':
    total = sum(result)  # of a pair: what was given, and all of it gathered
  elif started and kind in ('reduce-scatter', 'all-to-all'):
    total = sum(given)
  elif started and kind == 'collective-permute':
    total = max(sizes)  # beside it are numbers of state
  else:
    total = sum(sizes)
    if kind == 'reduce-scatter' and (group := _GROUP.search(line)):
      total *= _members(group)
  return int(total)


def _members(group: re.Match) -> int:
  """How many devices work together."""
  if group['size']:
    return int(group['size'])
  if group['axes']:
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", group['mesh']))
    axes = re.findall(r"'(\w+)'", group['axes'])
    return math.prod(int(sizes[axis]) for axis in axes)
  return group['list'].count(',') + 1
