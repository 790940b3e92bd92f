"""Which architecture is more interpretable at the same L0, by how much, and with what confidence."""
