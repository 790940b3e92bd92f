"""Train sparse autoencoders on a language model's activations and compare architectures at matched sparsity.

    import saesweep

    saesweep.results("outputs/default")                          # a DataFrame, one row per SAE
    sae = saesweep.load("outputs/default/gemma3_270m/resid.9/jumprelu/32")
    lm = saesweep.language_model(sae)
    with saesweep.splice(lm, sae):
        lm.module(input_ids=tokens)                              # with the reconstruction in place of the activation
"""
import sys
from types import ModuleType
from typing import Any

from saesweep import old_names

__all__ = ["language_model", "load", "results", "splice"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'saesweep' has no attribute {name!r}")
    from saesweep import api  # imports torch, which the command line does without

    return getattr(api, name)


class _Results(ModuleType):
    """The package saesweep.results, which can be called as the function of this name."""

    def __call__(self, *sweeps: Any) -> Any:
        return __getattr__("results")(*sweeps)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        """Python sets a package as an attribute of its parent when it is imported."""
        if name == "results":
            value.__class__ = _Results
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
old_names.install()
