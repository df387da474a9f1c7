"""The world of shapes: its tables, its scenes, its words, its frequencies."""

import collections
import dataclasses
import itertools

import pytest

from kaleido_jax.data.shapes import modes, scenes, wording, world
from kaleido_jax.data.shapes.world import Facts, Thing

CAUSES = {
  'colour': 'shape',
  'place': 'shape',
  'size': 'shape',
  'texture': 'shape',
  'tilt': 'shape',
  'tone': 'colour',
  'pattern': 'tone',
}


@pytest.fixture(scope='module')
def many():
  return [scenes.scene(0, 0, index) for index in range(12_000)]


def test_rows_are_percent_and_complete():
  for attribute, cause in CAUSES.items():
    rows = world.table(world.TABLES[attribute])
    assert set(rows) == set(world.values(cause))
    assert {sum(row.values()) for row in rows.values()} == {100}
  together = world.table(world.SIZES_TOGETHER)
  assert set(together) == set(world.values('shape'))
  assert {sum(row.values()) for row in together.values()} == {100}
  assert sum(world.table(world.SHAPES)['any'].values()) == 100
  assert sum(world.COUNTS.values()) == sum(world.WORDINGS.values()) == 100


def test_a_table_reads_as_it_looks():
  assert world.table('  top-left top\nstar 60 40') == {
    'star': {'top left': 60, 'top': 40}
  }


def test_a_scene_depends_on_its_number_alone(many):
  assert scenes.scene(0, 0, 7) == many[7]
  others = [scenes.scene(0, 0, 8), scenes.scene(1, 0, 7), scenes.scene(0, 1, 7)]
  assert many[7] not in others
  assert len({scene.backdrop for scene in many}) == len(many)


def test_no_two_things_share_a_shape(many):
  for scene in many:
    shapes = [thing.shape for thing in scene.facts.things]
    assert len(set(shapes)) == len(shapes)


def test_things_are_told_as_one_reads(many):
  places = world.values('place')
  assert places[:4] == ['top left', 'top', 'top right', 'left']
  seen = set()
  for scene in many:
    found = [places.index(thing.place) for thing in scene.facts.things]
    assert found == sorted(set(found))
    seen.add(tuple(found))
  pairs = {each for each in seen if len(each) == 2}
  assert pairs == {*itertools.combinations(range(9), 2)}


def test_poses_are_what_the_words_say(many):
  thirds = {0: ('top', 'left'), 1: ('', ''), 2: ('bottom', 'right')}
  for scene in many[:5000]:
    for thing, pose in zip(scene.facts.things, scene.poses, strict=True):
      words = thirds[int(pose.y * 3)][0], thirds[int(pose.x * 3)][1]
      assert thing.place == (' '.join(filter(None, words)) or 'middle')
      low, high = scenes.RADII[thing.size]
      assert low <= pose.radius <= high
      edge = min(pose.x, pose.y, 1 - pose.x, 1 - pose.y)
      assert edge >= pose.radius + scenes.MARGIN - 1e-9
      assert (pose.angle < 0) == (thing.tilt == 'tilted left')
      assert (pose.angle > 0) == (thing.tilt == 'tilted right')


def test_things_never_crowd_even_when_nothing_random_fits(monkeypatch):
  """Every choice of places has room for the largest size that may be there."""
  monkeypatch.setattr(scenes, 'TRIES', 0)
  for places in itertools.permutations(world.values('place'), 3):
    things = [Thing(place=p, size='medium', tilt='upright') for p in places]
    poses = scenes._poses(Facts(things=tuple(things)), iter(()))
    assert not scenes._crowded(list(poses))


def test_words_come_back_from_captions_and_descriptions(many):
  lengths = []
  for scene in many[:5000]:
    assert wording.read(wording.caption(scene.said)) == scene.said
    text = wording.text(scene.facts)
    assert wording.read_text(text) == scene.facts
    lengths.append(len(text.split()))
  assert 14 < sum(lengths) / len(lengths) < 20
  assert max(lengths) <= 40


def test_a_description_reads_well():
  star = Thing(
    shape='star',
    colour='orange',
    place='top left',
    size='medium',
    texture='outlined',
    tilt='upright',
  )
  drop = dataclasses.replace(
    star, shape='drop', place='middle', size='small', tilt='tilted left'
  )
  facts = Facts(things=(star, drop), tone='navy', pattern='dotted')
  assert wording.text(facts) == (
    'an outlined orange star at the top left and a small outlined orange drop '
    'tilted left in the middle on dotted navy'
  )


@pytest.mark.parametrize(
  'caption', ['', 'a dog', 'a star,', 'a star on', 'a star red', 'star']
)
def test_what_is_no_caption_is_refused(caption):
  with pytest.raises(ValueError, match='no caption of shapes'):
    wording.read(caption)


def test_a_caption_says_what_is_there(many):
  for scene in many[:5000]:
    for said, thing in zip(scene.said.things, scene.facts.things, strict=True):
      told = {k: v for k, v in dataclasses.asdict(said).items() if v}
      assert told.items() <= dataclasses.asdict(thing).items()
      assert len(told) <= 2
    assert scene.said.tone in (None, scene.facts.tone)


