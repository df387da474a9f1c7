"""How good, how varied and how true pictures and latents are."""
