"""Pictures with captions and latents, from wherever they come to batches."""
