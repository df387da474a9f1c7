"""The notebooks run, with less of everything, and were saved with pictures."""

import os
import pathlib

import nbclient
import nbformat
import pytest
import small_runs

COLABS = small_runs.ROOT / 'colabs'
NOTEBOOKS = sorted(path.stem for path in COLABS.glob('*.ipynb'))
SMALL = {
  'model.denoiser.channels': (8, 8),
  'model.denoiser.inner_unet.channels': (8, 32),
  'model.denoiser.inner_unet.num_resnets': (1, 1),
  'model.denoiser.inner_unet.num_attention': (0, 1),
  'data.batch_size': 4,
  'sample.steps': 2,
  'train.measure_batches': 1,
  'train.sample_count': 2,
  'train.num_steps': 2,
  'train.log_every': 1,
}


def parameters(name: str, folder: pathlib.Path) -> str:
  """What stands in the cell of parameters instead."""
  if name == 'toy':
    return f"STEPS, COUNT, RUNS = 2, 20, '{folder}'"
  if name == 'train_your_own':
    return f"WORKDIR, CHANGES, MORE, JUDGED = '{folder}', {SMALL}, 3, 2"
  assert name == 'imagine_and_edit'
  return (
    "MODEL, PROMPT = 'pretrained:shapes', 'a circle and a star'\n"
    'COUNT, OPTIONS = 2, dict(guidance=4.0, steps=8)'
  )


@pytest.mark.slow
@pytest.mark.parametrize('name', NOTEBOOKS)
def test_it_runs(name, tmp_path, monkeypatch):
  notebook = nbformat.read(COLABS / f'{name}.ipynb', as_version=4)
  cells = [
    cell
    for cell in notebook.cells
    if 'parameters' in cell.metadata.get('tags', ())
  ]
  assert len(cells) == 1
  cells[0].source = parameters(name, tmp_path)
  for variable, value in small_runs.environment(devices=1).items():
    monkeypatch.setenv(variable, value)
  nbclient.NotebookClient(
    notebook,
    timeout=300,
    kernel_name='python3',
    resources={'metadata': {'path': str(small_runs.ROOT)}},
  ).execute()
  assert images(notebook)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_it_was_saved_after_it_had_run(name):
  notebook = nbformat.read(COLABS / f'{name}.ipynb', as_version=4)
  nbformat.validate(notebook)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
  assert images(notebook)
  text = nbformat.writes(notebook)
  assert str(pathlib.Path.home()) not in text and os.getcwd() not in text
  assert len(text) < 3e6


def images(notebook) -> list[str]:
  return [
    output.data['image/png']
    for cell in notebook.cells
    for output in cell.get('outputs', ())
    if 'image/png' in output.get('data', {})
  ]
