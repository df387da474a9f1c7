"""Live: the exported prior in transformers itself, beside ours."""

import json

import jax
import numpy as np
import pytest
import small_models

from kaleido_jax import export, generate, loading, sharding
from kaleido_jax.models import t5

pytestmark = [
  pytest.mark.peers,
  pytest.mark.filterwarnings('ignore'),
]
torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

CAPTIONS = ['a red circle', 'a star and a heart on navy']


def test_transformers_writes_what_ours_writes(tmp_path):
  folder = small_models.export(tmp_path / 'model')
  loaded = loading.load(folder, jax.devices()[:1])
  export.write_prior(tmp_path / 'prior', loaded)
  offset = json.loads((tmp_path / 'prior/kaleido.json').read_text())['offset']
  captions = [loaded.words.encode_caption(text, 12)[0] for text in CAPTIONS]
  ids = np.stack(captions)
  mask = ids != t5.PAD
  num_tokens = 20

  theirs = transformers.T5ForConditionalGeneration.from_pretrained(
    tmp_path / 'prior'
  ).eval()
  with torch.no_grad():
    found = theirs.generate(
      torch.tensor(np.where(mask, ids + offset, t5.PAD)),
      attention_mask=torch.tensor(mask.astype(int)),
      max_new_tokens=num_tokens,
      do_sample=False,
      # Its cache counts the layers of the encoder.
      use_cache=False,
    ).numpy()[:, 1:]

  sample = loaded.config.sample
  sample.temperature = 0.0
  mesh = sharding.create_mesh(loaded.config.mesh, jax.devices()[:1])
  imagine = generate.build_imagine(loaded.model, mesh, num_tokens)
  ours = np.asarray(
    imagine(
      *(loaded.params, ids, np.zeros(2, np.uint32), np.arange(2)),
      *(generate.rule(sample), generate.nothing(2)),
    )
  )
  for one, other in zip(ours, found, strict=True):
    length = min(len(one), len(other)) - 1  # ours always ends with EOS
    np.testing.assert_array_equal(one[:length], other[:length])
  assert len({*map(tuple, ours.tolist())}) == 2
