"""The explanations of the latents of one SAE, or of one of its controls, and their scores.

What was asked and answered is in the folder of the SAE, one line of JSON each:

    study/explanations.jsonl   control, latent, explainer, explanation (null: the request failed)
    study/answers.jsonl        control, latent, task, condition, group, truth, said (null: the request failed or was unreadable)
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from saesweep.runtime.atomic import write
from saesweep.study.judge.all_tasks import TASKS
from saesweep.study.judge.asking import Asker
from saesweep.study.judge.controls import controlled, shuffled
from saesweep.study.judge.explanation import explanation_request, read_explanation
from saesweep.study.judge.tasks import Question, scored
from saesweep.study.judge.windows import LatentExamples

EXPLANATIONS, ANSWERS = "explanations.jsonl", "answers.jsonl"
Row = dict[str, Any]
OWN = "own"  # the condition in which a latent's own explanation is given


class Session(NamedTuple):
    """What all SAEs of a study are explained and judged with."""

    settings: Mapping[str, Any]
    explainer: Asker | None  # None: the explanations are the rules
    judge: Asker
    names: Mapping[str, str]  # columns that say who explained and who judged
    seed: int


class Asked(NamedTuple):
    """The questions of one task about one latent, in one condition, with what the answers say."""

    latent: int
    task: str
    condition: str
    questions: list[Question]
    said: list[Any]


@dataclass
class OfSAE:
    rows: list[Row] = field(default_factory=list)  # of scores, one per latent
    explanations: list[Row] = field(default_factory=list)
    answers: list[Row] = field(default_factory=list)


def of_sae(latents: Sequence[LatentExamples], session: Session) -> OfSAE:
    """latents: of one SAE or control."""
    explanations = explained(latents, session)
    asked = _asked(latents, explanations, session)
    found = OfSAE()
    for one in latents:
        key, text = {"control": one.control, "latent": one.latent}, explanations.get(one.latent)
        own = [some for some in asked if some.latent == one.latent]
        found.rows.append({"path": one.path, **key, **session.names, "explanation": text, **_columns(own, text)})
        found.explanations.append({**key, "explainer": session.names["explainer"], "explanation": text})
        found.answers += [
            {**key, "task": some.task, "condition": some.condition, "group": q.group, "truth": q.truth, "said": said}
            for some in own for q, said in zip(some.questions, some.said, strict=True)]
    return found


def write_records(job: Path, found: Sequence[OfSAE]) -> None:
    """Both files whole, when all requests of the SAE and of its controls are answered."""
    _write(job / "study" / EXPLANATIONS, [row for one in found for row in one.explanations])
    _write(job / "study" / ANSWERS, [row for one in found for row in one.answers])


def _write(file: Path, rows: Iterable[Row]) -> None:
    write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def explained(latents: Sequence[LatentExamples], session: Session) -> dict[int, str]:
    """The explanation of each latent that has one."""
    if session.explainer is None:
        return {one.latent: one.rule for one in latents if one.rule}
    requests = {one.latent: request for one in latents if (request := explanation_request(one))}
    answers = session.explainer.ask(list(requests.values()))
    read = {latent: read_explanation(answer) for latent, answer in zip(requests, answers, strict=True)}
    return {latent: text for latent, text in read.items() if text}


def _asked(latents: Sequence[LatentExamples], explanations: Mapping[int, str], session: Session) -> list[Asked]:
    """All questions of an SAE go out together, so that requests never wait for one latent."""
    asked = list(_questions(latents, explanations, session))
    answers = iter(session.judge.ask([question.request for some in asked for question in some.questions]))
    for some in asked:
        some.said.extend(TASKS[some.task].read(question, next(answers)) for question in some.questions)
    return asked


def _questions(latents: Sequence[LatentExamples], explanations: Mapping[int, str], session: Session) -> Iterator[Asked]:
    settings, others = session.settings, shuffled(latents, explanations, session.seed)
    again = {one.latent for one in controlled(latents, settings["controls"], session.seed)}
    for one in latents:
        own = explanations.get(one.latent)
        texts = {OWN: own, **({"shuffled": others.get(one.latent), "none": None} if one.latent in again else {})}
        for task in settings["tasks"]:
            for condition, text in texts.items() if TASKS[task].explained else [(OWN, own)]:
                if text or condition == "none" or not TASKS[task].explained:
                    questions = TASKS[task].ask(one, text, settings["windows"], session.seed)
                    yield Asked(one.latent, task, condition, questions, [])


def _columns(asked: Sequence[Asked], explanation: str | None) -> Row:
    """The scores of one latent; of the controls only the score itself."""
    columns: Row = {"explanation_failed": float(explanation is None)}
    reasons = [] if explanation else ["no explanation"]
    for some in asked:
        scores = scored(TASKS[some.task], some.questions, some.said)
        if some.condition != OWN:
            columns[f"{some.task}_{some.condition}"] = scores[""]
            continue
        columns |= {some.task + suffix: score for suffix, score in scores.items()}
        if math.isnan(scores[""]):
            reasons.append(f"{some.task}: too few {'answers' if some.questions and scores['_failed'] > 0 else 'windows'}")
    return {**columns, "judge_reason": "; ".join(reasons)}
