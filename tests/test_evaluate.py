"""--mode=evaluate on a small model: drawn once, shared, reported whole."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import small_models
import small_runs

from kaleido_jax import evaluate, exported, loading
from kaleido_jax.evaluation import drawn, plan, report, scores
from kaleido_jax.metrics import features, frechet, precision_recall, similarity


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return small_models.export(tmp_path_factory.mktemp('runs') / 'small')


@pytest.fixture
def config(folder, monkeypatch):
  """Few pictures, looked at by something quick."""

  def apply(params, images):
    x = np.asarray(images, np.float32) / 255
    return {'features': x.reshape(len(x), 4, 8, 4, 8, 3).mean((2, 4))[:, 0, 0]}

  toy = features.Extractor('corner', 'none', apply, {})
  monkeypatch.setattr(features, 'create', lambda name, path: toy)
  config = loading.config_of(folder)
  config.evaluate.update(
    guidance=(1.0, 3.0),
    ways=('', 'cads'),
    num_captions=6,
    per_caption=3,
    real=20,
    resamples=10,
    steps=2,
  )
  return config


def test_every_setting_is_drawn_scored_and_reported(folder, config, tmp_path):
  evaluate.run(config, workdir=[folder], out=str(tmp_path))
  results = report.read(tmp_path)
  assert [(r.way, r.guidance) for r in results] == [
    *(('', 1.0), ('', 3.0), ('cads', 1.0), ('cads', 3.0))
  ]
  for result in results:
    assert set(result.figures) == set(scores.NAMES)
    assert all(i.low <= i.high for i in result.figures.values())
  text = (tmp_path / 'results.csv').read_text()
  rows = list(csv.DictReader(text.splitlines()))
  assert float(rows[2]['vendi']) == results[2].figures['vendi'].value
  about = json.loads((tmp_path / 'results.json').read_text())['about']
  assert about['extractor'] == 'corner (none)' and about['captions'] == 6
  assert about['real'].startswith('20 of shapes-')

  text = (tmp_path / 'results.md').read_text()
  assert text.count('| cads |') == 2 and 'FID' not in text
  for name in ('curves.png', 'grid.png'):
    assert (tmp_path / name).stat().st_size > 5000


def test_what_is_there_is_not_drawn_again(folder, config, tmp_path):
  config.evaluate.update(ways=('',), guidance=(3.0,))
  evaluate.run(config, workdir=[folder], out=str(tmp_path / 'a'))
  (part,) = (exported.home(folder) / 'evaluation/drawn').glob('guidance-3-*/0*')
  before = part.stat().st_mtime_ns
  evaluate.run(config, workdir=[folder], out=str(tmp_path / 'b'))
  assert part.stat().st_mtime_ns == before
  a, b = (report.read(tmp_path / name) for name in 'ab')
  assert a == b
  # Another seed, other pictures.
  config.evaluate.seed = 1
  evaluate.run(config, workdir=[folder], out=str(tmp_path / 'c'))
  assert report.read(tmp_path / 'c') != a


def test_the_last_of_two_processes_reports(
  folder, config, tmp_path, monkeypatch
):
  """Though neither was the last with each setting."""
  monkeypatch.setattr(drawn, 'PART', 9)
  config.evaluate.update(ways=('',), guidance=(1.5, 2.5))
  jobs, _ = evaluate.prepared(config.evaluate, [folder])
  # The other has been through with its part of the second setting already.
  drawn.draw(jobs[1].model, jobs[1].asked, jobs[1].folder, share=(1, 2))
  drawn.draw(jobs[0].model, jobs[0].asked, jobs[0].folder, share=(1, 2))
  evaluate.run(config, workdir=[folder], out=str(tmp_path), part='0/2')
  assert len(report.read(tmp_path)) == 2
  assert len({asked.prompt for asked in jobs[0].asked}) == 6


def test_processes_share_the_parts(folder, config, tmp_path, monkeypatch):
  monkeypatch.setattr(drawn, 'PART', 5)
  config.evaluate.update(ways=('',), guidance=(2.0,))
  evaluate.run(config, workdir=[folder], out=str(tmp_path), part='1/2')
  (at,) = (exported.home(folder) / 'evaluation/drawn').glob('guidance-2-*')
  assert sorted(file.name for file in at.iterdir()) == [
    *('00001.npz', '00003.npz')
  ]
  assert not (tmp_path / 'results.json').exists()
  evaluate.run(config, workdir=[folder], out=str(tmp_path), part='0/2')
  assert len(report.read(tmp_path)) == 1


def test_figures_are_those_of_the_metrics(config):
  random = np.random.default_rng(0)
  real, fake = random.normal(size=(40, 5)), random.normal(size=(8, 4, 5)) + 0.2
  found = scores.of(real, fake, config.evaluate)
  flat = fake.reshape(32, 5)
  expected = precision_recall.score(real, flat) | {
    'frechet': frechet.distance(real, flat),
    'vendi': similarity.mean_over(fake, similarity.vendi),
    'mss': similarity.mean_over(fake, lambda x: similarity.mss(x).pairs),
  }
  for name, value in expected.items():
    assert found[name].value == pytest.approx(value)


def test_what_cannot_be_evaluated_is_a_sentence(folder, config):
  for changed, message in (
    ({'ways': ('magic',)}, "ways names 'magic'; there are apart"),
    ({'guidance': ()}, 'guidance is empty'),
    ({'num_captions': 1}, 'num_captions=1 is too small; give 2'),
    ({'real': 3}, 'real=3 is too small; give 4'),
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
