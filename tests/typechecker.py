"""The type checker of the package's annotations during the tests; an int is accepted for a float (PEP 484)."""
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
