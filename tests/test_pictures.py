"""Pictures that remember, and lists that a person has edited."""

import json

import numpy as np
import pytest
from PIL import Image

from kaleido_jax import pictures
from kaleido_jax.latents import Box, Latents, named
from kaleido_jax.latents.vokens import Vokens

KINDS = (named('text'), named('bbox'), Vokens(pieces=8, count=2))
LATENTS = Latents(
  text='a red circle',
  bbox=[Box(label='circle', x1=1, y1=2, x2=30, y2=40)],
  voken=(3, 7),
).numbered(7, 3)
ASKED = pictures.Asked(
  'ein Kreis, größer', LATENTS, 7, 3, {'guidance': 4.0}, 'runs/x', 12
)


def test_a_picture_remembers_how_it_came_about(tmp_path):
  image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
  pictures.save(tmp_path / 'a.png', image, ASKED)
  found = pictures.asked_of(tmp_path / 'a.png', KINDS)
  assert found == ASKED and found.latents.number == (7, 3)
  np.testing.assert_array_equal(
    np.asarray(Image.open(tmp_path / 'a.png')), image
  )
  Image.fromarray(image).save(tmp_path / 'b.png')
  with pytest.raises(ValueError, match='does not say how it was drawn'):
    pictures.asked_of(tmp_path / 'b.png', KINDS)
  (tmp_path / 'c.png').write_bytes(b'nothing')
  with pytest.raises(ValueError, match='is no picture'):
    pictures.asked_of(tmp_path / 'c.png', KINDS)
  with pytest.raises(ValueError, match=r"but this model reads \['text'\]"):
    pictures.asked_of(tmp_path / 'a.png', KINDS[:1])
  (tmp_path / 'd.png').mkdir()
  with pytest.raises(ValueError, match='d.png cannot be written'):
    pictures.save(tmp_path / 'd.png', image, ASKED)
  assert not list(tmp_path.glob('*.new'))


def test_a_list_comes_back_and_one_entry_needs_no_list(tmp_path):
  file = tmp_path / 'latents.json'
  pictures.write(file, [ASKED, ASKED._replace(index=4)])
  assert pictures.read(file, KINDS) == [ASKED, ASKED._replace(index=4)]
  file.write_text('{"prompt": "a dog"}')
  assert pictures.read(file, KINDS) == [pictures.Asked('a dog')]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'line 1, column 1: Expecting value'),
    ('[\n {"prompt": "a"\n', "line 3, column 1: Expecting ',' delimiter"),
    ('[{"prompt": "a"}\n {"prompt": "b"}]', "line 2, column 2: Expecting ','"),
    ('[]', 'asks for nothing'),
    ('[3]', 'entry 0, line 1 is 3, which is no object'),
    ('[{"prompt": 3}]', 'line 1: prompt is 3, which is no string'),
    ('[{"prompt": "a",\n "sede": 3}]', 'line 2: sede is no field; there are'),
    ('[{"prompt": "a",\n"seed": -1}]', 'line 2: seed is -1, which is no'),
    (
      '[{"prompt": "text"},\n {"prompt": "a",\n  "latents": {"text": "x",\n'
      '  "bbox": "[dog] (10, 20, 5, 40)"}}]',
      r'entry 1, line 4: bbox - .*x1=10 right of x2=5',
    ),
    (
      '[{"prompt": "a",\n "latents": {"text": "x",\n'
      '"bbox": "[d] (1, 2, 3, 4444)"}}]',
      'line 3: bbox - .*4444',
    ),
    (
      '[{"prompt": "a",\n"latents": {"text": "x"}}]',
      'line 2: latents - there is no bbox',
    ),
    (
      '[{"prompt": "a", "latents": {"text": "x", "bbox": "",\n"blob": ""}}]',
      'line 2: blob is no kind of latent of this model',
    ),
    ('[{"prompt": "a",\n"latents": 3}]', 'line 2: latents is 3'),
    ('[{"prompt": "a",\n"settings": {"methods": 3}}]', 'methods is 3, which'),
    ('[{"seed": 1},\n {"prompt": "b"}]', 'entry 0, line 1: prompt is None'),
    ('[{"prompt": "a",\n"seed": 4294967296}]', 'line 2: seed is 4294967296'),
  ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_line_and_field(tmp_path, text, message):
  file = tmp_path / 'latents.json'
  file.write_text(text)
  with pytest.raises(ValueError, match=message):
    pictures.read(file, KINDS)


def test_a_list_is_written_whole(tmp_path):
  file = tmp_path / 'latents.json'
  pictures.write(file, [ASKED])
  assert json.loads(file.read_text())[0]['settings'] == {'guidance': 4.0}
  assert [path.name for path in tmp_path.iterdir()] == ['latents.json']
