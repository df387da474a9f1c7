"""The exact denoiser of a mixture of Gaussians, and the paper's toy.

Whatever a sampler or a guidance rule does to a trained network it does to this
one too, and here the truth is known: E[x_0 | x_t] in closed form.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from kaleido_jax.arrays import Array, Images
from kaleido_jax.diffusion.schedule import Point


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
  """sum_k weight_k N(mean_k, covariance_k)."""

  means: Float[Array, 'k d']
  covariances: Float[Array, 'k d d']

  def denoise(
    self,
    x: Float[Array, 'b d'],
    alpha: Float[Array, ''],
    sigma: Float[Array, ''],
    weights: Float[Array, '#b k'],
  ) -> Float[Array, 'b d']:
    """E[x_0 | x_t = x], where each image may weigh the modes its own way."""
    # Mode by mode: x_t ~ N(alpha mean, spread), hence its density and E[x_0].
    spread = alpha**2 * self.covariances + sigma**2 * jnp.eye(x.shape[1])
    centred = x[:, None] - alpha * self.means
    whitened = jnp.einsum('bkd,kde->bke', centred, jnp.linalg.inv(spread))
    squares = (centred * whitened).sum(-1)
    logits = jnp.log(weights) - (squares + jnp.linalg.slogdet(spread)[1]) / 2
    pulled = jnp.einsum('bkd,kde->bke', whitened, self.covariances)
    estimates = self.means + alpha * pulled
    return jnp.einsum('bk,bkd->bd', jax.nn.softmax(logits), estimates)

  def model(
    self, xs: Images, point: Point, weights: Float[Array, 'b k']
  ) -> Images:
    """The ideal network; its condition says which modes to expect."""
    (x,), (alpha,), (sigma,) = xs, point.alphas, point.sigmas
    return (self.denoise(x, alpha, sigma, weights),)


def toy() -> Mixture:
  """The paper's toy (figure 3): two classes of two modes on a line.

  Class A is -1.5 and -.3, class B .3 and 1.5. Guidance prefers what is typical
  of a class, here its outer mode, so it collapses A unless a latent names the
  mode. (In a symmetric square no mode is more typical, and nothing happens.)
  """
  means = np.float32([[-1.5, 0], [-0.3, 0], [0.3, 0], [1.5, 0]])
  return Mixture(
    means=means,
    covariances=np.tile(0.15**2 * np.eye(2, dtype=np.float32), (4, 1, 1)),
  )
