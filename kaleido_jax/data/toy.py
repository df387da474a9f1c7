"""The paper's toy: points in the plane (figure 3).

The caption is the class, the latent its mode. Both modes are as frequent.
"""

import numpy as np

from kaleido_jax.data.example import Example
from kaleido_jax.diffusion import mixture
from kaleido_jax.latents import Latents

CLASSES = ('class a', 'class b')
MODES = (('outer', 'inner'), ('inner', 'outer'))  # from left to right


class Toy:
  """Draws from the mixture, as many as one likes."""

  kinds = ('text',)

  def __init__(self, *, seed: int = 0, split: str = 'train'):
    self.fingerprint = f'toy-{seed}-{split}'
    self._seed = (seed, int(split != 'train'))
    self._mixture = mixture.toy()

  def __len__(self) -> int:
    return 2**31 - 1

  def __getitem__(self, index: int) -> Example:
    rng = np.random.default_rng((*self._seed, index))
    mode = int(rng.integers(4))
    point = rng.multivariate_normal(
      self._mixture.means[mode], self._mixture.covariances[mode]
    )
    label, side = divmod(mode, 2)
    return Example(
      key=f'{self.fingerprint}-{index}',
      image=point.astype(np.float32),
      caption=CLASSES[label],
      latents=Latents(text=MODES[label][side]),
    )
