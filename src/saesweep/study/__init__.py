"""Interpretability: what the latents of an SAE mean, by scores, judges and people. `saesweep study FOLDER`; from Python

    from saesweep.study.collect import collect, collected

`saesweep.study("outputs/default")` is the table of a finished study (notebook/table.py); `saesweep.study` is this package too.
"""
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class _Package(ModuleType):
    def __call__(self, *sweeps: Any) -> "pd.DataFrame":
        """The main scores of finished studies: a DataFrame with one row per SAE of one or more sweeps, or of a folder in which
        several sweeps were studied together. An SAE that was not studied has NaN.

            model, site, layer, arch, sparsity, seed      as in pareto.csv; `arch` names the sweep too where it is in several
            variant         as in pareto.csv, where further settings differ
            l0, fvu, delta_loss                           of the evaluation (docs/metrics.md)
            rule            mean over the scored latents: r of activation and what the latent's rule in words predicts
            coverage        mean over the labels of tokens: F1 of the latent that finds the label best
            lookup_token    mean over the latents: r of activation and its mean for the token
            uncertainty     mean over the latents: share of the entropy of firing that the best label explains, 0 to 1
            probe_1         mean over the labels: F1 of the best probe on one latent
            absorption      mean over the labels: share of its tokens on which one latent takes the place of those that find the
                            label; less is better
            detection       mean over the explained latents: AUROC of a judge that has the explanation
            yes             share of the rated latents that raters say have one meaning
            <score>_by_frequency    of a score of latents: the mean in which a latent counts by how often it is active
            <score>_control         the score of the control: of an SAE of random directions, if there is one
            folder                  what `load` takes

        A score is a column where it was measured for an SAE. All scores, with intervals: study/summary.csv.
        Raises UsageError where a folder is no sweep, or where no SAE was studied.
        """
        from saesweep.study.notebook import table  # imports pandas, which the command line does without

        return table.study(*sweeps)


sys.modules[__name__].__class__ = _Package
