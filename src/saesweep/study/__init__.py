"""Interpretability: what the latents of an SAE mean, by scores, judges and people. `saesweep study FOLDER`; from Python

    from saesweep.study.collect import collect, collected

`saesweep.study("outputs/default")` is the table of a finished study (notebook.py); `saesweep.study` is this package too.
"""
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class _Package(ModuleType):
    def __call__(self, *sweeps: Any) -> "pd.DataFrame":
        """One row per SAE of one or more sweeps, with its main scores. Raises UsageError where there is no study."""
        from saesweep.study import notebook  # imports pandas, which the command line does without

        return notebook.study(*sweeps)


sys.modules[__name__].__class__ = _Package
