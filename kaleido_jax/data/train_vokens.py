"""Trains the small image tokenizer of `models.vq` on shapes and emoji together.

  python -m kaleido_jax.data.train_vokens --emoji=FOLDER --steps=4000

FOLDER is what `kaleido_jax.data.emoji` wrote. Prints how much of the codebook
is used and how well pictures that it has not seen come back, and writes the
file that ships with the package.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from kaleido_jax.data.emoji import Emoji
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.models import vq

HELD_OUT = 2000  # pictures of each kind, at most
COMMITMENT = 0.25
DECAY = 0.99  # of the codes, which are averages of the features near them
IDLE = 0.02  # a code that fewer than so many features a step choose starts anew


def pictures(source, count: int) -> np.ndarray:
  """The first pictures of a source, as the tokenizer sees them."""
  count = min(count, len(source))
  return np.stack([vq.shrink(source[i].image) for i in range(count)])


def loss(params, codes, images):
  """How different the picture comes back; and what the codes need to know."""
  found = vq.features(params, images)
  ids = vq.nearest({'codes': codes}, found)
  chosen = codes[ids]
  # Straight through: the decoder sees codes, the encoder its own gradient.
  through = found + jax.lax.stop_gradient(chosen - found)
  error = ((vq.decode(params, through) - images) ** 2).mean()
  commitment = ((found - jax.lax.stop_gradient(chosen)) ** 2).mean()
  return error + COMMITMENT * commitment, (error, found, ids)


@functools.partial(jax.jit, static_argnames='optimizer', donate_argnums=(0,))
def step(state, images, key, optimizer):
  """One update: networks by gradient, codes by moving average."""
  params, opt_state, codes, counts, sums = state
  (_, (error, found, ids)), gradient = jax.value_and_grad(loss, has_aux=True)(
    params, codes, images
  )
  updates, opt_state = optimizer.update(gradient, opt_state, params)
  params = optax.apply_updates(params, updates)

  flat, chosen = found.reshape(-1, vq.CODE_WIDTH), ids.ravel()
  hits = jnp.zeros(vq.CODES).at[chosen].add(1)
  totals = jnp.zeros_like(codes).at[chosen].add(flat)
  counts = DECAY * counts + (1 - DECAY) * hits
  sums = DECAY * sums + (1 - DECAY) * totals
  # Dead codes move to features of this batch.
  fresh = flat[jax.random.choice(key, len(flat), (vq.CODES,), replace=False)]
  dead = counts < IDLE
  counts = jnp.where(dead, 1, counts)
  sums = jnp.where(dead[:, None], fresh, sums)
  return (params, opt_state, sums / counts[:, None], counts, sums), error


def report(params, name: str, images: np.ndarray) -> str:
  """Codebook use and PSNR on pictures that were not trained on."""
  ids = np.asarray(vq.nearest(params, vq.features(params, images)))
  back = vq.decode(params, params['codes'][ids])
  mse = ((np.clip(back, -1, 1) - images) ** 2).mean((1, 2, 3)) / 4
  used = len(np.unique(ids)) / vq.CODES
  psnr = -10 * np.log10(mse.mean())
  return f'{name}: PSNR {psnr:.2f} dB, {used:.0%} of the codes used'


def define_flags() -> None:
  """Not when this is imported: flags are for whoever runs the program."""
  flags.DEFINE_string('emoji', None, 'Emoji records.', required=True)
  flags.DEFINE_integer('steps', 4000, 'Updates.')
  flags.DEFINE_integer('batch_size', 256, 'Half shapes, half emoji.')
  flags.DEFINE_string('out', str(vq.EMBEDDED), 'Where it is written.')
  flags.DEFINE_integer('shapes', 20_000, 'How many are drawn.')


def main(argv: list[str]) -> None:
  del argv
  half = flags.FLAGS.batch_size // 2
  train = (
    pictures(Shapes(size=32, kinds=()), flags.FLAGS.shapes),
    pictures(Emoji(flags.FLAGS.emoji, split='train', kinds=()), 10**9),
  )
  params: dict = vq.init(0)
  codes = params.pop('codes')
  optimizer = optax.adam(
    optax.cosine_decay_schedule(1e-3, flags.FLAGS.steps, 0.02)
  )
  counts = np.ones(vq.CODES, np.float32)
  state = (params, optimizer.init(params), codes, counts, codes.copy())
  rng, started = np.random.default_rng(0), time.time()
  for count in range(1, flags.FLAGS.steps + 1):
    batch = np.concatenate([x[rng.integers(len(x), size=half)] for x in train])
    state, error = step(state, batch, jax.random.key(count), optimizer)
    if count % 100 == 0:
      rate = count / (time.time() - started)
      print(f'step {count}: error {error:.4f}, {rate:.1f} steps/s', flush=True)
  params, _, codes, _, _ = jax.tree.map(np.asarray, state)
  vq.save(flags.FLAGS.out, {**params, 'codes': codes})

  params = vq.load(flags.FLAGS.out)
  held_out = {
    'shapes': Shapes(size=32, split='test', kinds=()),
    'emoji': Emoji(flags.FLAGS.emoji, split='test', kinds=()),
  }
  for name, source in held_out.items():
    print(report(params, f'held-out {name}', pictures(source, HELD_OUT)))


if __name__ == '__main__':
  define_flags()
  app.run(main)
