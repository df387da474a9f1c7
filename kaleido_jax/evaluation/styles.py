"""Whose style an emoji has: a linear classifier of what the extractor sees.

Trained on the captions that the models have trained on, held to account on
those that nobody has seen.
"""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from kaleido_jax.data.emoji import vendors
from kaleido_jax.evaluation.seen import Features, Seen

PICTURES = 4_096  # that it learns from
STEPS = 200  # of L-BFGS
DECAY = 1e-3  # of the kernel, against few pictures and many numbers


class Styles:
  """The sets of `data/emoji/vendors.py`."""

  what = 'style'

  def __init__(self, train: Seen, held_out: Seen):
    """Of references, whose keys say the set."""
    self.needs = self._train, self._held_out = train, held_out
    self.names = [each.name for each in vendors.SETS]

  def learn(self) -> str:
    x, y = self._train.read()['features'], self._labels(self._train)
    self._tell = fit(x, y, len(self.names))
    self._told = self._tell(self._held_out.read()['features'])
    right = self._told == self._labels(self._held_out)
    return (
      f'styles by a linear classifier of {len(x)} pictures, right in '
      f'{right.mean():.1%} of {len(right)} held out'
    )

  def read(self, images, seen: Features) -> Int[np.ndarray, ' n']:
    del images
    return self._tell(seen['features'])

  def truth(self, captions: Sequence[str]) -> Float[np.ndarray, 'captions n']:
    counts = collections.defaultdict(lambda: np.zeros(len(self.names)))
    said = self._held_out.pictures.said
    for (_, caption), number in zip(said, self._told, strict=True):
      counts[caption][number] += 1
    return np.stack([counts[c] / counts[c].sum() for c in captions])

  def _labels(self, seen: Seen) -> Int[np.ndarray, ' n']:
    return np.array([self._number(key) for key, _ in seen.pictures.said])

  def _number(self, key: str) -> int:
    """'noto-v1-1f431' is of noto-v1, not of noto."""
    own = [name for name in self.names if key.startswith(f'{name}-')]
    return self.names.index(max(own, key=len))


def fit(x: Float[np.ndarray, 'n d'], y: Int[np.ndarray, ' n'], classes: int):
  """-> a function of features: the most likely class of each."""
  middle, spread = x.mean(0), x.std(0) + 1e-6

  def scaled(x):
    return (x - middle) / spread

  params = {
    'kernel': jnp.zeros((x.shape[1], classes)),
    'bias': jnp.zeros(classes),
  }
  params = _minimised(
    lambda params, x, y: (
      optax.softmax_cross_entropy_with_integer_labels(
        _logits(params, x), y
      ).mean()
      + DECAY * (params['kernel'] ** 2).sum()
    ),
    *(params, jnp.asarray(scaled(x)), jnp.asarray(y)),
  )
  return lambda x: np.asarray(_logits(params, scaled(x)).argmax(1))


def _logits(params, x):
  return x @ params['kernel'] + params['bias']


def _minimised(loss, params: Any, x, y) -> Any:
  optimizer = optax.lbfgs()

  def value(params):
    return loss(params, x, y)

  @jax.jit
  def step(params, state):
    now, gradient = optax.value_and_grad_from_state(value)(params, state=state)
    updates, state = optimizer.update(
      *(gradient, state, params), value=now, grad=gradient, value_fn=value
    )
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  for _ in range(STEPS):
    params, state = step(params, state)
  return params
