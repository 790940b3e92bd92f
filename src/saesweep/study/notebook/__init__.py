"""A finished study in a notebook: `saesweep.study(...)` (table.py), and what a loaded SAE (sae.py) shows of its latents."""
