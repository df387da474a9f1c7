import functools

import jax
import jax.numpy as jnp
import numpy as np
import packing
import pytest
from recorded import QUICK, nhwc

from kaleido_jax.convert import mdm
from kaleido_jax.diffusion import denoiser, loss, prediction, schedule

BASE = schedule.create('squared_cosine', 1000)
COSINE = schedule.create('cosine', 1000)
LINEAR = schedule.create('linear', 1000)
SHIFTED = BASE.pyramid((2, 1))

NESTED = {
  'release_256cfg': {},
  'v_target': dict(target='v'),
  'cosine_shift4_v': dict(target='v', schedules=COSINE.pyramid((2, 1), 2)),
  'weights_4_1': dict(resolution_weights=(4, 1)),
  'vdm_weights': dict(weighting=loss.vdm),
  'single_loss': dict(resolution_weights=(1, 0)),
  'unshifted_signal_div': dict(schedules=(BASE, BASE)),
}
UNET = {
  'release_64cfg': {},
  'v_target': dict(target='v'),
  'eps_pred_ddpm_sched_vdm': dict(
    schedules=(LINEAR,), prediction='eps', weighting=loss.vdm
  ),
  'tanh_output_scale': {},
}


@pytest.fixture(scope='module')
def recorded(data):
  return packing.read(data / 'mdm/diffusion_loss.npz.xz')


@pytest.fixture(scope='module')
def batch(recorded):
  times = jnp.asarray(recorded['in/times']).astype(jnp.int32) + 1
  condition = (recorded['in/lm_features'], recorded['in/lm_mask'])
  return nhwc(recorded['in/images']), times, condition


def close(ours, reference, atol):
  ours = jnp.moveaxis(ours, -1, 1) if ours.ndim == 4 else ours
  np.testing.assert_allclose(ours, reference[: len(ours)], atol=atol, rtol=1e-6)


@pytest.mark.parametrize('tag', NESTED)
def test_nested_loss_matches_the_reference(recorded, batch, networks, tag):
  options = dict(prediction='v', target='eps', schedules=SHIFTED) | NESTED[tag]
  schedules = options.pop('schedules')
  images, times, condition = batch
  x0s = loss.pyramid(images, (32, 16))
  if tag == 'unshifted_signal_div':
    x0s = loss.pyramid(images, (32, 16), scales=(2, 1))
  fixture = {
    key.removeprefix(f'nested/{tag}/'): value
    for key, value in recorded.items()
    if key.startswith(f'nested/{tag}/')
  }
  apply, params = networks['nested']
  seen = {}

  def network(xs, ts):
    seen['xs'], seen['out'] = xs, apply(params, xs, ts, condition)
    return seen['out']

  total, metrics = loss.denoising(
    network,
    schedules,
    x0s,
    times,
    (nhwc(fixture['eps_hi']), nhwc(fixture['eps_lo'])),
    **options,
  )
  for i, level in enumerate(('hi', 'lo')):
    close(seen['xs'][i], fixture[f'x_t_{level}'], 1e-6)
    if f'pred_{level}' in fixture:  # single_loss never looks at the low one
      # The recorded prediction is in the loss's terms already.
      wanted = prediction.convert(
        seen['out'][i],
        seen['xs'][i],
        *(
          schedule.expand(table(times)[: len(seen['xs'][i])], images)
          for table in (schedules[i].alpha, schedules[i].sigma)
        ),
        given='v',
        wanted=options['target'],
      )
      # Going through x_0 divides rounding by sigma, which is .006 at t = 1.
      rows = slice(0, len(wanted))
      scale = np.asarray(schedules[i].sigma(times))[rows, None, None, None]
      error = jnp.moveaxis(wanted, -1, 1) - fixture[f'pred_{level}'][rows]
      assert np.abs(error * scale).max() < 2e-5
      close(metrics.mse[i], fixture[f'mse_{level}'], 1e-6)
  close(metrics.per_example, fixture['per_sample_loss'], 1e-6)
  np.testing.assert_allclose(total, fixture['total_loss'], rtol=1e-6)


def test_mixed_loss_matches_the_reference(recorded, batch):
  # The recorded predictions are in terms of eps. (That the network does what it
  # should for a mixed batch is a test of the network.)
  images, times, _ = batch
  names = ('eps', 'x_t', 'pred', 'mse')
  eps, xt, pred, mse = (
    [recorded[f'nested/mixed_2_1/{name}_{level}'] for level in ('hi', 'lo')]
    for name in names
  )

  def network(xs, ts):
    assert [len(x) for x in xs] == [2, 4]
    for x, wanted in zip(xs, xt, strict=True):
      close(x, wanted, 1e-6)
    return tuple(
      jnp.asarray(nhwc(p)[:rows]) for p, rows in zip(pred, (2, 4), strict=True)
    )

  total, metrics = loss.denoising(
    network,
    SHIFTED,
    loss.pyramid(images, (32, 16)),
    times,
    tuple(map(nhwc, eps)),
    prediction='eps',
    target='eps',
    batch_ratios=(2, 1),
  )
  for ours, wanted in zip(metrics.mse, mse, strict=True):
    close(ours, wanted, 1e-6)
  wanted = recorded['nested/mixed_2_1/per_sample_loss']
  close(metrics.per_example, wanted, 1e-6)
  wanted = recorded['nested/mixed_2_1/total_loss']
  np.testing.assert_allclose(total, wanted, rtol=1e-6)


