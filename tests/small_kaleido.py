"""A small Kaleido, and a batch for it: what the tests of the whole share."""

import jax
import jax.numpy as jnp
from filling import filled

from kaleido_jax.models import kaleido, t5
from kaleido_jax.models.kaleido import Kaleido
from kaleido_jax.models.mlp import MLP
from kaleido_jax.models.t5_layers import T5Config

# The encoder's widths are its own, so that its kernels can be told by shape.
ENCODER = T5Config(
  vocab_size=40,
  width=16,
  num_heads=2,
  head_dim=12,
  mlp_dim=56,
  num_encoder_layers=2,
  num_decoder_layers=1,
)
DECODER = T5Config(
  vocab_size=48,
  width=16,
  num_heads=2,
  head_dim=8,
  mlp_dim=32,
  num_encoder_layers=1,
  num_decoder_layers=3,
)
NULL = (1,)


def build(decoder=DECODER, **kwargs) -> Kaleido:
  return Kaleido(
    encoder=t5.T5(ENCODER),
    decoder=None if decoder is None else t5.T5(decoder),
    denoiser=MLP(width=20, num_layers=1),
    **kwargs,
  )


def parameters(model: Kaleido) -> dict:
  return filled(lambda key: kaleido.init_params(model, key, ((2,),)))


def losses(model, params, batch, eta, **dropped):
  """Both losses, against arbitrary targets: what matters is their gradient."""
  (prediction,), logits = model.apply({'params': params}, **batch, **dropped)
  total = jnp.square(prediction - 1).mean()
  if logits is not None:
    picked = jnp.take_along_axis(
      jax.nn.log_softmax(logits), batch['z'][..., None], -1
    )[..., 0]
    total -= eta * jnp.where(batch['z'] != t5.PAD, picked, 0).mean()
  return total
