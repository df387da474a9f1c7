"""Tokens per second of the prior, beside Hugging Face `generate`.

  pip install -e '.[peers]'
  OMP_NUM_THREADS=2 python benchmarks/decoding.py

A T5 v1.1 of 83 M parameters (d 512, 8 + 8 layers, 32128 tokens), greedy, batch
4, 64 caption tokens, 128 new ones, float32. Both have the same weights and have
to write the same tokens. Without `transformers` only ours is measured.
"""

import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from kaleido_jax.convert import huggingface
from kaleido_jax.models import decoding, t5
from kaleido_jax.models.t5_layers import T5Config

BATCH, LENGTH, NEW, RUNS = 4, 64, 128, 5
CONFIG = T5Config(
  width=512,
  num_heads=8,
  mlp_dim=1024,
  num_encoder_layers=8,
  num_decoder_layers=8,
)


def parameters(module):
  """Random, but for an EOS that is never likeliest: all rows go to the end."""
  params = jax.jit(lambda key: t5.init_params(module, key))(jax.random.key(0))
  head = params['decoder']['logits_dense']['kernel']
  params['decoder']['logits_dense']['kernel'] = head.at[:, t5.EOS].set(0)
  return params


def timed(function) -> tuple[float, np.ndarray]:
  """Median seconds of a call, after one to warm up; and its result."""
  result, seconds = function(), []
  for _ in range(RUNS):
    start = time.perf_counter()
    result = function()
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds), result


def ours(module, params, ids):
  mask = jnp.ones(ids.shape, bool)
  generate = jax.jit(
    decoding.generate, static_argnames=('module', 'num_tokens')
  )
  encode = jax.jit(
    lambda p: module.apply({'params': p}, ids, mask, method='encode')
  )

  def run():
    return np.asarray(
      generate(
        module,
        params,
        encode(params),
        mask,
        jax.random.split(jax.random.key(0), BATCH),
        prefix=jnp.zeros((BATCH, 0), jnp.int32),
        prefix_lengths=jnp.zeros(BATCH, jnp.int32),
        num_tokens=NEW,
        rule=decoding.SamplingRule(temperature=0.0),
      ).ids
    )

  return timed(run)


def theirs(params, ids):
  import torch
  import transformers

  torch.set_num_threads(2)
  with tempfile.TemporaryDirectory() as folder:
    huggingface.save(folder, t5.T5(CONFIG), params)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
  given = torch.from_numpy(np.array(ids, np.int64))

  @torch.inference_mode()
  def run():
    return (
      model.eval()
      .generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        num_beams=1,
        max_new_tokens=NEW,
      )
      .numpy()[:, 1:]
    )

  return timed(run)


def main():
  module = t5.T5(CONFIG)
  params = parameters(module)
  ids = jax.random.randint(jax.random.key(1), (BATCH, LENGTH), 2, 32128)
  seconds, tokens = ours(module, params, ids)
  print(f'kaleido_jax   {BATCH * NEW / seconds:8.1f} tokens/s')
  try:
    peer, peer_tokens = theirs(params, ids)
  except ImportError:
    print("transformers is not installed: pip install -e '.[peers]'")
    return
  print(f'transformers  {BATCH * NEW / peer:8.1f} tokens/s')
  print(
    f'ratio {peer / seconds:.2f}, same tokens: {(tokens == peer_tokens).all()}'
  )


if __name__ == '__main__':
  main()