@pytest.mark.parametrize('tag', UNET)
def test_unet_loss_matches_the_reference(recorded, batch, networks, tag):
  options = dict(prediction='v', target='eps', schedules=(BASE,)) | UNET[tag]
  _, times, condition = batch
  apply, params = networks['unet']

  def network(xs, ts):
    return apply(params, xs, ts, condition)

  if tag == 'tanh_output_scale':
    network = denoiser.bounded(network, 1.5)
  images, eps, xt, out = (
    recorded[f'unet/{tag}/{name}']
    for name in ('images', 'eps', 'x_t', 'model_out')
  )
  total, metrics = loss.denoising(
    network, x0s=(nhwc(images),), times=times, epss=(nhwc(eps),), **options
  )
  close(network((nhwc(xt),), times - 1)[0], out, 2e-5)
  close(metrics.per_example, recorded[f'unet/{tag}/per_sample_loss'], 1e-6)
  wanted = recorded[f'unet/{tag}/total_loss']
  np.testing.assert_allclose(total, wanted, rtol=1e-6)


def test_gradients_match_the_reference(recorded, batch, networks):
  images, times, condition = batch
  apply, params = networks['nested']
  prefix = 'nested/release_256cfg/'

  @functools.partial(jax.jit, compiler_options=QUICK)
  @jax.grad
  def gradient(params):
    total, _ = loss.denoising(
      lambda xs, ts: apply(params, xs, ts, condition),
      SHIFTED,
      loss.pyramid(images, (32, 16)),
      times,
      (nhwc(recorded[prefix + 'eps_hi']), nhwc(recorded[prefix + 'eps_lo'])),
      prediction='v',
      target='eps',
    )
    return total

  gradients = mdm.to_torch(gradient(params))
  norm = np.sqrt(sum(np.square(g).sum() for g in gradients.values()))
  wanted = recorded[prefix + 'grad_global_norm']
  np.testing.assert_allclose(norm, wanted, rtol=1e-4)
  for name in (
    'conv_out.weight',
    'inner_unet.conv_out.bias',
    'out_adapter.bias',
  ):
    reference = recorded[f'{prefix}grad/{name}']
    np.testing.assert_allclose(
      gradients[name], reference, rtol=1e-4, atol=1e-4 * np.abs(reference).max()
    )


@pytest.mark.parametrize('target', sorted(prediction.TARGETS))
@pytest.mark.parametrize('given_as', sorted(prediction.TARGETS))
def test_closed_form_equals_the_loss_of_converted_predictions(given_as, target):
  x0, eps, out = jax.random.normal(jax.random.key(0), (3, 4, 8))
  times = jnp.array([300, 400, 500, 600])
  point = schedule.at((BASE,), times)
  (xt,) = loss.corrupt((x0,), (eps,), point)
  alpha, sigma = (
    schedule.expand(c[0], xt) for c in (point.alphas, point.sigmas)
  )
  guess = prediction.convert(
    out, xt, alpha, sigma, given=given_as, wanted=target
  )
  truth = {'x0': x0, 'eps': eps, 'v': alpha * eps - sigma * x0}[target]
  wanted = np.square(guess - truth).mean(1)
  _, metrics = loss.denoising(
    lambda xs, ts: (out,), (BASE,), (x0,), times, (eps,),
    prediction=given_as, target=target,
  )  # fmt: skip
  np.testing.assert_allclose(metrics.mse[0], wanted, rtol=1e-4)


@pytest.mark.parametrize('weighting', sorted(loss.WEIGHTINGS))
@pytest.mark.parametrize('kind', sorted(prediction.TARGETS))
def test_a_perfect_prediction_costs_nothing(kind, weighting):
  key = jax.random.key(0)
  x0s = (jnp.ones((6, 4, 4, 1)), jnp.zeros((6, 2, 2, 1)))
  times, epss = loss.draw(key, x0s, 1000)
  point = schedule.at(SHIFTED, times)

  def network(xs, ts):
    np.testing.assert_array_equal(ts, times - 1)
    return tuple(
      prediction.FROM_X0[kind](
        x0, x, schedule.expand(alpha, x), schedule.expand(sigma, x)
      )
      for x0, x, alpha, sigma in zip(
        x0s, xs, point.alphas, point.sigmas, strict=True
      )
    )

  total, _ = loss.denoising(
    network, SHIFTED, x0s, times, epss, prediction=kind, target='x0',
    weighting=loss.WEIGHTINGS[weighting],
  )  # fmt: skip
  assert total < 1e-4


