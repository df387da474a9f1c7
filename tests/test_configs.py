import importlib
import math
import pathlib
import re

import jax
import pytest
from ml_collections import ConfigDict

from kaleido_jax.models import kaleido

ROOT = pathlib.Path(__file__).parent.parent
VARIANTS = [
  ('default', ()),
  ('imagenet', ()),
  ('imagenet', ('mdm',)),
  ('cc12m', ('64',)),
  ('cc12m', ('256',)),
  ('toy', ()),
  ('toy', ('mdm',)),
]


def load(name: str, variant: tuple[str, ...]) -> ConfigDict:
  return importlib.import_module(f'configs.{name}').get_config(*variant)


def count(config: ConfigDict) -> dict[str, int]:
  model = kaleido.from_config(config)
  params = jax.eval_shape(
    lambda key: kaleido.init_params(model, key, config.image_shapes),
    jax.random.key(0),
  )
  return {
    part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    for part, tree in params.items()
  }


def leaves(section) -> set[str]:
  found = set()
  for key, value in section.items():
    found |= leaves(value) if isinstance(value, ConfigDict) else {key}
  return found


def test_every_configuration_is_listed_here():
  names = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  assert names == {name for name, _ in VARIANTS}


@pytest.mark.parametrize('name, variant', VARIANTS)
def test_it_builds_without_allocating(name, variant):
  config = load(name, variant)
  counts = count(config)
  assert ('decoder' in counts) is bool(config.latents)
  if name in ('default', 'imagenet'):
    assert counts['denoiser'] == 452_458_822  # appendix B.1
    assert counts['encoder'] == 1_223_527_424  # T5-XL


def test_the_64_model_of_cc12m_is_inside_the_256_one():
  small, large = load('cc12m', ('64',)), load('cc12m', ('256',))
  assert large.model.denoiser.inner_unet == small.model.denoiser


@pytest.mark.parametrize('name', ['imagenet', 'toy'])
def test_an_unknown_variant_is_refused(name):
  with pytest.raises(ValueError, match="'mbm' is not 'mdm'"):
    load(name, ('mbm',))


def test_every_field_is_read():
  """A field that nothing reads would be ignored in silence."""
  source = '\n'.join(
    path.read_text() for path in (ROOT / 'kaleido_jax').rglob('*.py')
  )
  words = set(re.findall(r'\w+', source))
  assert leaves(load('default', ())) <= words


def test_values_are_of_kinds_that_the_command_line_can_override():
  def check(section):
    for key, value in section.items():
      if isinstance(value, ConfigDict):
        check(value)
      else:
        assert isinstance(value, str | int | float | bool | tuple), key

  check(load('default', ()))
