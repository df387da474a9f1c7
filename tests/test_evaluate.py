"""--mode=evaluate on a small model: drawn once, shared, reported whole."""

import copy
import csv
import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_models
import small_runs

from kaleido_jax import api, evaluate, exported, loading
from kaleido_jax.evaluation import (
  compared,
  jobs,
  plan,
  report,
  scores,
  trainings,
)
from kaleido_jax.evaluation.drawn import Drawn
from kaleido_jax.metrics import features
from kaleido_jax.metrics.bootstrap import Resampled

SAMPLE = {'solver': 'ddim', 'spacing': 'x', 'steps': 2, 'temperature': 1.0}
pytestmark = pytest.mark.usefixtures('one_device')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return small_models.export(tmp_path_factory.mktemp('runs') / 'small')


@pytest.fixture
def config(folder, monkeypatch):
  """Few pictures, looked at by something quick."""

  def apply(params, images):
    x = np.asarray(images, np.float32) / 255
    return {'features': x.reshape(len(x), 4, 8, 4, 8, 3).mean((2, 4))[:, 0, 0]}

  toy = features.Extractor(
    *('corner', '0a1b2c3d', 'none', {'features': 'frechet'}, apply, {}),
    read=lambda captions: np.ones((len(captions), 3)),  # 'it is grey'
  )
  monkeypatch.setattr(features, 'create', lambda name, path: toy)
  config = loading.config_of(folder)
  config.evaluate.update(
    guidance=(1.0, 3.0),
    ways=('', 'cads'),
    num_captions=6,
    per_caption=3,
    real=20,
    resamples=10,
  )
  config.sample.steps = 2
  return config


def run(config, folder, out, part='0/1'):
  said = ('sample.steps',)  # as flags would have said it
  evaluate.run(config, workdir=[folder], out=str(out), part=part, said=said)


def drawn_of(folder):
  return exported.home(folder) / 'evaluation/drawn'


def test_every_setting_is_drawn_scored_and_reported(folder, config, tmp_path):
  run(config, folder, tmp_path)
  results = report.read(tmp_path)
  assert [(r.way, r.guidance) for r in results] == [
    *(('', 1.0), ('', 3.0), ('cads', 1.0), ('cads', 3.0))
  ]
  for result in results:
    # Not Inception's; and captions of shapes hide the tone of their ground.
    others = {'fid', 'sfid', 'kid', 'inception_score'}
    others |= {'blob_iou', 'blob_iou_other'}
    assert set(scores.NAMES) - set(result.figures) == others
    assert result.settings['steps'] == 2 and len(result.weights) == 8
    assert all(i.low <= i.high for i in result.figures.values())
    assert 50 < result.figures['text_match'].value < 100  # of what is bright
  text = (tmp_path / 'results.csv').read_text()
  rows = list(csv.DictReader(text.splitlines()))
  assert float(rows[2]['vendi']) == results[2].figures['vendi'].value
  saved = json.loads((tmp_path / 'results.json').read_text())
  about, ceiling = saved['about'], saved['ceiling']
  (perplexity,) = saved['perplexity'].values()
  assert [*perplexity] == ['text', 'bbox', 'color']
  assert about['extractor'] == 'corner-0a1b2c3d, none'
  assert about['captions'] == 6
  told = rf'{folder} by 7 updates, each of 32 examples and [\d.]+ GFLOP'
  assert re.fullmatch(told, about['trained'])
  assert about['resamples'] == '10 of captions, of distances 10'
  assert about['real'].startswith('20 of shapes-')
  # As many of the training split: they do not stand for one caption.
  assert re.match('18 of shapes-.*, train, at most 18,', about['ceiling'])
  assert set(ceiling) == set(result.figures) - {
    *('mss', 'mss_with_diagonal', 'vendi', 'text_match'),
    *('color_match', 'color_match_other', 'box_iou', 'box_iou_other'),
    'modes_distance',
  }

  text = (tmp_path / 'results.md').read_text()
  assert text.count('| real pictures | – | – |') == 1
  assert 'Beside guidance alone, of the same model' in text
  assert text.count('| cads |') == 4 and 'FID' not in text
  assert 'steps 2, temperature 1.0' in text
  for name in ('curves.png', 'grid.png', 'diversity.png', 'modes.png'):
    assert (tmp_path / name).stat().st_size > 5000


