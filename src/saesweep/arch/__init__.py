"""One file per architecture: the equations on top, encode and step under them."""
