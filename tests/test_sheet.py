"""Contact sheets."""

import numpy as np
import pytest

from kaleido_jax import sheet
from kaleido_jax.latents import Box, Latents

RED = np.full((8, 8, 3), (255, 0, 0), np.uint8)
BOX = Latents(bbox=[Box(label='all', x1=0, y1=0, x2=1000, y2=1000)])


def count(drawn, color) -> int:
  return int((drawn == color).all(-1).sum())


def test_every_picture_is_there_in_full():
  tiles = [sheet.Tile(RED, caption=f'number {i}') for i in range(5)]
  drawn = sheet.draw(tiles, columns=2, side=40)
  assert count(drawn, (255, 0, 0)) == 5 * 40 * 40


def test_latents_are_drawn_on_a_second_copy():
  plain = sheet.draw([sheet.Tile(RED)], side=40)
  marked = sheet.draw([sheet.Tile(RED, latents=BOX)], side=40)
  assert marked.shape[1] == plain.shape[1] + 44
  assert 40 * 40 < count(marked, (255, 0, 0)) < 2 * 40 * 40


def test_long_latents_make_longer_tiles_and_lose_nothing_to_the_right():
  short = sheet.draw([sheet.Tile(RED, latents=Latents(text='a'))], side=80)
  many = Latents(text='word ' * 60, voken=range(8000, 8032))
  long = sheet.draw([sheet.Tile(RED, latents=many)], side=80)
  assert (
    long.shape[0] > short.shape[0] + 100 and long.shape[1] == short.shape[1]
  )
  assert (long[:, -4:] == 255).all()


def test_an_empty_sheet_is_refused():
  with pytest.raises(ValueError, match='no tiles'):
    sheet.draw([])
