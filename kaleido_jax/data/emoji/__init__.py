"""Real pictures with hidden modes: emoji of many vendors.

  python -m kaleido_jax.data.emoji --out=FOLDER --size=64

The caption ('cat face') does not say whose drawing it is; the latents do. The
command fetches pinned packages from npm, once, and needs
`pip install -e '.[emoji]'`; reading needs neither.

  vendors    the packages: whose they are, versions, licences
  npm        fetches and checks them
  naming     which icon shows which emoji
  joining    captions with all their designs, split
  rendering  pictures and their latents
  prepare    all of that, to records
  source     reads the records
"""

from kaleido_jax.data.emoji.source import Emoji

__all__ = ['Emoji']
