"""Discrete latents: descriptions, boxes, blobs, visual tokens, colours."""

from kaleido_jax.latents.blobs import Blob
from kaleido_jax.latents.boxes import Box
from kaleido_jax.latents.latents import KINDS, Latents, named
from kaleido_jax.latents.words import Problem

__all__ = ['KINDS', 'Blob', 'Box', 'Latents', 'Problem', 'named']
