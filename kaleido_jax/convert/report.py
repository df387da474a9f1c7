"""What a conversion found: each tensor missing, extra or mis-shaped."""

import dataclasses
from collections.abc import Mapping, Sequence

MAX_LINES = 40  # of a message; a wrong file disagrees in every one of 900 rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """The differences between a file of weights and the model that wants it."""

  source: str  # the file or folder, as the user knows it
  missing: tuple[str, ...] = ()
  extra: tuple[str, ...] = ()
  mismatched: tuple[tuple[str, tuple, tuple], ...] = ()  # name, wanted, found

  @property
  def clean(self) -> bool:
    return not (self.missing or self.extra or self.mismatched)

  def __str__(self) -> str:
    lines = [
      *(f'{name}: missing' for name in self.missing),
      *(f'{name}: not part of the model' for name in self.extra),
      *(
        f'{name}: the model needs {wanted}, the file has {found}'
        for name, wanted, found in self.mismatched
      ),
    ]
    counts = (
      f'{self.source}: {len(self.missing)} missing, {len(self.extra)} extra, '
      f'{len(self.mismatched)} mis-shaped tensors'
    )
    hidden = len(lines) - MAX_LINES
    if hidden > 0:
      lines = [*lines[:MAX_LINES], f'... and {hidden} more']
    return '\n  '.join([counts, *lines])

  def check(self, *, strict: bool) -> 'Report':
    """Raises unless all is well, or the user said that it need not be."""
    if strict and not self.clean:
      raise ValueError(
        f'{self}\nThe weights do not fit this model: take the configuration '
        'that they were trained with, or pass strict=False to keep what fits '
        'and start the rest from its initial values.'
      )
    return self


def compare(
  source: str,
  wanted: Mapping[str, Sequence[int]],
  found: Mapping[str, Sequence[int]],
) -> Report:
  """Compares two tables of name -> shape."""
  return Report(
    source=source,
    missing=tuple(name for name in wanted if name not in found),
    extra=tuple(name for name in found if name not in wanted),
    mismatched=tuple(
      (name, tuple(shape), tuple(found[name]))
      for name, shape in wanted.items()
      if name in found and tuple(shape) != tuple(found[name])
    ),
  )