def test_models_stand_beside_the_first(tmp_path):
  random, told, results = np.random.default_rng(0), [], []
  sure = Resampled(2.0, np.full(200, 2.0)).interval()
  for name, recall in (('mdm', 0.0), ('kaleido', 0.2)):
    figures = {
      'frechet': Resampled(9 - recall, 9 + random.normal(size=20)),
      'recall': Resampled(recall, np.full(200, recall), (0.0, 1.0)),
    }
    if recall:  # a baseline has no latents that it could follow
      figures['color_match'] = Resampled(0.5, np.full(200, 0.5))
    for weight in (1.0, 4.0):
      told.append(compared.Scored(name, '', weight, figures))
      shown = {n: f.interval() for n, f in figures.items()}
      results.append(
        report.Result(name, 7, 'aa', '', weight, SAMPLE, figures=shown)
      )
  beside = list(compared.of(told, 'mdm'))
  priors = {'mdm': {}, 'kaleido': {'text': sure}}
  report.write(tmp_path, results, {}, {}, beside, priors)
  text = (tmp_path / 'results.md').read_text()
  assert 'Beside mdm, by the same choices of captions' in text
  assert text.count('| kaleido | guidance | 4 | -0.2 [') == 1
  assert '| inf [inf, inf] |' in text
  assert '| model | text ↓ |\n| --- | --- |\n| kaleido | 2 [2, 2] |' in text
  assert re.findall(r'\| (mdm|kaleido).*(–|0.5 \[0.5, 0.5\]) \|', text) == [
    *[('mdm', '–')] * 2,
    *[('kaleido', '0.5 [0.5, 0.5]')] * 2,
  ]
  lines = (tmp_path / 'results.csv').read_text().splitlines()
  (row, *_) = csv.DictReader(lines)
  assert row['recall'] == '0.0' and row['color_match'] == ''
  saved = json.loads((tmp_path / 'results.json').read_text())['compared']
  assert [(c['model'], c['guidance']) for c in saved] == [
    *(('kaleido', 1.0), ('kaleido', 4.0))
  ]
  assert saved[0]['ratios']['recall'] == [None] * 3  # over nothing
  assert saved[0]['differences']['frechet'][0] == pytest.approx(-0.2)


def test_runs_of_other_seeds_are_one_model(folder):
  first = api.load(folder)
  others = copy.copy(first), copy.copy(first)
  for seed, other in enumerate(others, start=1):
    other.name, other.config = 'abc'[seed], copy.deepcopy(first.config)
    other.config.seed = seed
  b, c = others
  b.config.update(train={'save_every': 7}, data={'path': 'elsewhere'})
  models = [first, b, c]
  names = (first.name, 'b', 'c')
  assert trainings.groups(models) == {f'{first.name}, 3 trainings': names}
  c.config.seed = 1  # an export of b
  pair = {f'{first.name}, 2 trainings': names[:2]}
  assert trainings.groups(models) == pair
  c.config.update(seed=2, eta=0.5)  # another loss is another model
  assert trainings.groups(models) == pair
  b.config.train.num_steps += 1  # its rate has not fallen yet
  assert not trainings.groups(models)
  b.config.train.num_steps -= 1
  b.step = 8
  assert not trainings.groups(models)


