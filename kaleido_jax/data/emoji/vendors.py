"""The emoji packages on npm: what is in them, whose they are, which version.

Versions are pinned and checked: `integrity` is npm's own, the SHA-512 of the
tarball in base64. The art is not part of this repository.
"""

import dataclasses

REGISTRY = 'https://registry.npmjs.org'
APACHE, MIT = 'Apache-2.0', 'MIT'
BY, BY_SA = 'CC-BY-4.0', 'CC-BY-SA-4.0'
LICENCES = ('all', 'permissive')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
  """One version of an npm package."""

  name: str  # with its scope: @iconify-json/noto
  version: str
  integrity: str

  @property
  def file(self) -> str:
    """The tarball, as npm names it: iconify-json-noto-1.2.9.tgz."""
    return f'{self.name.lstrip("@").replace("/", "-")}-{self.version}.tgz'

  @property
  def address(self) -> str:
    last = self.name.rpartition('/')[2]
    return f'{REGISTRY}/{self.name}/-/{last}-{self.version}.tgz'


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmojiSet:
  """One vendor's drawings."""

  name: str
  package: Package
  style: str  # what the text latent says of it
  licence: str  # SPDX
  attribution: str


def _svg(name: str, version: str, integrity: str, **about: str) -> EmojiSet:
  package = Package(
    name=f'@iconify-json/{name}', version=version, integrity=integrity
  )
  return EmojiSet(name=name, package=package, **about)


_GOOGLE = 'Noto Emoji by Google, https://github.com/googlefonts/noto-emoji'
_MICROSOFT = (
  'Fluent Emoji by Microsoft, https://github.com/microsoft/fluentui-emoji'
)

# Captions and tags, in English, of every emoji.
CAPTIONS = Package(
  name='emojibase-data',
  version='17.0.0',
  integrity='sha512-Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g88'
  '2LTpmEpyhBNEC0m2SEmItljHsTygjA==',
)

SETS = (
  _svg(
    'noto',
    '1.2.9',
    'sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTA'
    'eI3rcKF0mqHYeZVAuaw==',
    style='noto style, soft shading',
    licence=APACHE,
    attribution=_GOOGLE,
  ),
  _svg(
    'noto-v1',
    '1.2.5',
    'sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/'
    'XpBsw+1L1x3eyPqMuVA==',
    style='old noto style, flat',
    licence=APACHE,
    attribution=_GOOGLE,
  ),
  _svg(
    'twemoji',
    '1.2.5',
    'sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU'
    '9yNLlj41WU6/mvgALsw==',
    style='twemoji style, flat',
    licence=BY,
    attribution='Twemoji by Twitter, https://github.com/jdecked/twemoji',
  ),
  _svg(
    'openmoji',
    '1.2.29',
    'sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1'
    'OqksEmaDGTCmZ5nFKJQ==',
    style='openmoji style, black outlines',
    licence=BY_SA,
    attribution='OpenMoji, https://github.com/hfg-gmuend/openmoji',
  ),
  _svg(
    'emojione',
    '1.2.3',
    'sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv'
    '7w5vJxS4Q1m8zb9CMMg==',
    style='emojione style, flat',
    licence=BY,
    attribution='Emoji One (EmojiTwo), https://github.com/EmojiTwo/emojitwo',
  ),
  _svg(
    'emojione-v1',
    '1.2.3',
    'sha512-UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWL'
    'erY79gFLMZ26U6Ms+ww==',
    style='old emojione style, flat',
    licence=BY_SA,
    attribution='Emoji One, https://github.com/joypixels/emojione-legacy',
  ),
  _svg(
    'fluent-emoji',
    '1.2.7',
    'sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagz'
    'JvSyg+9OBv4hz4Hc/QA==',
    style='fluent style, soft gradients',
    licence=MIT,
    attribution=_MICROSOFT,
  ),
  _svg(
    'fluent-emoji-flat',
    '1.2.6',
    'sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNG'
    'WqQYvuaSYM1M4fRXlUw==',
    style='fluent style, flat',
    licence=MIT,
    attribution=_MICROSOFT,
  ),
  _svg(
    'fxemoji',
    '1.2.2',
    'sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXu'
    'MQyAifr5jP4kn78DpiQ==',
    style='firefox style, flat',
    licence=APACHE,
    attribution='Firefox OS Emoji by Mozilla, '
    'https://github.com/mozilla/fxemoji',
  ),
  _svg(
    'streamline-emojis',
    '1.2.4',
    'sha512-iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDP'
    'dI81yeG4ROqjWpYJE6A==',
    style='streamline style, thin outlines',
    licence=BY,
    attribution='Streamline Emojis, '
    'https://github.com/webalys-hq/streamline-vectors',
  ),
  EmojiSet(
    name='fluent-emoji-3d',
    package=Package(
      name='@lobehub/fluent-emoji-3d',
      version='1.1.0',
      integrity='sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKo'
      'ehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==',
    ),
    style='fluent style, 3d render',
    licence=MIT,
    attribution=f'{_MICROSOFT}, as packed by LobeHub',
  ),
)


def chosen(licences: str) -> tuple[EmojiSet, ...]:
  """All sets, or those that ask for no more than a credit.

  ShareAlike reaches into what its pictures become part of.
  """
  if licences not in LICENCES:
    raise ValueError(f'licences={licences!r} is not one of {LICENCES}.')
  return tuple(s for s in SETS if licences == 'all' or s.licence != BY_SA)
