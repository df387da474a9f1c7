"""Kaleido Diffusion: an autoregressive model chooses, a diffusion model draws.

Paper: Gu et al., 2024, https://arxiv.org/abs/2405.21048
"""

__version__ = '0.1.0'
