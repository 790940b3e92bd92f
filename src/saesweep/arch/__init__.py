"""One file per architecture: the equations on top, activate and step under them."""
