"""The types that signatures are written with.

jaxtyping adds the shapes; tests check them, a program does not pay for them.
"""

import jax
import numpy as np
from jaxtyping import Bool, Num

# People hand in numpy arrays too, and everything takes them.
Array = jax.Array | np.ndarray

# 1 or True at tokens, 0 or False at padding.
Mask = Num[Array, 'b l'] | Bool[Array, 'b l']
