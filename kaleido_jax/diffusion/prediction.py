"""Three ways to say the same thing: the image x_0, the noise eps, and v.

With x_t = alpha x_0 + sigma eps known, each determines the other two;
v = alpha eps - sigma x_0 (arXiv:2202.00512) is the one that is never 0 / 0,
whence the released networks predict it.
"""

import jax.numpy as jnp
from jaxtyping import Float

from kaleido_jax.arrays import Array

X = Float[Array, 'b ...']
Coefficient = Float[Array, '...']  # broadcasts against the images

TO_X0 = {
  'x0': lambda x0, xt, alpha, sigma: x0,
  'eps': lambda eps, xt, alpha, sigma: (xt - sigma * eps) / alpha,
  'v': lambda v, xt, alpha, sigma: alpha * xt - sigma * v,
}

FROM_X0 = {
  'x0': lambda x0, xt, alpha, sigma: x0,
  'eps': lambda x0, xt, alpha, sigma: (xt - alpha * x0) / sigma,
  'v': lambda x0, xt, alpha, sigma: (alpha * xt - x0) / sigma,
}

TARGETS = {
  'x0': lambda x0, eps, alpha, sigma: x0,
  'eps': lambda x0, eps, alpha, sigma: eps,
  'v': lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
}

# |d x_0 / d prediction|: how far an error of the prediction moves the image.
GAINS = {
  'x0': lambda alpha, sigma: jnp.ones_like(sigma),
  'eps': lambda alpha, sigma: sigma / alpha,
  'v': lambda alpha, sigma: sigma,
}


def check(kind: str) -> str:
  """Returns the name of a prediction, if it is one."""
  if kind not in TARGETS:
    raise ValueError(
      f'prediction {kind!r} is unknown; choose one of {", ".join(TARGETS)}.'
    )
  return kind


def convert(
  value: X,
  xt: X,
  alpha: Coefficient,
  sigma: Coefficient,
  *,
  given: str,
  wanted: str,
) -> X:
  """Says in terms of `wanted` what `value` says in terms of `given`."""
  if check(given) == check(wanted):
    return value
  x0 = TO_X0[given](value, xt, alpha, sigma)
  return FROM_X0[wanted](x0, xt, alpha, sigma)
