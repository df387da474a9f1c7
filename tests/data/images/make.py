"""Makes resized.npz: what mlx-data, which MDM reads with, does to pictures.

  pip install mlx-data && python tests/data/images/make.py

Noise tells every tap of a filter apart; the sizes reduce and enlarge, upright
and lying, square, and one row off square, where the long side is cut oddly.
"""

import pathlib

import mlx.data
import numpy as np

SHAPES = (
  *((45, 60, 16), (45, 60, 32), (60, 40, 24), (33, 32, 8), (34, 34, 30)),
  *((21, 30, 32), (9, 50, 8), (32, 43, 32), (47, 67, 32)),
)


def main() -> None:
  random = np.random.default_rng(0)
  arrays = {}
  for height, width, size in SHAPES:
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    stream = (
      mlx.data.buffer_from_vector([{'image': image}])
      .image_resize_smallest_side('image', size)
      .image_center_crop('image', size, size)
    )
    name = f'{height}x{width}_{size}'
    arrays[f'{name}_image'] = image
    arrays[f'{name}_mlx'] = stream[0]['image']
  path = pathlib.Path(__file__).with_name('resized.npz')
  np.savez_compressed(path, **arrays)


if __name__ == '__main__':
  main()
