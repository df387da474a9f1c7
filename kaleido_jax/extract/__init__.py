"""Making latent stores: latents of other tools, states of the encoder."""