def test_corruption_has_the_schedules_mean_and_deviation():
  times = jnp.full(4000, 400)
  x0s = (jnp.full((4000, 4), 0.7), jnp.full((4000, 2), -0.3))
  _, epss = loss.draw(jax.random.key(2), x0s, 1000)
  xts = loss.corrupt(x0s, epss, schedule.at(SHIFTED, times))
  for x0, xt, table in zip(x0s, xts, SHIFTED, strict=True):
    gamma = float(table.gammas[400])
    spread = np.sqrt((1 - gamma) / xt.size)
    assert abs(xt.mean() - np.sqrt(gamma) * x0[0, 0]) < 4 * spread
    np.testing.assert_allclose(xt.std(), np.sqrt(1 - gamma), rtol=0.03)


@pytest.mark.parametrize(
  'ratios, multiple', [((2, 1), 1), ((1, 1), 3), ((3, 1, 2), 2)]
)
def test_a_mixed_batch_has_the_expectation_of_a_full_one(ratios, multiple):
  batch_size = sum(ratios) * multiple
  x0s = tuple(jnp.zeros((batch_size, 2)) for _ in ratios)
  seen = []

  def network(xs, ts):
    seen.extend(len(x) for x in xs)
    return tuple(jnp.ones_like(x) for x in xs)

  schedules = BASE.pyramid((4, 2, 1)[-len(ratios) :])
  total, metrics = loss.denoising(
    network, schedules, x0s, jnp.full(batch_size, 9), x0s,
    prediction='x0', target='x0', batch_ratios=ratios,
  )  # fmt: skip
  # Every error is 1, so each resolution contributes 1 whatever its share.
  np.testing.assert_allclose(total, len(ratios), rtol=1e-6)
  assert seen == [multiple * r for r in np.cumsum(ratios)]
  assert [len(mse) for mse in metrics.mse] == seen


def test_min_snr_caps_the_weight_of_easy_times():
  # Given for eps in the paper as min(SNR, 5) / SNR, for v as that over SNR + 1.
  times = jnp.array([1, 50, 300, 600, 999])
  snr = np.float64(BASE.gammas)[times] / (1 - np.float64(BASE.gammas)[times])
  wanted = {
    'x0': np.minimum(snr, 5),
    'eps': np.minimum(snr, 5) / snr,
    'v': np.minimum(snr, 5) / (snr + 1),
  }
  for target, weights in wanted.items():
    (factors,) = loss.min_snr((BASE,), times, target)
    np.testing.assert_allclose(factors, weights, rtol=1e-3)


def test_pyramid_averages():
  images = jnp.arange(2 * 8 * 4 * 1.0).reshape(2, 8, 4, 1)
  high, middle, low = loss.pyramid(images, (8, 4, 2))
  np.testing.assert_array_equal(high, images)
  assert middle.shape == (2, 4, 2, 1)
  np.testing.assert_allclose(middle[0, 0, 0, 0], (0 + 1 + 4 + 5) / 4)
  np.testing.assert_allclose(low, loss.pyramid(images, (2,))[0], rtol=1e-6)


@pytest.mark.parametrize(
  'options, message',
  [
    (dict(prediction='score'), "'score' is unknown"),
    (dict(target='score'), "'score' is unknown"),
    (dict(resolution_weights=(1, 2)), 'resolution_weights has 2 entries for 1'),
    (dict(batch_ratios=(2, 1)), 'batch_ratios has 2 entries for 1'),
    (dict(epss=()), 'epss has 0 entries for 1'),
  ],
)
def test_bad_arguments_get_a_sentence(options, message):
  x = (jnp.zeros((2, 3)),)
  arguments = dict(x0s=x, epss=x, prediction='v', target='v') | options
  with pytest.raises(ValueError, match=message):
    loss.denoising(
      lambda xs, ts: xs, (BASE,), times=jnp.array([1, 2]), **arguments
    )


def test_sizes_that_do_not_divide_and_empty_shares_get_a_sentence():
  with pytest.raises(
    ValueError, match='8x8 cannot be averaged to a height of 3'
  ):
    loss.pyramid(jnp.zeros((1, 8, 8, 3)), (3,))
  x = (jnp.zeros((2, 3)),) * 2
  with pytest.raises(ValueError, match=r'batch of 2 .* they get \(0, 2\)'):
    loss.denoising(
      lambda xs, ts: xs, SHIFTED, x, jnp.array([1, 2]), x,
      prediction='v', target='v', batch_ratios=(1, 5),
    )  # fmt: skip
