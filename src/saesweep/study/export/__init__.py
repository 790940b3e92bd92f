"""The scored latents of a study in the formats of others."""
