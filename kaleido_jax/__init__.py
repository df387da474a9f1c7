"""Kaleido Diffusion: an autoregressive model chooses, a diffusion model draws.

Paper: Gu et al., 2024, https://arxiv.org/abs/2405.21048
"""

from typing import Any

__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
  """`kaleido_jax.load`; jax is imported when it is asked for."""
  if name in ('load', 'Kaleido'):
    from kaleido_jax import api

    return getattr(api, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
