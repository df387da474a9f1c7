"""Live: our T5 beside that of transformers, on weights drawn here.

pip install -e '.[peers]', then pytest -m peers
"""

import jax
import numpy as np
import pytest
import t5_models

from kaleido_jax.convert import huggingface, torch_file
from kaleido_jax.models import decoding, t5

pytestmark = [
  pytest.mark.peers,
  # Theirs are not ours to answer for.
  pytest.mark.filterwarnings('ignore'),
]
torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

SIZES = dict(
  vocab_size=80,
  d_model=24,
  d_kv=8,
  num_heads=4,
  d_ff=56,
  num_layers=3,  # not fewer than the decoder's, or `generate` fails
  num_decoder_layers=2,
)
FIELDS = {
  'v1_0': dict(feed_forward_proj='relu'),
  'v1_1': dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False),
}


def random_model(version: str, seed: int = 0):
  """A transformers T5 in which no weight has a trivial value."""
  config = transformers.T5Config(**SIZES, **FIELDS[version])
  model = transformers.T5ForConditionalGeneration(config).eval()
  if version == 'v1_1':
    # transformers 5 ties every new T5; with a head of its own it stays untied.
    head = torch.empty(SIZES['vocab_size'], SIZES['d_model'])
    model.lm_head.weight = torch.nn.Parameter(head)
  torch.manual_seed(seed)
  for name, parameter in model.named_parameters():
    noise = torch.randn(parameter.shape)
    if 'layer_norm' in name:
      noise = 1 + 0.2 * noise
    elif name == 'lm_head.weight':
      noise *= 2 * SIZES['d_model'] ** -0.5
    elif name != 'shared.weight':
      # Not much more, or float32 itself is off by 1e-4 (theirs from float64).
      noise *= parameter.shape[1] ** -0.5
    parameter.data = noise
  if version == 'v1_0':
    # Else each token is followed by itself, for ever.
    model.decoder.final_layer_norm.weight.data *= -2
  return model


@pytest.fixture(scope='module', params=FIELDS)
def theirs(request):
  return random_model(request.param)


@pytest.fixture(scope='module')
def inputs():
  """Encoder ids of 13, 7, 1 and 40 tokens, their mask, decoder ids."""
  rng = np.random.default_rng(0)
  mask = np.arange(40) < np.array([13, 7, 1, 40])[:, None]
  ids = rng.integers(2, SIZES['vocab_size'], (4, 40)) * mask
  targets = rng.integers(2, SIZES['vocab_size'], (4, 12))
  targets[:, 0] = t5.PAD
  return ids.astype(np.int32), mask.astype(np.int32), targets.astype(np.int32)


def outputs_of(model, ids, mask, targets):
  """Encoder states where the mask is 1, and logits."""
  with torch.no_grad():
    out = model(
      input_ids=torch.from_numpy(ids).long(),
      attention_mask=torch.from_numpy(mask).long(),
      decoder_input_ids=torch.from_numpy(targets).long(),
    )
  encoded = out.encoder_last_hidden_state.numpy() * mask[..., None]
  return encoded, out.logits.numpy()


def assert_close(ours, theirs, atol=1e-4) -> None:
  for name, a, b in zip(('encoded', 'logits'), ours, theirs, strict=True):
    error = np.abs(np.asarray(a) - b).max()
    print(f'{name}: largest difference {error:.1e}, deviation {b.std():.2f}')
    assert error < atol, name


@pytest.mark.parametrize('max_shard_size', ['1GB', '40KB'])
def test_our_states_and_logits_of_their_folder_are_theirs(
  theirs, inputs, tmp_path, max_shard_size
):
  theirs.save_pretrained(tmp_path, max_shard_size=max_shard_size)
  assert len(list(tmp_path.glob('*.safetensors'))) > (max_shard_size == '40KB')
  encoded, _, logits = t5_models.run(*huggingface.load(tmp_path), *inputs)
  assert_close((encoded, logits), outputs_of(theirs, *inputs))


