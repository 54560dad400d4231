"""Output heads: latents -> predictions."""