def test_means_stand_beside_that_of_the_first():
  random, scored = np.random.default_rng(0), []
  for name, mean in (('mdm', 2.0), ('a', 3.0), ('b', 3.2), ('c', 4.0)):
    figure = Resampled(mean, mean + 0.1 * random.normal(size=200))
    scored.append(compared.Scored(name, '', 4.0, {'vendi': figure}))
  groups = {'a, 2 trainings': ('a', 'b')}
  (mean,) = trainings.of(groups, scored)
  assert mean.model == 'a, 2 trainings' and mean.guidance == 4
  assert mean.figures['vendi'].interval().value == pytest.approx(3.1)
  # Of a first that was trained once nobody knows how lucky it was.
  assert not trainings.with_first(groups, 'mdm')
  assert not list(compared.of([mean], trainings.with_first(groups, 'mdm')))
  assert 'mdm was trained once' in trainings.told(groups, 'mdm')
  groups = {'mdm, 2 trainings': ('mdm', 'c'), **groups}
  means = list(trainings.of(groups, scored * 2))  # a run may be given twice
  assert len(means) == 2
  first = trainings.with_first(groups, 'c')
  assert first == 'mdm, 2 trainings'
  (found,) = compared.of(means, first)
  assert (found.model, found.other) == ('a, 2 trainings', first)
  assert found.ratios['vendi'].value == pytest.approx(2.1 / 2)  # above 1


@pytest.mark.slow  # the parts: above, tests/metrics/test_repeated.py
def test_what_was_trained_twice_has_a_row_of_its_own(folder, config, tmp_path):
  params, own = api.load(folder).params, loading.config_of(folder)
  for name, change in (('a', 0.0), ('b', 1e-2)):
    changed = jax.tree.map(lambda x, by=change: x + by, params)
    own.seed += 1
    exported.write(str(tmp_path / name), own, changed, step=7)
  runs = [str(tmp_path / name) for name in 'ab']
  config.evaluate.update(ways=('',))
  evaluate.run(config, workdir=runs, out=str(tmp_path), said=('sample.steps',))
  *single, one, three = report.read(tmp_path)
  assert len(single) == 4 and (one.guidance, three.guidance) == (1, 3)
  assert one.runs == three.runs == runs
  values = [r.figures['vendi'].value for r in single if r.guidance == 1]
  assert one.figures['vendi'].value == pytest.approx(np.mean(values))
  text = (tmp_path / 'results.md').read_text()
  assert f'| {runs[0]}, 2 trainings, step 7 | guidance | 3 |' in text
  assert 'its interval is of captions and trainings' in text


@pytest.mark.slow  # of lists of pictures: test_sample
def test_what_is_there_is_not_done_again(folder, config, tmp_path):
  config.evaluate.update(ways=('',), guidance=(3.0,))
  run(config, folder, tmp_path / 'a')
  (part,) = drawn_of(folder).glob('guidance-3-*/0*.npz')
  (seen,) = drawn_of(folder).glob('guidance-3-*/corner-0a1b2c3d/0*.npz')
  before = part.stat().st_mtime_ns, seen.stat().st_mtime_ns
  run(config, folder, tmp_path / 'b')
  assert before == (part.stat().st_mtime_ns, seen.stat().st_mtime_ns)
  a, b = (report.read(tmp_path / name) for name in 'ab')
  assert a == b
  # Another seed, other pictures.
  config.evaluate.seed = 1
  run(config, folder, tmp_path / 'c')
  assert report.read(tmp_path / 'c') != a


def test_what_was_drawn_with_other_weights_is_drawn_again(folder, config):
  """A run that was begun anew may be of the same name and step."""
  model = api.load(folder)
  weights, setting = plan.digest(model), plan.settings(config.evaluate)[0]
  asked = plan.asked(model, ['a circle'], setting, config.evaluate)
  name = plan.folder(model, weights, setting, asked)
  model.params = jax.tree.map(lambda x: x + 1e-3, model.params)
  other = plan.digest(model)
  assert other != weights
  assert plan.folder(model, other, setting, asked) != name


def test_what_is_not_finite_is_no_picture(folder, config, tmp_path):
  """Nor is it kept, to be scored as a grey one."""
  model = api.load(folder)
  model.params = jax.tree.map(lambda x: x * np.nan, model.params)
  setting = plan.settings(config.evaluate)[0]
  asked = plan.asked(model, ['a circle'], setting, config.evaluate)
  drawn = Drawn(model, asked, tmp_path, each=3)
  with pytest.raises(ValueError, match='drawn is not finite'):
    drawn.draw()
  assert not list(tmp_path.rglob('*.npz'))