def test_our_greedy_tokens_of_their_folder_are_theirs(theirs, inputs, tmp_path):
  theirs.save_pretrained(tmp_path)
  module, params = huggingface.load(tmp_path)
  ids, mask, _ = inputs
  expected = theirs.generate(
    input_ids=torch.from_numpy(ids).long(),
    attention_mask=torch.from_numpy(mask).long(),
    do_sample=False,
    num_beams=1,
    max_new_tokens=20,
    eos_token_id=t5.EOS,
    pad_token_id=t5.PAD,
    decoder_start_token_id=t5.PAD,
  ).numpy()[:, 1:]
  found = decoding.generate(
    module,
    params,
    module.apply({'params': params}, ids, mask, method='encode'),
    mask,
    jax.random.split(jax.random.key(0), 4),
    prefix=np.zeros((4, 1), np.int32),
    prefix_lengths=np.zeros(4, np.int32),
    num_tokens=20,
    rule=decoding.SamplingRule(temperature=0.0),
  )
  length = expected.shape[1]
  np.testing.assert_array_equal(found.ids[:, :length], expected)
  np.testing.assert_array_equal(found.ids[:, length:], t5.PAD)


@pytest.mark.parametrize('max_shard_bytes', [10**9, 20_000])
@pytest.mark.parametrize('version', FIELDS)
def test_their_states_and_logits_of_our_folder_are_ours(
  inputs, tmp_path, version, max_shard_bytes
):
  v1_0 = version == 'v1_0'
  config = t5_models.tiny(
    vocab_size=SIZES['vocab_size'],
    mlp='relu' if v1_0 else 'gated-gelu',
    tied_head=v1_0,
  )
  params = t5_models.random_params(config)
  huggingface.save(
    tmp_path, t5.T5(config), params, max_shard_bytes=max_shard_bytes
  )
  assert len(list(tmp_path.glob('*.safetensors'))) > (max_shard_bytes < 10**9)
  model, report = transformers.T5ForConditionalGeneration.from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not report['missing_keys'] and not report['unexpected_keys']
  assert (model.lm_head.weight is model.shared.weight) == v1_0
  assert model.config.scale_decoder_outputs == v1_0
  encoded, _, logits = t5_models.run(t5.T5(config), params, *inputs)
  assert_close((encoded, logits), outputs_of(model.eval(), *inputs))

  again = tmp_path / 'again'  # through both, every bit is kept
  model.save_pretrained(again)
  module, found = huggingface.load(again)
  assert module == t5.T5(config)
  t5_models.assert_equal(found, params)


def test_a_v1_0_folder_whose_head_differs_means_what_they_make_of_it(
  inputs, tmp_path
):
  theirs = random_model('v1_0')
  head = torch.randn(theirs.shared.weight.shape)
  theirs.lm_head.weight = torch.nn.Parameter(head)
  theirs.save_pretrained(tmp_path)
  model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
  encoded, _, logits = t5_models.run(*huggingface.load(tmp_path), *inputs)
  assert_close((encoded, logits), outputs_of(model.eval(), *inputs))


def test_their_weights_of_other_types_are_read(theirs, tmp_path):
  for dtype in (torch.bfloat16, torch.float16):
    theirs.to(dtype).save_pretrained(tmp_path)
    _, params = huggingface.load(tmp_path)
    expected = theirs.shared.weight.detach().float().numpy()
    found = params['token_embedder']['embedding']
    np.testing.assert_array_equal(found, expected)
    theirs.float()


@pytest.mark.parametrize('dtype', torch_file.DTYPES.values(), ids=str)
def test_torch_reads_what_we_write(dtype, tmp_path):
  values = np.random.default_rng(0).integers(0, 2, (3, 4)).astype(dtype)
  tensors = {'x': values, 'transposed': values.T, 'scalar': values[0, 0]}
  torch_file.write(tmp_path / 'x.pth', tensors | {'empty': values[:0]})
  found = torch.load(tmp_path / 'x.pth', weights_only=True)
  assert list(found) == [*tensors, 'empty']
  for name, value in tensors.items():
    assert str(found[name].dtype).endswith(np.dtype(dtype).name)
    assert tuple(found[name].shape) == value.shape
    np.testing.assert_array_equal(found[name].double(), value.astype(float))


def test_we_read_what_torch_writes(theirs, tmp_path):
  state = theirs.state_dict()
  torch.save(state, tmp_path / 'x.pth')
  found = torch_file.state_dict(tmp_path / 'x.pth')
  assert found.keys() == state.keys()
  for name, value in state.items():
    np.testing.assert_array_equal(found[name], value.numpy())
