"""The types that signatures are written with.

jaxtyping adds the shapes; tests check them, a program does not pay for them.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Bool, Float, Num

# People hand in numpy arrays too, and everything takes them.
Array = jax.Array | np.ndarray

# 1 or True at tokens, 0 or False at padding.
Mask = Num[Array, 'b l'] | Bool[Array, 'b l']

# Images (or points, in the toy) of every resolution, high to low. The rows may
# differ: a mixed batch has fewer at high resolution.
Images = tuple[Float[Array, '_ ...'], ...]

# Micro-conditions: one value per example, or one for all.
Micros = Mapping[str, Num[Array, ' b'] | Num[Array, ''] | float | int]