def counted(found, attribute, thing):
  """Frequencies of a hidden mode among scenes, by counting."""

  def value(scene):
    if attribute in ('tone', 'pattern'):
      return getattr(scene.facts, attribute)
    return getattr(scene.facts.things[thing], attribute)

  counts = collections.Counter(map(value, found))
  return {value: count / len(found) for value, count in counts.items()}


@pytest.mark.parametrize('attribute', [*CAUSES, 'shape'])
@pytest.mark.parametrize(
  'said',
  [
    Facts(things=(Thing(shape='circle'),)),
    Facts(things=(Thing(shape='star'),), tone='navy'),
    Facts(things=(Thing(), Thing(shape='drop', place='bottom'))),
    Facts(things=(Thing(colour='red'), Thing())),
    Facts(things=(Thing(), Thing(), Thing())),
  ],
  ids=['circle', 'star on navy', 'drop at the bottom', 'red', 'three'],
)
def test_true_frequencies_are_what_counting_finds(many, said, attribute):
  """However a caption is worded: scenes are chosen by what is true of them."""

  def fits(scene):
    pairs = zip(said.things, scene.facts.things, strict=True)
    return (
      len(said.things) == len(scene.facts.things)
      and said.tone in (None, scene.facts.tone)
      and all(
        value in (None, getattr(thing, name))
        for words, thing in pairs
        for name, value in dataclasses.asdict(words).items()
      )
    )

  found = list(filter(fits, many))
  background = attribute in ('tone', 'pattern')
  for thing in {0, 0 if background else len(said.things) - 1}:
    true = modes.frequencies(said, attribute, thing)
    seen = counted(found, attribute, thing)
    assert sum(true.values()) == pytest.approx(1)
    assert set(seen) <= {value for value in true if true[value]}
    for value, chance in true.items():
      spread = (chance * (1 - chance) / len(found)) ** 0.5
      assert seen.get(value, 0) == pytest.approx(chance, abs=4.5 * spread)


def test_how_a_caption_is_worded_tells_nothing(many):
  """Of one thing, where only the shape is said; 'a circle' alone is rare."""
  said = {wording.read(f'a {shape}') for shape in world.values('shape')}
  found = [scene for scene in many if scene.said in said]
  seen, true = counted(found, 'colour', 0), collections.Counter()
  for scene in found:
    for colour, chance in modes.frequencies(scene.said, 'colour').items():
      true[colour] += chance / len(found)
  distance = sum(abs(true[v] - seen.get(v, 0)) for v in true) / 2
  assert len(found) > 800 and distance < 0.05


def test_modes_of_several_nodes_multiply_and_sum():
  said = wording.read('a star')
  both = modes.joint(said, [('colour', 0), ('tone', 0)])
  assert both['yellow', 'navy'] == pytest.approx(0.45 * 0.50)
  tones = modes.frequencies(said, 'tone')
  for tone, chance in tones.items():
    assert chance == pytest.approx(
      sum(p for (_, other), p in both.items() if other == tone)
    )


def test_a_shape_that_is_taken_makes_others_likelier():
  """p(first) p(second | first), in closed form."""
  row = world.table(world.SHAPES)['any']
  said = Facts(things=(Thing(), Thing(shape='drop')))
  found = modes.frequencies(said, 'shape')
  expected = {s: row[s] / (100 - row[s]) for s in row if s != 'drop'}
  whole = sum(expected.values())
  assert found.pop('drop') == 0
  assert found == pytest.approx({s: w / whole for s, w in expected.items()})


def test_what_is_said_is_certain():
  said = wording.read('a red circle and a star')
  assert modes.frequencies(said, 'colour')['red'] == 1
  assert modes.frequencies(said, 'colour', 1)['yellow'] == pytest.approx(0.45)


def test_the_typical_is_not_always_the_frequent():
  """Or guidance could not be caught preferring one to the other."""
  said = wording.read('a circle')
  frequency = modes.frequencies(said, 'colour')
  typicality = modes.typicality(said, 'colour')
  assert max(frequency, key=frequency.get) == 'red'
  assert max(typicality, key=typicality.get) == 'orange'
  assert typicality['orange'] > 2 * typicality['red'] > 2
  assert (frequency['red'], frequency['orange']) == pytest.approx((0.42, 0.28))
  for colour, low, high in (('red', 0.2, 0.3), ('orange', 0.5, 0.6)):
    alone = Facts(things=(Thing(colour=colour),))
    assert low < modes.frequencies(alone, 'shape')['circle'] < high
  disagree = 0
  for shape in world.values('shape'):
    said = wording.read(f'a {shape}')
    frequency = modes.frequencies(said, 'colour')
    typicality = modes.typicality(said, 'colour')
    disagree += max(frequency, key=frequency.get) != max(
      typicality, key=typicality.get
    )
  assert 3 <= disagree <= 5


def test_what_never_happens_has_no_frequencies():
  with pytest.raises(ValueError, match='never shows'):
    modes.frequencies(wording.read('a star and a star'), 'colour')
  with pytest.raises(ValueError, match='there is no'):
    modes.frequencies(wording.read('a star'), 'colour', 1)
