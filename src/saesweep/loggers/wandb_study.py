"""A study in W&B: the scores of an SAE in the summary of its run, and those of a sweep, with examples, in its summary run.

Only runs that the training has recorded are added to, offline ones in a further folder of the same id. Errors are logged as
warnings and change no result.
"""
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from saesweep.config.schema import ALIASES, MODES
from saesweep.loggers import wandb_runs
from saesweep.loggers.identity import MemberInfo
from saesweep.loggers.wandb_sae import about, final
from saesweep.loggers.wandb_tables import curves_of, matched_l0, standing, written
from saesweep.storage import files

log = logging.getLogger(__name__)


def chosen_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The node `logger.wandb` of an SAE; None without that logger, and where it is disabled.

    WANDB_MODE=offline or disabled has precedence over the mode with which the SAE was trained.
    """
    if not (chosen := (config.get("logger") or {}).get("wandb")):
        return None
    now = os.environ.get("WANDB_MODE", "")
    mode = ALIASES.get(now, now)
    chosen = {**chosen, "mode": mode} if mode in MODES and mode != "online" else dict(chosen)
    return None if chosen["mode"] == "disabled" else chosen


def recorded_id(folder: Path) -> str | None:
    """The id of the last run that has written to <folder>/wandb."""
    runs = sorted(folder.glob("wandb/*run-*-*/"), key=lambda run: run.name.removeprefix("offline-"))
    return runs[-1].name.rpartition("-")[2] if runs else None


def upload(sweep: Path, saes: Mapping[Path, Mapping[str, Any]], scores: Mapping[Path, Mapping[str, float]],
           examples: pd.DataFrame, variants: Mapping[Path, str] = MappingProxyType({})) -> None:
    """Of the SAEs by folder: `saes` their settings, `scores` `study/rule` and so on, `variants` what else tells them apart.
    examples: of latents."""
    logged = {job: chosen for job, config in saes.items() if (chosen := chosen_of(config)) and recorded_id(job)}
    if not logged:
        return
    for job, chosen in logged.items():
        _submit(f"the run of {job}", lambda job=job, chosen=chosen: _add(
            MemberInfo.of(saes[job], job, variants.get(job, "")), chosen, scores.get(job, {})))
    _submit(f"the summary of {sweep}", lambda: _summarise(sweep, next(iter(logged.values())), examples))
    wandb_runs.flush()


def _submit(what: str, work: Callable[[], None]) -> None:
    def or_warn() -> None:
        try:
            work()
        except Exception as error:  # whatever W&B raises
            log.warning("W&B: %s has no scores of the study: %s: %s", what, type(error).__name__, error)

    wandb_runs.submit(or_warn)


def _add(sae: MemberInfo, chosen: Mapping[str, Any], scores: Mapping[str, float]) -> None:
    """With the final metrics: an offline run does not know what an earlier one has in its summary."""
    run = wandb_runs.open_run(chosen, sae.folder, **about(sae) | {"id": recorded_id(sae.folder)})
    run.summary.update({**final(files.numbers(sae.folder)), **scores})
    run.finish()


def _summarise(sweep: Path, chosen: Mapping[str, Any], examples: pd.DataFrame) -> None:
    run, df = wandb_runs.SummaryRun(chosen, sweep), standing(sweep)
    run.log(df, curves_of(df), matched_l0(sweep), examples, written(sweep))
    run.finish(0)
