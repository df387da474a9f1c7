"""benchmarks/emoji_headline.py asks for what the program takes."""

import ast

import pytest

from benchmarks import emoji_headline
from configs import emoji
from kaleido_jax.data import sources
from kaleido_jax.evaluation import plan

MODELS = ('mdm', 'color', 'text')


def config_of(command):
  """As main reads it; a run that is evaluated has its own."""
  said = dict(flag.removeprefix('--').split('=', 1) for flag in command[3:])
  found = emoji.get_config(said.pop('config', '').partition(':')[2])
  fields = {n.removeprefix('config.'): v for n, v in said.items() if '.' in n}
  for name, text in fields.items():
    value = text if 'path' in name else ast.literal_eval(text)
    found.update_from_flattened_dict({name: value})  # refuses other names
  return found


@pytest.mark.parametrize('name', emoji_headline.PROTOCOLS)
def test_models_are_alike_and_drawn_alike(name, tmp_path):
  protocol = emoji_headline.PROTOCOLS[name]
  first, *others = emoji_headline.commands(protocol, MODELS, tmp_path)
  assert first[2:] == [
    'kaleido_jax.data.emoji',
    f'--out={tmp_path}/emoji{protocol.size}',
    f'--size={protocol.size}',
  ]
  trained, evaluated = others[:3], others[3:]
  configs = list(map(config_of, trained))
  assert all(c.model.decoder.dropout for c in configs)
  assert [c.latents for c in configs] == [(), ('color',), ('text',)]
  for field in ('denoiser', 'encoder'):
    assert len({str(c.model[field]) for c in configs}) == 1
  for field in ('optimizer', 'train', 'data'):
    assert len({str(c[field]) for c in configs}) == 1
  assert configs[0].image_shapes[0] == (protocol.size, protocol.size, 3)
  assert configs[0].optimizer.shares
  # In one order, the baseline first: others are set beside it.
  runs = [f'--workdir={tmp_path / model}' for model in MODELS]
  places = []
  for command in evaluated:
    assert [flag for flag in command if 'workdir' in flag] == runs
    plan.check(config_of(command).evaluate)
    places += [flag for flag in command if flag.startswith('--out=')]
  assert len(set(places)) == len(evaluated) >= 2


@pytest.mark.parametrize('name', emoji_headline.PROTOCOLS)
def test_a_model_may_have_several_kinds(name, tmp_path):
  models = ('mdm', 'text+bbox+voken', 'voken+color')
  protocol = emoji_headline.PROTOCOLS[name]
  trained = list(emoji_headline.commands(protocol, models, tmp_path))[1:4]
  made = [config_of(command) for command in trained]
  assert [c.latents for c in made] == [
    *((), ('text', 'bbox', 'voken'), ('voken', 'color'))
  ]
  assert f'--workdir={tmp_path}/text+bbox+voken' in trained[1]
  words = [sources.vocabulary(c.data, c.latents).size for c in made]
  rows = [c.model.decoder.vocab_size for c in made]
  assert words[1:] == rows[1:] and words[0] < rows[0] == rows[1] < rows[2]


def test_a_model_may_be_trained_several_times(tmp_path):
  protocol = emoji_headline.PROTOCOLS['small']
  made = emoji_headline.commands(protocol, ('mdm', 'color'), tmp_path, 2)
  _, *trained, guidance, _ = made
  configs = list(map(config_of, trained))
  assert [(c.seed, c.latents) for c in configs] == [
    *((0, ()), (0, ('color',)), (1, ()), (1, ('color',)))
  ]
  places = [f'--workdir={tmp_path}/{name}' for name in ('mdm', 'color')]
  places += [f'{place}-seed1' for place in places]
  for command, place in zip(trained, places, strict=True):
    assert place in command
  assert [flag for flag in guidance if 'workdir' in flag] == places


def test_pictures_that_are_there_are_not_prepared_again(tmp_path):
  (tmp_path / 'emoji32/test').mkdir(parents=True)
  protocol = emoji_headline.PROTOCOLS['small']
  first, *_ = emoji_headline.commands(protocol, ('mdm',), tmp_path)
  assert '--config=configs/emoji.py:small,mdm' in first
