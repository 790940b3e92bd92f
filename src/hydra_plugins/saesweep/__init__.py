"""What Hydra discovers of us. It is imported at every start, so nothing heavy may be imported here."""
