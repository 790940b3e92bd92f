import saesweep.spinning  # noqa: F401 before torch
