"""Train sparse autoencoders on a language model's activations and compare architectures at matched sparsity.

    import saesweep

    saesweep.results("outputs/default")                          # a DataFrame, one row per SAE
    saesweep.study("outputs/default")                            # another, of the scores of a finished study
    sae = saesweep.load("outputs/default/gemma3_270m/resid.9/jumprelu/32")
    sae.examples(latent), sae.explain(latent)                    # what a study has found of a latent
    lm = saesweep.language_model(sae)
    with saesweep.splice(lm, sae):
        lm.module(input_ids=tokens)                              # with the reconstruction in place of the activation
"""
import importlib
from typing import Any

from saesweep import old_names

__all__ = ["language_model", "load", "results", "save_for_circuit_tracer", "splice", "study"]


def __getattr__(name: str) -> Any:
    if name == "study":
        return importlib.import_module("saesweep.study")  # a package that can be called
    if name not in __all__:
        raise AttributeError(f"module 'saesweep' has no attribute {name!r}")
    from saesweep import api  # imports torch, which the command line does without

    return getattr(api, name)


old_names.install()
