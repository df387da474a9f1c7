"""Time and memory of precision, recall, density and coverage of many pictures.

  python -m benchmarks.neighbours                # 50,000 and 50,000 of 2,048
  python -m benchmarks.neighbours --count=5000   # a hundredth of the time
  python -m benchmarks.neighbours --last   # what takes most memory: a third

The last (two cores, 2026-11-22): 530 s, and at most 6.3 GB, features included.

Random features. Fakes are of one law with the real ones, so that coverage is
expected at 1 - 1/2^k (arXiv:2002.09797). Each is a caption of its own: the most
that intervals can ask to be kept.
"""

import argparse
import resource
import time

import numpy as np

from kaleido_jax.metrics import precision_recall
from kaleido_jax.metrics.precision_recall import Reached


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--count', type=int, default=50_000, help='of each kind')
  parser.add_argument('--width', type=int, default=2_048, help='of features')
  parser.add_argument('--neighbours', type=int, default=3)
  parser.add_argument(
    '--last', action='store_true', help='reaches are made up; no figures'
  )
  args = parser.parse_args()
  random, k = np.random.default_rng(0), args.neighbours
  real, fake = random.standard_normal((2, args.count, args.width), np.float32)
  before, start = peak(), time.perf_counter()

  def told(what: str) -> None:
    seconds = time.perf_counter() - start
    print(f'{seconds:.0f} s, peak {peak():.2f} GB: {what}', flush=True)

  print(f'{before:.2f} GB with the features themselves')
  if args.last:  # half of all distances lie within twice the width
    squares = np.full(args.count, 2.0 * args.width)
    reals, fakes = (Reached(each, squares) for each in (real, fake))
  else:
    reals = precision_recall.reached(real, k)
    told('reaches of the real ones')
    fakes = precision_recall.reached(fake, k)
    told('reaches of the fakes')
  near = precision_recall.near(reals, fakes, groups=args.count)
  told('who is near whom')
  if not args.last:
    told(str(precision_recall.figures(near, k)))


def peak() -> float:
  """Of this process, in GB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == '__main__':
  main()
