"""What a run leaves in its workdir, and what it refuses to find there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs

from configs import toy
from kaleido_jax import checkpoint, loading, objective, progress, train
from kaleido_jax.models import kaleido


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('finished')
  fields = {'train.num_steps': 4, 'train.save_every': 2}
  small_runs.run(folder, **fields, **{'train.keep': 0, 'train.sample_count': 0})
  return folder


def test_an_earlier_checkpoint_is_read_if_asked_for(finished):
  earlier, last = (loading.load(str(finished), step=n) for n in (2, None))
  assert (earlier.step, last.step) == (2, 4)
  assert loading.pinned(str(finished)) == f'{finished}@4'
  a, b = (x.params['encoder']['token_embedder'] for x in (earlier, last))
  assert (np.asarray(a['embedding']) != np.asarray(b['embedding'])).any()


def test_a_field_that_is_younger_than_the_run_binds_nobody():
  before, now = {'a': {'b': 1}}, {'a': {'b': 2, 'new': 3}, 'newer': {'c': 4}}
  assert train.differences(before, now) == ['a.b was 1 and is 2']
  assert train.differences(now, before)[1:] == [
    'a.new was 3 and is None',
    "newer was {'c': 4} and is None",
  ]


def opened(folder, **changed) -> None:
  train.open_workdir(small_runs.config(**changed), str(folder))


def test_no_sheets_and_all_checkpoints_if_asked_for(finished):
  assert len(progress.read(finished)) == 4
  assert not (finished / 'samples').exists()
  with checkpoint.Checkpoints(str(finished / 'checkpoints')) as saved:
    assert saved.all() == [2, 4]


@pytest.mark.parametrize(
  'field, value',
  [
    ('diffusion.prediction', 'eps'),
    ('diffusion.num_times', 10),
    ('data.vocabulary', ''),
    ('model.denoiser.width', 16),
  ],
)
def test_parameters_that_would_mean_something_else_are_refused(
  finished, field, value
):
  with pytest.raises(ValueError, match=f'another model: {field} was .* and is'):
    opened(finished, **{field: value})


def test_what_saves_memory_may_change_and_moved_data_are_told(finished, caplog):
  opened(finished, **{'model.encoder.remat': 'full'})
  assert 'do not go on' not in caplog.text
  opened(finished, seed=7)
  assert "do not go on where they were: ['seed was 0 and is 7']" in caplog.text


def test_what_a_kill_has_left_of_a_save_binds_nobody(tmp_path):
  opened(tmp_path)
  (tmp_path / 'checkpoints' / '8.orbax-checkpoint-tmp-1').mkdir(parents=True)
  opened(tmp_path, **{'model.denoiser.width': 16})


def test_a_solver_that_there_is_not_ends_a_run_before_it_begins(tmp_path):
  with pytest.raises(ValueError, match='dpm'):
    small_runs.run(tmp_path, **{'sample.solver': 'dpm'})
  assert not checkpoint.has_saved(str(tmp_path))
  assert progress.read(tmp_path) == []


def test_a_run_that_diverges_tells_so():
  sums = {'tokens': 1.0, 'right': 0.0, 'loss': 800.0}
  told = objective.readable({f'sum/text/{n}': v for n, v in sums.items()})
  assert told['perplexity/text'] == np.inf


@pytest.mark.parametrize(
  'rate', [0.5, pytest.param(0.0, marks=pytest.mark.slow)]
)
def test_dropout_acts_in_training_alone(rate):
  config = toy.get_config()
  config.data.batch_size = 4
  config.model.denoiser.update(width=16, num_layers=1)
  config.model.decoder.dropout = rate
  model = kaleido.from_config(config)
  # Compiled as one: operation by operation it takes ten seconds.
  params = jax.jit(
    lambda key: kaleido.init_params(model, key, config.image_shapes)
  )(jax.random.key(0))
  batch = {
    name: jnp.ones(shape.shape, shape.dtype)
    for name, shape in objective.batch_shapes(config).items()
  }
  drawn = objective.draw(config, jax.random.key(1), batch)
  count = objective.count_tokens(drawn)

  @jax.jit
  def loss(params, key):
    return objective.losses(config, model, params, drawn, count, 0, key)[0]

  without, some = loss(params, None), loss(params, jax.random.key(2))
  assert (float(without) == float(some)) is (rate == 0)
