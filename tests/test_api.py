"""Imagine, render, edit: what a picture depends on, and what it does not."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import small_models
from PIL import Image

from kaleido_jax import api, flops, loading
from kaleido_jax.data.shapes import Shapes
from kaleido_jax.latents import Latents

PROMPT = 'a red circle'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return small_models.export(tmp_path_factory.mktemp('export'))


@pytest.fixture(scope='module')
def model(folder):
  """On one device."""
  return api.Kaleido(loading.load(folder, jax.devices()[:1]))


@pytest.fixture(scope='module')
def seven():
  """Latents of scenes that are well described."""
  source = Shapes(size=32, kinds=('text', 'bbox', 'color'))
  return [source[i].latents.numbered(3, i) for i in range(7)]


def apart(a, b) -> float:
  """Share of the pixels that differ, if none does by more than one level."""
  difference = np.abs(a.astype(int) - b.astype(int))
  assert difference.max() <= 1
  return float((difference > 0).any(-1).mean())


def test_neighbours_and_devices_do_not_matter(model, folder, seven):
  together = model.render(PROMPT, seven)
  assert together.shape == (7, 32, 32, 3) and together.dtype == np.uint8
  # Of one padded size: four of five rows, elsewhere in the batch.
  others = model.render(PROMPT, seven[:1:-1])
  np.testing.assert_array_equal(together[2:], others[::-1])
  alone = model.render(PROMPT, seven[4])
  assert apart(alone[0], together[4]) <= 0.01
  spread = api.Kaleido(loading.load(folder, jax.devices()))
  assert spread.batch_rows == 64
  assert apart(spread.render(PROMPT, seven), together) <= 0.01


@pytest.mark.slow  # of pictures: the test above
def test_devices_do_not_matter_to_what_is_imagined(model, folder):
  spread = api.Kaleido(loading.load(folder, jax.devices()))
  imagined = [m.imagine(PROMPT, num=7, seed=5) for m in (model, spread)]
  assert imagined[0] == imagined[1]


def test_other_prompts_beside_it_do_not_matter(model, seven):
  prompts = [PROMPT, 'a star', 'a blue heart on white', *[PROMPT] * 4]
  mixed = model.render(prompts, seven)
  same = model.render(PROMPT, seven)
  np.testing.assert_array_equal(mixed[[0, 3, 4]], same[[0, 3, 4]])
  assert (mixed[1] != same[1]).any()


def test_imagined_latents_depend_on_seed_and_number_alone(model):
  eight = model.imagine(PROMPT, num=8, seed=5)
  assert [z.number for z in eight] == [(5, i) for i in range(8)]
  assert model.imagine(PROMPT, num=3, seed=5) == eight[:3]
  assert model.imagine(['a star', PROMPT], num=4, seed=5)[4:] == eight[:4]
  assert len({*eight}) == 8
  assert model.imagine(PROMPT, num=8, seed=6) != eight
  assert model.imagine(PROMPT, num=2, temperature=0.0) == [
    *model.imagine(PROMPT, num=1, temperature=0.0) * 2
  ]


def test_what_is_imagined_is_drawn_again_as_it_was(model):
  latents = model.imagine(PROMPT, num=4)
  drawn = model.render(PROMPT, latents)
  np.testing.assert_array_equal(drawn, model.render(PROMPT, latents))
  # By their number, not by their place; a seed is a new beginning.
  turned = model.render(PROMPT, latents[::-1])
  np.testing.assert_array_equal(drawn, turned[::-1])
  fresh = model.render(PROMPT, latents, seed=1)
  assert (fresh != drawn).any(axis=(1, 2, 3)).all()


def test_one_latent_with_eight_noises_is_eight_pictures(model, seven):
  drawn = model.render(PROMPT, [seven[0]] * 8, seed=0)
  assert len(np.unique(drawn.reshape(8, -1), axis=0)) == 8
  alike = model.render(PROMPT, [seven[0]] * 8)
  assert len(np.unique(alike.reshape(8, -1), axis=0)) == 1


def test_an_edit_keeps_the_noise_and_can_imagine_what_follows(model, seven):
  old = seven[0]
  edited = model.edit(PROMPT, old, text='a small blue star on plain white')
  assert (edited.text, edited.number) == (
    *('a small blue star on plain white', (3, 0)),
  )
  assert (edited.boxes, edited.colors) == (old.boxes, old.colors)
  again = model.edit(PROMPT, old, imagine_later=True, text=edited.text)
  assert again.text == edited.text and again.number == old.number
  assert again['bbox'] != old['bbox']
  box = old.boxes[0]
  moved = model.edit(PROMPT, old, imagine_later=True, boxes=[box] * 2)
  assert moved.text == old.text and moved['color'] != old['color']
  with pytest.raises(ValueError, match='color'):
    model.edit(PROMPT, old, colors=(600,) * 16)


def test_a_prefix_is_kept(model, seven):
  (found,) = model.imagine(PROMPT, prefix=seven[2].upto('bbox'))
  assert found.upto('bbox') == seven[2].upto('bbox')
  assert found.number == (3, 2)
  several = model.imagine(PROMPT, num=3, prefix=seven[2].upto('text'))
  assert {z.text for z in several} == {seven[2].text}
  assert len({*several}) == 3
  with pytest.raises(ValueError, match='than the 24 tokens'):
    model.imagine(PROMPT, prefix=Latents(text='a ' * 90))
  with pytest.raises(ValueError, match='has all kinds'):
    model.imagine(PROMPT, prefix=seven[2])
  with pytest.raises(ValueError, match='has the first of'):
    model.imagine(PROMPT, prefix=Latents(color=(1,) * 16))


def test_without_latents_they_are_imagined_for_the_same_numbers(model):
  drawn = model.render([PROMPT] * 3, temperature=0.5)
  latents = model.imagine(PROMPT, num=3, temperature=0.5)
  np.testing.assert_array_equal(drawn, model.render(PROMPT, latents))
  np.testing.assert_array_equal(
    drawn, model.render([PROMPT] * 3, temperature=0.5, seed=0)
  )


def test_what_is_imagined_is_well_formed(model):
  for latents in model.imagine(PROMPT, num=16, temperature=3.0):
    assert latents.validate(model.words.kinds) and len(latents.colors) == 16


def test_who_waits_may_watch(model, seven):
  seen = []
  drawn = model.render(
    *(PROMPT, seven[:3]),
    steps=20,
    watch=lambda glimpse: seen.append((glimpse, glimpse.images())),
  )
  assert [(g.places, g.done, g.steps) for g, _ in seen] == [
    ([0, 1, 2], done, 20) for done in (8, 16, 20)
  ]
  for _, (high, low) in seen:
    assert high.shape == (3, 32, 32, 3) and low.shape == (3, 16, 16, 3)
  np.testing.assert_array_equal(
    drawn, model.render(PROMPT, seven[:3], steps=20)
  )


def test_twenty_requests_compile_nothing(model, seven):
  model.imagine(PROMPT, num=4)
  model.render(PROMPT, seven[:4])
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: (
      'backend_compile' in event and compiled.append(event)
    )
  )
  try:
    for i in range(20):
      latents = model.imagine(
        *(f'a {["star", "red heart", "leaf"][i % 3]}', 3 + i % 2),
        temperature=0.5 + i / 20,
        top_k=i,
        top_p=1 - i / 40,
        seed=i,
      )
      model.render(
        *(f'a {["pill", "blue cross"][i % 2]} on white', latents),
        guidance=1.0 + i,
        steps=2 + i % 3,
        solver=['ddpm', 'ddim', 'dpm++', 'sde-dpm++'][i % 4],
        spacing=['reference', 'uniform', 'trailing'][i % 3],
        seed=i,
      )
    assert not compiled
    model.render(PROMPT, seven[:4], cads={})
    assert compiled  # the listener hears
  finally:
    jax.monitoring.clear_event_listeners()


def test_methods_are_named_with_the_numbers_that_differ(model, seven):
  method = {'apg': True, 'cads': {'scale': np.float32(0.5)}}
  plain = model.render(PROMPT, seven[:2], guidance=3.0)
  assert (model.render(PROMPT, seven[:2], guidance=3, **method) != plain).any()
  asked = model.asked(**method, particles={'weight': 9.0})
  assert asked.methods == ('apg', 'cads', 'particles')
  assert asked.cads['scale'] == 0.5 and asked.particles['weight'] == 9
  asked = model.asked(cads=True, apg=True, steps=50.0)
  assert asked.methods == ('apg', 'cads') and asked.steps == 50
  assert model.asked(methods=['cads'], cads=False).methods == ()


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda m, z: m.render('', z), 'the prompt is empty'),
    (lambda m, z: m.render([], z), 'there is no prompt'),
    (lambda m, z: m.render('a' * 900, z), 'longer than the 23 tokens'),
    (lambda m, z: m.render('a\0star', z), r"control character '\\x00'"),
    (lambda m, z: m.render('красный круг', z), "has 'к', which is not in"),
    (lambda m, z: m.render(['a', 'b'], [z] * 3), '2 prompts and 3 latents'),
    (lambda m, z: m.render('a', z.upto('text')), r"have \['text'\], but"),
    (lambda m, z: m.render('a', z, guidence=3), "no option 'guidence'"),
    (lambda m, z: m.render('a', z, cads={'tau': 1}), "cads has no 'tau'"),
    (lambda m, z: m.render('a', z, rescale=0.7), 'should name numbers'),
    (lambda m, z: m.render('a', z, steps='x'), "steps='x' is no int"),
    (lambda m, z: m.render('a', z, guidance=float('nan')), 'makes no sense'),
    (lambda m, z: m.render('a', z, seed=2**32), 'seed=4294967296 is no'),
    (lambda m, z: m.render('a', z, methods='cads'), "say .'cads',"),
    (lambda m, z: m.edit('a', z, blobs=[]), 'reads'),
    (lambda m, z: m.render('a', z.replace(text='a \ud83d')), 'text of these'),
    (lambda m, z: m.render('a', z.replace(colors=(1, 2))), '2 ids, not 16'),
    (lambda m, z: m.edit('a', z.upto('text'), text='b'), 'reads'),
    (lambda m, z: m.render('a', z.replace(text='a ☃')), "text .* has '☃'"),
    (lambda m, z: m.render('a', z, solver='euler'), "'euler' is not one of"),
    (lambda m, z: m.render('a', z, steps=0), 'num_steps=0 is not between'),
    (
      lambda m, z: m.render('a', z.replace(text='a ' * 90)),
      'the text of these latents is longer than the 24 tokens',
    ),
  ],
)
def test_what_cannot_be_drawn_is_a_sentence(model, seven, call, message):
  with pytest.raises(ValueError, match=message):
    call(model, seven[0])


def test_the_baseline_has_no_latents(tmp_path):
  folder = small_models.export(tmp_path, 'mdm')
  model = api.Kaleido(loading.load(folder, jax.devices()[:1]))
  assert 'no latents, step 7' in repr(model)
  latents = model.imagine(PROMPT, num=2)
  assert [z.number for z in latents] == [(0, 0), (0, 1)]
  drawn = model.render(PROMPT, latents)
  assert (drawn[0] != drawn[1]).any()
  assert apart(model.render(PROMPT)[0], drawn[0]) <= 0.01
  model.save(tmp_path / 'a.png', drawn[1], PROMPT, latents[1])
  (again,), _ = model.draw([model.recall(tmp_path / 'a.png')])
  assert apart(again, drawn[1]) <= 0.01


def test_a_run_of_another_version_has_other_fields(tmp_path):
  folder = small_models.export(tmp_path)
  saved = json.loads((tmp_path / 'config.json').read_text())
  saved['sample'] |= {'guidance': 3.5, 'magic': 7}
  saved['sample']['cads']['magic'] = 7
  del saved['diffusion']['early']
  saved['diffusion']['drop_condition'] = 0.3
  (tmp_path / 'config.json').write_text(json.dumps(saved))
  config = loading.config_of(folder)
  assert config.diffusion.drop_condition == 0.3
  assert flops.per_step(config) > 0  # as reports say of each model
  sample = config.sample
  assert sample.guidance == 3.5 and 'magic' not in {*sample, *sample.cads}


def test_a_run_in_the_middle_of_its_first_save_is_a_sentence(tmp_path):
  (tmp_path / 'config.json').write_text(small_models.config().to_json())
  unfinished = tmp_path / 'checkpoints' / '4.orbax-checkpoint-tmp-1'
  unfinished.mkdir(parents=True)
  with pytest.raises(FileNotFoundError, match='no complete checkpoint'):
    api.load(str(tmp_path))
  with pytest.raises(FileNotFoundError, match='is no workdir of a run'):
    api.load(str(tmp_path / 'nowhere'))
  with pytest.raises(FileNotFoundError, match='pretrained:cats does not ship'):
    api.load('pretrained:cats')


def test_a_side_between_two_lines_is_drawn_on_the_nearer_one(model, seven):
  box = replace(seven[0].boxes[0], x1=100, y1=101, x2=410, y2=399)
  near = replace(box, x1=94, y1=94, x2=406, y2=406)
  between, on = (seven[0].replace(boxes=[each]) for each in (box, near))
  assert between != on
  np.testing.assert_array_equal(
    model.render(PROMPT, between), model.render(PROMPT, on)
  )


@pytest.mark.slow  # of steering alone: test_steering
def test_particles_push_no_filling(folder, model, seven):
  """Three rows on eight devices are filled up, and drawn as on one."""
  spread = api.Kaleido(loading.load(folder, jax.devices()))
  options = {'particles': {'weight': 5.0}, 'steps': 8}
  one, eight = (m.render(PROMPT, seven[:3], **options) for m in (model, spread))
  assert apart(one, eight) <= 0.01
  assert (one != model.render(PROMPT, seven[:3], steps=8)).any()


def test_a_png_remembers_and_is_drawn_again(model, seven, tmp_path):
  options = {'guidance': 3.0, 'steps': 6, 'cads': {'scale': 0.2}}
  (image,) = model.render(PROMPT, seven[2], **options)
  model.save(tmp_path / 'a.png', image, PROMPT, seven[2], **options)
  np.testing.assert_array_equal(Image.open(tmp_path / 'a.png'), image)
  asked = model.recall(tmp_path / 'a.png')
  assert asked.latents == seven[2] and asked.latents.number == (3, 2)
  (again,), _ = model.draw([asked])
  np.testing.assert_array_equal(again, image)


def test_a_number_is_one_rule(model):
  """The k-th picture of a prompt is number k, whoever imagines it."""
  prompts = ['a star', 'a red circle', 'a star']
  latents = model.imagine(prompts)
  assert [z.number for z in latents] == [(0, 0), (0, 0), (0, 1)]
  np.testing.assert_array_equal(
    model.render(prompts, steps=4), model.render(prompts, latents, steps=4)
  )


def test_a_png_of_an_unknown_number_is_refused(model, seven, tmp_path):
  image = np.zeros((32, 32, 3), np.uint8)
  unknown = Latents(**seven[0])
  with pytest.raises(ValueError, match='do not know their number'):
    model.save(tmp_path / 'a.png', image, PROMPT, unknown)
  model.save(tmp_path / 'a.png', image, PROMPT, unknown, number=(5, 2))
  assert model.recall(tmp_path / 'a.png').latents.number == (5, 2)
