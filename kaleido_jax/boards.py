"""Where a run is shown beside TensorBoard: Weights & Biases, if installed."""

import importlib
import pathlib
import secrets
from typing import Any

import numpy as np

WANDB_ID = 'wandb_id.txt'


def chosen(config: Any, folder: pathlib.Path) -> list[Any]:
  """The boards that `config.train` asks for."""
  if not config.train.wandb:
    return []
  return [WandB(config, folder)]


class WandB:
  """The same run when it goes on: its id is kept in the workdir."""

  def __init__(self, config: Any, folder: pathlib.Path):
    try:
      self._wandb = importlib.import_module('wandb')
    except ImportError as error:
      raise ValueError(
        f'config.train.wandb={config.train.wandb!r}, but wandb is not '
        "installed: pip install wandb, or leave the field ''."
      ) from error
    path = folder / WANDB_ID
    name = path.read_text() if path.exists() else secrets.token_hex(4)
    path.write_text(name)
    self._run = self._wandb.init(
      project=config.train.wandb,
      id=name,
      name=folder.name,
      dir=str(folder),
      resume='allow',
      config=config.to_dict(),
    )

  def add_scalar(self, name: str, value: float, step: int) -> None:
    self._run.log({name: value}, step=step)

  def add_image(
    self, name: str, image: np.ndarray, step: int, **ignored: str
  ) -> None:
    self._run.log({name: self._wandb.Image(image)}, step=step)

  def close(self) -> None:
    self._run.finish()