def test_models_draw_alike_side_by_side(folder, tmp_path):
  other = shutil.copytree(folder, tmp_path / 'other')
  saved = json.loads((other / 'config.json').read_text())
  saved['sample'].update(steps=9, guidance=2.0)
  (other / 'config.json').write_text(json.dumps(saved))
  a, b = api.load(folder), api.load(str(other))
  with pytest.raises(ValueError, match='with steps=4, and .*other with 9: for'):
    jobs.agree([a, b])
  b.config.sample.steps = 4
  jobs.agree([a, b])  # the weight is what a setting says


@pytest.mark.slow  # of sampling: test_sample
def test_the_last_of_four_processes_reports(
  folder, config, tmp_path, monkeypatch
):
  """Each does its parts of everything; captions are not cut in two."""
  monkeypatch.setattr('kaleido_jax.evaluation.drawn.PART', 5)  # of 3 each
  monkeypatch.setattr('kaleido_jax.evaluation.reference.PART', 7)
  config.evaluate.update(ways=('',), guidance=(1.5, 2.5), batch_size=5)
  run(config, folder, tmp_path, part='1/4')
  (at,) = drawn_of(folder).glob('guidance-1.5-*')
  names = [f'0000{n}-of-00006.npz' for n in (1, 5)]
  assert sorted(file.name for file in at.glob('*.npz')) == names
  assert sorted(file.name for file in at.glob('*/*.npz')) == names
  for part in ('3/4', '0/4'):
    run(config, folder, tmp_path, part=part)
    assert not (tmp_path / 'results.json').exists()
  run(config, folder, tmp_path, part='2/4')
  assert len(report.read(tmp_path)) == 2
  # The same as of one process.
  shutil.rmtree(exported.home(folder) / 'evaluation')
  run(config, folder, tmp_path / 'one')
  for a, b in zip(
    *(report.read(tmp_path), report.read(tmp_path / 'one')), strict=True
  ):
    assert a.settings == b.settings
    for name, interval in a.figures.items():
      assert list(interval) == pytest.approx(
        list(b.figures[name]), rel=1e-6, abs=1e-9
      ), name


def test_a_way_changes_fields_and_methods(folder, config):
  model = api.load(folder)
  setting = plan.Setting('cads+temperature=0.5+solver=sde-dpm+++steps=7', 3.0)
  (one, *_) = plan.asked(model, ['a circle'], setting, config.evaluate)
  assert one.settings['methods'] == ['cads']
  assert one.settings['temperature'] == 0.5
  assert one.settings['solver'] == 'sde-dpm++' and one.settings['steps'] == 7
  assert one.settings['guidance'] == 3


def test_what_cannot_be_evaluated_is_a_sentence(folder, config):
  for changed, message in (
    ({'ways': ('magic',)}, "ways names 'magic'; there are apart"),
    ({'guidance': ()}, 'guidance is empty'),
    ({'num_captions': 1}, 'num_captions=1 is too small; give 2'),
    ({'ceiling': 'test'}, "ceiling='test' is the split that is compared"),
    ({'matched': True, 'reference': 'a.npz'}, 'a.npz has no captions'),
    ({'real': 3}, 'real=3 is too small; give 4'),
    ({'neighbours': 6, 'num_captions': 2, 'per_caption': 3}, 'are too few'),
  ):
    wanted = loading.config_of(folder).evaluate
    wanted.update(changed)
    with pytest.raises(ValueError, match=message):
      plan.check(wanted)
  done = subprocess.run(
    [sys.executable, '-m', 'kaleido_jax.main', '--mode=evaluate']
    + [f'--workdir={folder}', '--config.evaluate.extractor=resnet'],
    cwd=small_runs.ROOT,
    env=small_runs.environment(devices=1),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and "no extractor 'resnet'" in done.stderr
