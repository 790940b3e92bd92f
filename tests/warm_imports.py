"""The libraries of the program, imported ahead: in the process that tests/warm.py forks, and in pytest before jaxtyping's hook.

Below the hook everything that a module of saesweep is the first to import is compiled from its source, in each process.
"""
import importlib
from contextlib import suppress

import quick_libraries
import yaml_once

LIBRARIES = (
    "hydra.experimental.callback", "numba.typed", "torch.distributed.run", "lightning", "lightning.pytorch.loggers",
    "transformers.models.gemma3.modeling_gemma3", "datasets", "scipy.stats", "jaxtyping", "rich.live", "matplotlib.pyplot",
    "matplotlib.backends.backend_svg", "wandb.sdk.launch.inputs.internal", "torch.utils.tensorboard", "submitit",
)


def import_libraries() -> None:
    for name in LIBRARIES:
        with suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(name)
    yaml_once.install()
    quick_libraries.install()
