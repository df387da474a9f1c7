"""Kaleido beside its baseline on real emoji: from nothing to curves and tables.

  python -m benchmarks.emoji_headline --out=runs/headline          # two cores
  python -m benchmarks.emoji_headline --out=runs/large --protocol=large  # a GPU

All models have the same denoiser, as many updates of as many examples, and the
same sampler; --models=mdm,bbox,text+bbox+voken chooses others, of one kind of
latents or of several. With --trainings=3 each is trained from three seeds, and
intervals are of captions and trainings. The steps, each a command that can be
run by itself (--show prints them): pictures at one size; the trainings; all of
them under all weights, without anything more and with CADS. Stopped, it goes on
where it was. Which figures it gave: docs/results.md.

small  32x32, 6,000 updates of 32: on two cores an hour of training for a model,
       and 4 minutes for a weight of one
large  64x64, 15,000 updates of 128: 10,240 pictures for each weight by each of
       three seeds, and once more by 250 steps of DDPM; not measured
"""

import argparse
import itertools
import pathlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]


class Protocol(NamedTuple):
  size: int  # of the pictures
  variant: str  # of configs/emoji.py
  train: dict[str, object]  # fields of config
  guidance: tuple[float, ...]
  evaluate: dict[str, object]
  seeds: tuple[int, ...] = (0,)
  slow: str = ''  # one more way, under the largest common weight alone


PROTOCOLS = {
  'small': Protocol(
    *(32, 'small'),
    {
      'train.num_steps': 6_000,
      'optimizer.cooldown_steps': 2_000,
      'train.sample_every': 3_000,
    },
    guidance=(1.0, 2.0, 4.0, 7.0),
    evaluate={'sample.steps': 20},
  ),
  'large': Protocol(
    *(64, 'large'),
    {},
    guidance=(1.0, 2.0, 4.0, 7.0, 10.0),
    evaluate={
      'sample.steps': 25,
      'evaluate.per_caption': 80,
      'evaluate.batch_size': 256,
    },
    seeds=(0, 1, 2),
    slow='solver=ddpm+spacing=reference+steps=250',
  ),
}
COMPARED = 7.0  # the weight at which methods and samplers are compared


def commands(
  protocol: Protocol,
  models: tuple[str, ...],
  out: pathlib.Path,
  trainings: int = 1,
) -> Iterator[list[str]]:
  """In order; each needs what those before it have made."""
  data = out / f'emoji{protocol.size}'
  if not (data / 'test').exists():
    yield _python('kaleido_jax.data.emoji', out=data, size=protocol.size)
  runs = []
  # Every model once before any is trained again: stopped early, all are there.
  # The first has its model's name, whether or not there will be others.
  for seed, model in itertools.product(range(trainings), models):
    runs.append(out / (f'{model}-seed{seed}' if seed else model))
    yield _python(
      'kaleido_jax.main',
      config=f'configs/emoji.py:{protocol.variant},{model.replace("+", ",")}',
      workdir=runs[-1],
      **_fields({'seed': seed, 'data.path': data} | protocol.train),
    )
  reports = [
    ('guidance', protocol.guidance, ()),
    ('cads', (4.0, COMPARED), ('cads',)),
  ]
  if protocol.slow:
    reports.append(('steps', (COMPARED,), (protocol.slow,)))
  for seed, (name, weights, ways) in itertools.product(protocol.seeds, reports):
    fields = protocol.evaluate | {
      'evaluate.seed': seed,
      'evaluate.guidance': weights,
      'evaluate.ways': ('', *ways),
    }
    at = out / (f'{name}-{seed}' if len(protocol.seeds) > 1 else name)
    yield [
      *_python('kaleido_jax.main', mode='evaluate', out=at),
      *(f'--workdir={run}' for run in runs),
      *_said(_fields(fields)),
    ]


def _python(module: str, **flags: object) -> list[str]:
  return [sys.executable, '-m', module, *_said(flags)]


def _said(flags: dict[str, object]) -> list[str]:
  return [f'--{name}={value}' for name, value in flags.items()]


def _fields(fields: dict[str, object]) -> dict[str, object]:
  return {f'config.{name}': value for name, value in fields.items()}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--out', type=pathlib.Path, required=True)
  parser.add_argument('--protocol', choices=PROTOCOLS, default='small')
  parser.add_argument('--models', default='mdm,color,text', help='mdm is first')
  parser.add_argument('--trainings', type=int, default=1, help='of each model')
  parser.add_argument('--show', action='store_true', help='do nothing')
  args = parser.parse_args()
  if args.trainings < 1:
    parser.error(f'--trainings={args.trainings}: give 1 or more')
  models = tuple(args.models.split(','))
  # Where it is does not change while it runs: programs start in the repository.
  out = args.out.expanduser().absolute()
  protocol = PROTOCOLS[args.protocol]
  for command in commands(protocol, models, out, args.trainings):
    print(f'\n$ {shlex.join(command)}', flush=True)
    if not args.show and (code := subprocess.run(command, cwd=ROOT).returncode):
      sys.exit(code)  # 75: it was told to stop, and would go on


if __name__ == '__main__':
  main()
