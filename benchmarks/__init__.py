import saesweep.runtime.threads  # noqa: F401 before torch
