"""What `saesweep study` does with its sweeps: one stage after the other, each of which keeps what is whole.

    collect     the activations of every SAE and control (collect.py)
    score       scores that need no judge, those of a judge if one is asked for, and the comparison (scoring.py, judging.py)
    pages       study.html and a page per scored latent (pages/), and the main scores in pareto.csv, on pareto.html and in W&B
"""
from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saesweep.data.resources import Resources
from saesweep.loggers import wandb_study
from saesweep.report import pareto
from saesweep.runtime import distributed
from saesweep.runtime.console import ProgressLine
from saesweep.storage import study_tables
from saesweep.study import pages
from saesweep.study.collect import collect
from saesweep.study.comparison.summaries import lines
from saesweep.study.judging import planned
from saesweep.study.pages.gather import Completion, gather
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.people.origin import set_aside
from saesweep.study.scoring import Scored, base_of, run_scores
from saesweep.study.snippets import snippets
from saesweep.study.subjects import of_sweeps


class Result(NamedTuple):
    failed: dict[str, Exception]  # by SAE
    lines: list[str]  # the comparison in words

    @property
    def problem(self) -> str:
        """What failed, in words; empty where nothing did."""
        again = [f"  {one}: {error}" for one, error in self.failed.items()]
        return "\n".join([f"{len(again)} failed; the same command tries again", *again]) if again else ""


def run(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources | None = None) -> Result:
    """All stages. Raises UsageError for a user's mistake, before a weight is loaded."""
    resources, _ = resources or Resources(), base_of(sweeps, settings["out"])
    planned(len(of_sweeps(sweeps, settings)), settings)
    failed = collect(sweeps, settings, resources)
    studies = [sweep.resolve() / study_tables.FOLDER for sweep in sweeps] if distributed.rank() == 0 else []
    stale = [line for study in studies for line in set_aside(study)]
    scored = run_scores(sweeps, settings, resources)
    if scored is None:  # on a rank other than the first
        return Result(failed, [])
    return Result(failed, [*lines(scored.comparison), *map(str, _write_pages(sweeps, scored, settings, resources)), *stale])


def _write_pages(
    sweeps: Sequence[Path], scored: Scored, settings: Mapping[str, Any], resources: Resources
) -> list[Path]:
    show = ProgressLine()
    show("writing the pages of the latents")
    saes = gather([sae for sae, _ in scored.saes], scored.scores, resources)
    command = shlex.join(["saesweep", "study", *map(str, sweeps)])
    complete = Completion(resources, logits=settings["logits"], device=settings["device"])
    written = pages.write(saes, scored.comparison, scored.summary, scored.base / study_tables.FOLDER, command=command,
                          complete=complete, made_with={"logits": settings["logits"]})
    for folder in dict.fromkeys([*map(Path.resolve, sweeps), scored.base]):
        if (folder / "pareto.csv").is_file():  # with the scores as columns, and links to the latents
            pareto.write(pareto.report(sweeps if folder == scored.base else [folder], folder), folder)
    _upload(sweeps, saes, scored.base)
    return written


def _upload(sweeps: Sequence[Path], saes: Sequence[OfSAE], base: Path) -> None:
    """To W&B, as far as the SAEs are logged there."""
    for sweep in dict.fromkeys(map(Path.resolve, sweeps)):
        mine = [sae for sae in saes if sae.collected.folder.is_relative_to(sweep)]
        configs = {sae.collected.folder: sae.collected.config for sae in mine}
        if any(map(wandb_study.chosen_of, configs.values())):
            scores = {sae.collected.folder: study_tables.wandb_keys(base, sae.collected.path) for sae in mine}
            variants = {sae.collected.folder: sae.collected.variant for sae in mine}
            wandb_study.upload(sweep, configs, scores, snippets(mine), variants)
