"""Hypothesis strategies: latents of every kind, as wild as they may be."""

from hypothesis import strategies as st

from kaleido_jax.latents import Blob, Box, Latents

# Any printable character of any script; separators and brackets more often.
CHARACTERS = st.one_of(
  st.characters(exclude_categories=('C', 'Zl', 'Zp')),
  st.sampled_from('|#[]()%, 0123456789▁｜（％'),
)
TEXTS = st.text(CHARACTERS, max_size=30)
COORDINATE = st.integers(0, 1000)


@st.composite
def boxes(draw, label=TEXTS):
  x1, x2 = sorted((draw(COORDINATE), draw(COORDINATE)))
  y1, y2 = sorted((draw(COORDINATE), draw(COORDINATE)))
  return Box(label=draw(label), x1=x1, y1=y1, x2=x2, y2=y2)


@st.composite
def blobs(draw, label=TEXTS):
  r_minor, r_major = sorted((draw(COORDINATE), draw(COORDINATE)))
  return Blob(
    label=draw(label),
    xc=draw(COORDINATE),
    yc=draw(COORDINATE),
    r_major=r_major,
    r_minor=r_minor,
    theta=draw(st.integers(0, 179)),
  )


def segments(things):
  return st.lists(st.one_of(TEXTS, things), max_size=5).map(tuple)


VALUES = {
  'text': TEXTS,
  'bbox': segments(boxes()),
  'blob': segments(blobs()),
  'voken': st.lists(st.integers(0, 8191), min_size=32, max_size=32),
  'color': st.lists(st.integers(0, 511), min_size=16, max_size=16),
  'layout': st.lists(
    st.text('.abcdefghi', min_size=8, max_size=8), min_size=8, max_size=8
  ),
}


@st.composite
def latents(draw, kinds=None):
  """Any kinds in any order."""
  if kinds is None:
    some = st.lists(st.sampled_from(list(VALUES)), unique=True, min_size=1)
    kinds = draw(some)
  return Latents(**{kind: draw(VALUES[kind]) for kind in kinds})
