"""What a request changes of config.sample, by name."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from kaleido_jax import render, steering


def asked(config: ConfigDict, changed: Mapping[str, Any]) -> ConfigDict:
  """config.sample with these changes; refuses what cannot be done.

  A method takes a mapping of its numbers that differ, or True, or False; None
  changes nothing.
  """
  sample = config.sample.copy_and_resolve_references()
  changed = {name: v for name, v in changed.items() if v is not None}
  methods = set(changed.pop('methods', sample.methods))
  for name, value in changed.items():
    if name not in sample:
      raise ValueError(
        f'there is no option {name!r}; there are {", ".join(sorted(sample))}.'
      )
    if name in steering.METHODS:
      methods = methods - {name} if value is False else methods | {name}
      _update(sample[name], {} if isinstance(value, bool) else value, name)
    else:
      _update(sample, {name: value})
  sample.methods = tuple(sorted(methods))
  render.check(sample, config.diffusion.num_times)
  return sample


def _update(section: ConfigDict, values: Any, path: str = '') -> None:
  """Sets fields that there are, to values of their types."""
  if not isinstance(values, Mapping):
    raise ValueError(
      f'{path}={values!r:.40} should name numbers, as in {section.to_dict()}; '
      'or be True, or False.'
    )
  for name, value in values.items():
    if name not in section:
      raise ValueError(f'{path} has no {name!r}; it has {", ".join(section)}.')
    value = value.item() if hasattr(value, 'item') else value  # numpy's
    if isinstance(section[name], int) and isinstance(value, float):
      value = int(value) if value.is_integer() else value
    try:
      section.update({name: value})
    except TypeError as error:
      kind = type(section[name]).__name__
      where = f'{path}.{name}'.strip('.')
      raise ValueError(f'{where}={value!r:.40} is no {kind}.') from error
