"""Explain latents by a language model and score the explanations: a row per latent, to be joined to the other scores.

    path, control, latent        of the latent
    explainer, judge             who explained and who answered the tasks; rules: found without a language model
    explanation                  in words
    <task>...                    the scores of the tasks, as their files define them
    <task>_shuffled, <task>_none the same questions with another latent's explanation and with none, of a share of the latents
    <task>_failed                share of the questions without a readable answer; explanation_failed: 1 without an explanation
    judge_reason                 why a score is missing
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from saesweep.runtime.console import ProgressLine
from saesweep.study.judge.all_tasks import TASKS
from saesweep.study.judge.asking import Asker
from saesweep.study.judge.cache import ResponseCache
from saesweep.study.judge.compose import conf_model
from saesweep.study.judge.controls import CONDITIONS
from saesweep.study.judge.messages import Model
from saesweep.study.judge.of_sae import Row, Session, of_sae, write_records
from saesweep.study.judge.plan import plan, require_affordable
from saesweep.study.judge.settings import api_key, has_model, require_sending_allowed
from saesweep.study.judge.windows import LatentExamples

KEY = ["path", "control", "latent"]


def judge(
    latents: Iterable[LatentExamples], settings: Mapping[str, Any], *, jobs: Mapping[str, Path], cache: Path, seed: int
) -> pd.DataFrame:
    """The scores of the first `explainer.latents` of each SAE and control.

    latents: in their sampling order. settings: the checked node `explainer`. jobs: the folder of each path, in which the
    explanations and answers are written. cache: the file of responses. Raises UsageError where it would cost too much, where
    text may not be sent, and where the model does not answer.
    """
    several = [list(some) for _, some in groupby(sorted(latents, key=_sae), key=_sae)]
    if not has_model(settings):
        return _without_model(several, settings)
    require_sending_allowed(settings)
    planned = plan([len(some) for some in several], settings)
    require_affordable(planned, settings)
    rows: list[Row] = []
    with closing(ResponseCache(cache)) as responses:
        session = _session(settings, responses, seed, planned.requests)
        for path, of_path in groupby(several, key=lambda some: some[0].path):
            found = [of_sae(some[: settings["latents"]], session) for some in of_path]
            write_records(jobs[path], found)
            rows += [row for one in found for row in one.rows]
    return pd.DataFrame(rows, columns=columns(settings["tasks"]))


def columns(tasks: Sequence[str]) -> list[str]:
    """Those of the result, in their order; of tasks that were not asked there are none."""
    scores = [name for task in TASKS if task in tasks for name in _of_task(task)]
    return [*KEY, "explainer", "judge", "explanation", "explanation_failed", *scores, "judge_reason"]


def _of_task(task: str) -> list[str]:
    suffixes = TASKS[task].suffixes
    controls = [f"_{condition}" for condition in CONDITIONS] if TASKS[task].explained else []
    return [task + suffix for suffix in (*suffixes, *controls, "_failed")]


def _sae(one: LatentExamples) -> tuple[str, str]:
    return one.path, one.control or ""


def _without_model(several: Sequence[Sequence[LatentExamples]], settings: Mapping[str, Any]) -> pd.DataFrame:
    rows = [{"path": one.path, "control": one.control, "latent": one.latent, "explainer": settings["name"],
             "explanation": one.rule} for some in several for one in some]
    return pd.DataFrame(rows, columns=[*KEY, "explainer", "explanation"] if settings["name"] == "rules" else KEY)


def _session(settings: Mapping[str, Any], responses: ResponseCache, seed: int, most: int) -> Session:
    done, show = 0, ProgressLine()

    def progress(answered: int) -> None:
        nonlocal done
        done += answered
        show(f"explainer: {done:,} of at most {most:,} requests are answered")

    def asker(name: str) -> Asker:
        return Asker(model_of(settings, name, seed), responses, settings["give_up_after"], progress)

    explaining, judging = settings["model"], settings.get("judge") or settings["model"]
    names = {"explainer": f"{settings['name']}:{explaining}", "judge": f"{settings['name']}:{judging}"}
    judges = asker(judging)
    if settings["explain"] == "rules":
        return Session(settings, None, judges, {**names, "explainer": "rules"}, seed)
    return Session(settings, judges if judging == explaining else asker(explaining), judges, names, seed)


def model_of(settings: Mapping[str, Any], name: str, seed: int) -> Model:
    if settings["name"] == "local":
        from saesweep.study.judge.local import LocalModel

        return LocalModel(settings, conf_model(name))
    from saesweep.study.judge.openai_client import OpenAIModel

    return OpenAIModel(settings, name, seed)


def require_model(settings: Mapping[str, Any]) -> None:
    """Raise UsageError where `model_of` would; nothing is loaded and nobody is asked."""
    if settings["name"] == "local":
        conf_model(settings["model"])
    if settings["name"] == "openai":
        api_key(settings)
