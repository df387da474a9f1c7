"""The house rules that a machine can check."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'kaleido_jax'
FILES = sorted(PACKAGE.rglob('*.py'))

# Top to bottom: a module may import what stands below it, in its own layer as
# well. `models` and `diffusion` list their files, because they are read in this
# order; in other folders only cycles are forbidden.
HOUSE = (
  ('main',),
  (
    'studio',
    'compile',
    'train',
    'trials',
    'evaluate',
    'evaluation',
    'sample',
    'export',
    'api',
    'options',
    'batches',
    'prompts',
    'reading',
    'pictures',
    'loading',
    'render',
    'steering',
    'generate',
    'initial',
    'origins',
    'exported',
    'state',
    'progress',
    'flops',
    'objective',
    'profile',
    'boards',
    'bucket',
  ),
  (
    'metrics.features',
    'extract',
    'data',
    'convert',
    'models.kaleido',
    'models.adaptation',
    'models.decoding',
    'models.vq',
    'models.mlp',
    'models.nested_unet',
    'models.unet',
    'models.unet_blocks',
    'models.t5',
    'models.t5_layers',
    'models.layers',
  ),
  (
    'sheet',
    'diffusion',
    'metrics',
    'latents',
    'hosts',
    'sharding',
    'collectives',
    'checkpoint',
    'arrays',
  ),
)
ORDER = [room for layer in HOUSE for room in layer]

# Who may know what (DESIGN P1). Everyone else does not import it.
OWNERS = {
  'absl.flags': ('main', 'data'),
  'ml_collections': (
    *('main', 'train', 'sample', 'evaluate', 'compile', 'api', 'origins'),
    'options',
    'evaluation',
    'export',
    'loading',
    'models.kaleido',  # builds the model that a configuration describes
  ),
  'orbax': ('checkpoint',),
  'torch': ('extract', 'metrics.features'),
  'transformers': ('extract',),
  'gradio': ('studio',),
  'grain': ('data',),
  'tensorflow_datasets': ('data',),
  'sentencepiece': ('latents.tokens', 'data.train_vocabulary'),
  'flax': (
    *('models', 'convert', 'train', 'state', 'data', 'api'),
    *('initial', 'origins', 'exported'),  # trees by their paths
    'sharding',  # where the axes lie that models name
    'metrics.features',
  ),
}


def module_name(path: pathlib.Path) -> str:
  """kaleido_jax/models/t5.py -> models.t5; packages by their folder."""
  parts = path.relative_to(PACKAGE).with_suffix('').parts
  return '.'.join(part for part in parts if part != '__init__')


def imports(path: pathlib.Path) -> set[str]:
  """Everything a file imports, wherever in it, as dotted names."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{path}: relative import'
      found |= {f'{node.module}.{alias.name}' for alias in node.names}
  return found


def own_imports(path: pathlib.Path) -> set[str]:
  """The modules of this package that a file imports."""
  modules = {module_name(file) for file in FILES}
  found = set()
  for name in imports(path):
    if not name.startswith('kaleido_jax.'):
      continue
    name = name.removeprefix('kaleido_jax.')
    # `from kaleido_jax.models.t5 import T5`: the module, not the member.
    found.add(name if name in modules else name.rpartition('.')[0])
  return found - {''}


def room(name: str) -> str:
  """Where in the house a module stands."""
  parts = name.split('.')
  for length in range(len(parts), 0, -1):
    candidate = '.'.join(parts[:length])
    if candidate in ORDER:
      return candidate
  raise AssertionError(f'{name} has no place in the house: add it to HOUSE')


def below(importer: str, imported: str) -> bool:
  here, there = room(importer), room(imported)
  return here == there or ORDER.index(here) < ORDER.index(there)


@pytest.mark.parametrize('path', FILES, ids=module_name)
def test_imports_go_down(path):
  name = module_name(path)
  if not name or name == 'models':
    return
  upward = {other for other in own_imports(path) if not below(name, other)}
  assert not upward, f'{name} imports from above: {sorted(upward)}'


def test_the_layer_check_sees_an_upward_import():
  assert not below('models.layers', 'models.t5')
  assert not below('diffusion.loss', 'models.unet')
  assert not below('models.kaleido', 'train')
  assert below('train', 'diffusion.loss')


def test_there_are_no_cycles():
  graph = {module_name(path): own_imports(path) for path in FILES}

  def reachable(start):
    seen, stack = set(), list(graph[start])
    while stack:
      name = stack.pop()
      if name not in seen:
        seen.add(name)
        stack.extend(graph.get(name, ()))
    return seen

  assert not [name for name in graph if name and name in reachable(name)]


@pytest.mark.parametrize('path', FILES, ids=module_name)
def test_nobody_knows_what_is_not_theirs(path):
  name = module_name(path)
  for library, owners in OWNERS.items():
    used = any(f'{found}.'.startswith(f'{library}.') for found in imports(path))
    allowed = any(f'{name}.'.startswith(f'{owner}.') for owner in owners)
    assert allowed or not used, f'{name} imports {library}'


def test_the_diffusion_core_is_pure():
  allowed = {'jax', 'numpy', 'jaxtyping', 'einops', 'kaleido_jax'}
  standard = {
    'collections',
    'dataclasses',
    'fractions',
    'functools',
    'itertools',
  }
  for path in (PACKAGE / 'diffusion').glob('*.py'):
    roots = {name.partition('.')[0] for name in imports(path)}
    foreign = roots - allowed - standard - {'math', 'typing'}
    assert not foreign, f'{path.name} imports {sorted(foreign)}'


def test_what_workers_import_asks_for_no_devices():
  """Sources and recipes are numpy; only the training of vokens is jax."""
  for path in (PACKAGE / 'data').rglob('*.py'):
    roots = {name.partition('.')[0] for name in imports(path)}
    assert path.stem == 'train_vokens' or not roots & {'jax', 'flax'}, path.name


@pytest.mark.parametrize('path', FILES, ids=module_name)
def test_files_are_short(path):
  assert len(path.read_text().splitlines()) <= 350


def test_there_is_no_room_for_odds_and_ends():
  names = {path.stem for path in FILES}
  assert not names & {'utils', 'common', 'helpers', 'misc', 'registry'}


def test_importing_the_package_is_light():
  """`import kaleido_jax` in a notebook should not start an accelerator."""
  light = "import sys, kaleido_jax; assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, '-c', light], cwd=ROOT, check=True)
