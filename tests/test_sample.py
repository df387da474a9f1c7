"""Lists of pictures: interrupted, shared, edited, mistaken."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import small_models
import small_runs
from PIL import Image
from small_models import STEPS

from kaleido_jax import api, loading, main, options, pictures, prompts, sample
from kaleido_jax.latents import named
from kaleido_jax.pictures import Asked

pytestmark = pytest.mark.usefixtures('one_device')
ONE = {'prompt': ['a star']}
KINDS = tuple(map(named, ('text', 'bbox', 'color')))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return small_models.export(tmp_path_factory.mktemp('export'))


def run(folder, out, **asked):
  config = loading.config_of(folder)
  options = asked.pop('options', {})
  config.sample.update(options)
  said = [f'sample.{name}' for name in options]
  sample.run(config, workdir=folder, out=str(out), said=said, **asked)


def images(out):
  return [np.asarray(Image.open(path)) for path in sorted(out.glob('0*.png'))]


def near(a, b) -> None:
  """As alike as pictures are that were drawn in batches of other sizes."""
  difference = np.abs(a.astype(int) - b.astype(int))
  assert difference.max() <= 1 and (difference > 0).any(-1).mean() <= 0.01


@pytest.fixture(scope='module')
def drawn(folder, tmp_path_factory):
  """Two prompts, three pictures of each."""
  out = tmp_path_factory.mktemp('drawn')
  run(folder, out, prompt=['a red circle', 'a star'], num=3, seed=5)
  return out


def test_a_folder_says_what_is_in_it(folder, drawn):
  names = [path.name for path in sorted(drawn.iterdir())]
  assert names == [
    *(f'{n:06}.png' for n in range(6)), 'latents.json', 'sheet.png',
  ]  # fmt: skip
  asked = pictures.read(drawn / 'latents.json', KINDS)
  assert [(a.prompt, a.seed, a.index) for a in asked] == [
    (prompt, 5, n) for prompt in ('a red circle', 'a star') for n in range(3)
  ]
  assert {a.settings['steps'] for a in asked} == {STEPS}
  assert asked[0].model == folder and asked[0].step == 7
  model = api.load(folder)
  again = model.render('a star', [a.latents for a in asked[3:]])
  near(again, np.stack(images(drawn)[3:]))


def test_what_is_there_is_not_drawn_again(folder, drawn, tmp_path):
  asked = {'prompt': ['a red circle', 'a star'], 'num': 3, 'seed': 5}
  for name in ('000000.png', '000004.png', '000005.png'):
    (tmp_path / name).write_bytes((drawn / name).read_bytes())
  (tmp_path / '000001.png').write_bytes(b'half of a pic')
  Image.fromarray(images(drawn)[2]).save(tmp_path / '000002.png')  # whose?
  before = (tmp_path / '000004.png').stat().st_mtime_ns
  run(folder, tmp_path, **asked)
  assert (tmp_path / '000004.png').stat().st_mtime_ns == before
  for mine, theirs in zip(images(tmp_path), images(drawn), strict=True):
    difference = np.abs(mine.astype(int) - theirs.astype(int))
    assert difference.max() <= 1 and (difference > 0).mean() <= 0.01
  # Other settings are other pictures.
  run(folder, tmp_path, **asked, options={'guidance': 2.0})
  assert (tmp_path / '000004.png').stat().st_mtime_ns != before


def test_parts_share_a_list(folder, drawn, tmp_path):
  asked = {'prompt': ['a red circle', 'a star'], 'num': 3, 'seed': 5}
  run(folder, tmp_path, **asked, part='1/2')
  assert [p.stem for p in sorted(tmp_path.glob('*'))] == [
    *('000001', '000003', '000005'),
  ]
  run(folder, tmp_path, **asked, part='0/2')
  found = pictures.read(tmp_path / 'latents.json', KINDS)
  assert found == pictures.read(drawn / 'latents.json', KINDS)


def test_an_edited_list_is_drawn_from_the_same_noise(folder, drawn, tmp_path):
  entries = json.loads((drawn / 'latents.json').read_text())
  entries[1]['latents']['text'] = 'a large blue heart on white'
  (tmp_path / 'edited.json').write_text(json.dumps(entries))
  run(folder, tmp_path / 'out', latents=str(tmp_path / 'edited.json'))
  old, new = images(drawn), images(tmp_path / 'out')
  for n in (0, 2, 3, 4, 5):
    np.testing.assert_array_equal(old[n], new[n])
  assert (old[1] != new[1]).any()


def test_a_picture_can_be_handed_back(folder, drawn, tmp_path):
  png = str(drawn / '000002.png')
  run(folder, tmp_path / 'same', latents=png)
  (again,) = images(tmp_path / 'same')
  near(again, images(drawn)[2])
  # It remembers how it was drawn, and flags say otherwise.
  run(folder, tmp_path / 'other', latents=png, options={'guidance': 1.5})
  (other,) = pictures.read(tmp_path / 'other' / 'latents.json', KINDS)
  assert other.settings['guidance'] == 1.5 and other.settings['steps'] == STEPS
  run(folder, tmp_path / 'third', latents=str(tmp_path / 'other/000000.png'))
  (third,) = pictures.read(tmp_path / 'third' / 'latents.json', KINDS)
  assert third.settings['guidance'] == 1.5


def test_flags_say_otherwise_even_if_they_say_what_is_usual(folder):
  config = loading.config_of(folder).sample
  own = {'guidance': 1.5, 'methods': ['cads'], 'cads': {'scale': 0.1}}
  remembered = options.settings(config, own, [])
  assert remembered['guidance'] == 1.5 and remembered['steps'] == config.steps
  assert remembered['cads'] == {'scale': 0.1}
  said = options.settings(config, own, ['sample.guidance', 'sample.cads.scale'])
  assert said['guidance'] == config.guidance
  assert said['cads'] == config.cads.to_dict()
  unnamed = options.settings(config, {'cads': True, 'apg': False})
  assert unnamed['methods'] == ['cads'] and unnamed['cads'] is True
  without = options.settings(config, own, ['sample.methods'])
  assert without['methods'] == [] and 'cads' not in without


def test_an_edited_list_survives_the_command_that_made_it(folder, tmp_path):
  asked = {'prompt': ['a star'], 'num': 2}
  run(folder, tmp_path, **asked)
  (tmp_path / 'latents.json').write_text('[]')
  run(folder, tmp_path, **asked)
  assert (tmp_path / 'latents.json').read_text() == '[]'


def test_prompts_come_from_files(tmp_path):
  (tmp_path / 'a.txt').write_text('a star\n\na red circle\n')
  (tmp_path / 'a.csv').write_text('name,prompt\nx,"a star, blue"\n')
  (tmp_path / 'a.jsonl').write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n')
  assert prompts.listed(tmp_path / 'a.txt') == ['a star', 'a red circle']
  assert prompts.listed(tmp_path / 'a.csv') == ['a star, blue']
  assert prompts.listed(tmp_path / 'a.jsonl') == ['a', 'b']
  (tmp_path / 'b.TXT').write_bytes(b'\xef\xbb\xbfa star')
  assert prompts.listed(tmp_path / 'b.TXT') == ['a star']
  (tmp_path / 'd.txt').write_bytes('größer'.encode('latin-1'))
  with pytest.raises(ValueError, match='is no text in UTF-8'):
    prompts.listed(tmp_path / 'd.txt')
  request = sample.Request(prompts=str(tmp_path / 'a.txt'), num=2, seed=3)
  assert sample.asked(request, KINDS)[2:] == [
    Asked('a red circle', seed=3, index=i) for i in range(2)
  ]
  twice = sample.asked(sample.Request(prompt=['a star', 'a star']), KINDS)
  assert [asked.index for asked in twice] == [0, 1]
  for name, text, message in (
    ('b.csv', 'name\nx\n', r"has the columns \['name'\]"),
    ('b.jsonl', '{"prompt": "a"}\n{"promt": 3}\n', 'line 2: .*promt'),
    ('b.txt', '\n \n', 'has no prompts'),
    ('c.jsonl', '{"prompt": 3}\n', 'line 1: .*no object with'),
    ('c.csv', 'name,prompt\na,b\nc\n', 'line 3: there is no prompt'),
    ('d.csv', f'prompt\n{"a" * 200_000}\n', 'line 2: field larger than'),
    ('e.csv', 'prompt,seed\na,3\n', 'line 1: there is no seed in a list'),
    ('d.jsonl', '{"prompt": "a", "index": 1}\n', 'line 1: there is no index'),
  ):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
      prompts.listed(tmp_path / name)


def test_every_list_has_a_folder_of_its_own():
  first, second = (
    sample.default_folder(
      'pretrained:shapes', [Asked('A red  circle!', None, s)]
    )
    for s in (0, 1)
  )
  assert first.startswith('runs/pretrained-shapes/drawn/a-red-circle-')
  assert first != second


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ({}, 'what to draw'),
    ({'prompt': ['']}, 'the prompt is empty'),
    ({'prompt': ['a star'], 'prompts': 'x'}, 'Give one of'),
    ({**ONE, 'part': '2/2'}, '--part=2/2 is not of the form'),
    ({'latents': 'nowhere.json'}, 'there is no file nowhere.json'),
    ({**ONE, 'options': {'solver': 'euler'}}, "'euler' is not one"),
    ({**ONE, 'options': {'top_p': 0.0}}, 'top_p=0.0 makes no sense'),
    ({**ONE, 'seed': -1}, 'seed=-1 is no number of 0..'),
    ({'prompt': ['a star', 'a \x01']}, 'picture 1: the prompt'),
  ],
)
def test_mistakes_are_sentences_and_leave_nothing(
  folder, tmp_path, wrong, message
):
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    run(folder, tmp_path / 'out', **wrong)
  said = main.explain(error.value)
  assert said.startswith('error: ') and message in said
  assert not list(tmp_path.iterdir())


def test_a_line_of_the_contract_runs(folder, tmp_path):
  """Blanks between flags and values, and edited latents, too."""
  first = ['--workdir', folder, '--prompt', 'a red circle']
  done = call(*first, f'--out={tmp_path / "a"}', '--config.sample.guidance=2.0')
  assert done.returncode == 0, done.stderr
  edited = tmp_path / 'a' / 'latents.json'
  done = call(f'--workdir={folder}', f'--latents={edited}', f'--out={tmp_path}')
  assert done.returncode == 0, done.stderr
  a, b = images(tmp_path / 'a'), images(tmp_path)
  np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_second_process_compiles_no_large_program(folder, tmp_path):
  cache = tmp_path / 'cache'
  found = []
  for name, prompt in (('a', 'a star'), ('b', 'a red circle')):
    asked = [f'--workdir={folder}', f'--prompt={prompt}']
    done = call(
      *(*asked, f'--out={tmp_path / name}'),
      JAX_COMPILATION_CACHE_DIR=str(cache),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0.5',
    )
    assert done.returncode == 0, done.stderr
    found.append({path.name for path in cache.glob('*-cache')})
  assert found[0] and found[1] == found[0]


def test_what_is_not_of_sampling_is_refused(folder):
  done = call(f'--workdir={folder}', '--prompt=a', '--config.seed=3')
  assert done.returncode == 2 and 'stays as it was trained' in done.stderr


def test_a_workdir_is_asked_for():
  done = call('--prompt=a star')
  assert done.returncode == 2 and 'Give --workdir' in done.stderr + done.stdout
  done = call('--workdir=nowhere', '--prompt=a star')
  assert done.returncode == 2 and 'is no workdir of a run' in done.stderr


@pytest.mark.parametrize('saved', [(), ('500.orbax-checkpoint-tmp',)])
def test_a_run_before_its_first_save_is_a_sentence(folder, tmp_path, saved):
  workdir = tmp_path / 'run'
  (workdir / 'checkpoints').mkdir(parents=True)
  shutil.copy(pathlib.Path(folder) / 'config.json', workdir)
  for name in saved:
    (workdir / 'checkpoints' / name / 'ema').mkdir(parents=True)
  done = call(f'--workdir={workdir}', '--prompt=a star', f'--out={tmp_path}/o')
  assert done.returncode == 2, done.stderr
  assert (
    'Traceback' not in done.stderr and 'no complete checkpoint' in done.stderr
  )
  assert not (tmp_path / 'o').exists()


def call(*flags, **more: str):
  return subprocess.run(
    [sys.executable, '-m', 'kaleido_jax.main', '--mode=sample', *flags],
    cwd=small_runs.ROOT,
    env=small_runs.environment(1, **more),
    capture_output=True,
    text=True,
    timeout=300,
  )
