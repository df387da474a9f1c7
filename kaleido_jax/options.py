"""What a request changes of config.sample, by name."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from kaleido_jax import loading, render, steering

# What a picture remembers of config.sample, beside its methods.
SETTINGS = (
  *('guidance', 'steps', 'solver', 'spacing'),
  *('threshold', 'quantile', 'ceiling', 'temperature', 'top_k', 'top_p'),
)


def asked(config: ConfigDict, changed: Mapping[str, Any]) -> ConfigDict:
  """config.sample with these changes; refuses what cannot be done.

  A method takes a mapping of its numbers that differ, or True, or False; None
  changes nothing.
  """
  sample = config.sample.copy_and_resolve_references()
  changed = {name: v for name, v in changed.items() if v is not None}
  methods = changed.pop('methods', sample.methods)
  if isinstance(methods, str):
    raise ValueError(f"methods={methods!r} is no list; say ('{methods}',).")
  methods = set(methods)
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
  if name := steering.weaker(sample):
    sample.autoguidance.weaker = loading.pinned(name)
  return sample


def settings(
  sample: ConfigDict, own: Mapping[str, Any] = {}, said: Sequence[str] = ()
) -> dict[str, Any]:
  """How a picture is drawn: as flags say, or as it remembers, or as ever."""
  said = {field.removeprefix('sample.').partition('.')[0] for field in said}

  def chosen(name: str):
    if name in own and name not in said:
      return own[name]
    value = sample[name]
    return value.to_dict() if isinstance(value, ConfigDict) else value

  found = {name: chosen(name) for name in SETTINGS}
  methods = set(chosen('methods'))
  if 'methods' not in own:  # those of which it says something are meant
    methods |= {n for n in steering.METHODS if own.get(n) not in (None, False)}
  found['methods'] = sorted(methods)
  found |= {
    name: chosen(name) for name in found['methods'] if name in steering.METHODS
  }
  weaker = found.get('autoguidance')
  if isinstance(weaker, Mapping) and weaker.get('weaker'):
    found['autoguidance'] = {'weaker': loading.pinned(weaker['weaker'])}
  return found | {
    n: v for n, v in own.items() if n not in {*found, *steering.METHODS}
  }


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
