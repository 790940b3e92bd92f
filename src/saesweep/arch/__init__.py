"""Architectures: one file each, with the equations on top and `activate` and `step` under them."""
