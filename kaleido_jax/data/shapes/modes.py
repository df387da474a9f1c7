"""How often the world of shapes hides what behind a caption, exactly.

  said = wording.read('a circle')
  modes.frequencies(said, 'colour')   # {'red': 0.42, 'orange': 0.28, ...}
  modes.typicality(said, 'colour')    # {'red': 1.57, 'orange': 4.0, ...}

By Bayes' rule over the tables of `world`; captions are worded without regard to
what they leave out, so only what they say counts.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence

from kaleido_jax.data.shapes import world
from kaleido_jax.data.shapes.world import Facts, Node, Thing


def frequencies(
  said: Facts, attribute: str, thing: int = 0
) -> dict[str, float]:
  """p(value | said), of a thing or of the background (tone, pattern)."""
  found = joint(said, [(attribute, thing)])
  return {value: found.get((value,), 0.0) for value in world.values(attribute)}


def typicality(said: Facts, attribute: str, thing: int = 0) -> dict[str, float]:
  """p(value | said) / p(value): what guidance prefers.

  The reference is all pictures with as many things, as for a model whose
  empty caption has seen everything. What never occurs has typicality 0.
  """
  anything = Facts(things=(Thing(),) * len(said.things))
  base = frequencies(anything, attribute, thing)
  found = frequencies(said, attribute, thing)
  return {v: found[v] / base[v] if base[v] else 0.0 for v in found}


def joint(said: Facts, asked: Sequence[Node]) -> dict[tuple[str, ...], float]:
  """p(values | said) of several nodes at once, such as ('colour', 1).

  The background's nodes are ('tone', 0) and ('pattern', 0).
  """
  count, known = len(said.things), _known(said)
  order = world.nodes(count)
  for node in asked:
    if node not in order:
      raise ValueError(
        f'there is no {node} in a scene of {count} things; ask for one of '
        f'{sorted({a for a, _ in order})} of a thing below {count}.'
      )
  needed = _ancestors({*asked, *known})
  totals: dict[tuple[str, ...], float] = collections.defaultdict(float)
  for chosen, chance in _worlds(
    [node for node in order if node in needed], count, known
  ):
    totals[tuple(chosen[node] for node in asked)] += chance
  whole = sum(totals.values())
  if not whole:
    raise ValueError(
      f'the world of shapes never shows {said}; see the tables in '
      'kaleido_jax/data/shapes/world.py.'
    )
  return {values: chance / whole for values, chance in totals.items()}


def _known(facts: Facts) -> dict[Node, str]:
  """What is said, node by node."""
  found = {
    (attribute, index): getattr(thing, attribute)
    for index, thing in enumerate(facts.things)
    for attribute in world.ATTRIBUTES
  }
  found |= {('tone', 0): facts.tone, ('pattern', 0): facts.pattern}
  return {node: value for node, value in found.items() if value is not None}


def _ancestors(nodes: set[Node]) -> set[Node]:
  """The nodes and all their causes. Whatever else there is sums to one."""
  found: set[Node] = set()
  while nodes:
    found |= nodes
    nodes = {cause for n in nodes for cause in world.causes(n)} - found
  return found


def _worlds(
  order: Sequence[Node], count: int, known: Mapping[Node, str]
) -> Iterator[tuple[dict[Node, str], float]]:
  """All choices that agree with what is known, with p(choices, known)."""
  if not order:
    yield {}, 1.0
    return
  *before, node = order
  for chosen, chance in _worlds(before, count, known):
    row = world.weights(node, count, chosen)
    whole = sum(row.values())
    for value, weight in row.items():
      if weight and known.get(node, value) == value:
        yield {**chosen, node: value}, chance * weight / whole
