"""Detection: does the latent fire anywhere in this window? One window per prompt, because several would leak the share.

    detection              AUROC of P(yes), windows of all deciles against windows in which the latent is silent throughout
    detection_balanced     balanced accuracy of the same
    detection_same_token   AUROC against silent windows with the tokens on which it usually fires: the word, or the word here?
"""
from __future__ import annotations

from collections.abc import Sequence

from saesweep.study.judge.explanation import described
from saesweep.study.judge.marks import DATA, fenced
from saesweep.study.judge.messages import Request
from saesweep.study.judge.metrics import auroc, balanced_accuracy
from saesweep.study.judge.tasks import ONE_WORD, YES_NO, Question, Reading, Task, read_yes, truth_and_said
from saesweep.study.judge.windows import TEST, LatentExamples, enough

INSTRUCTIONS = (
    "A feature inside a language model is active on some tokens of a text and silent on the others. You get a description of "
    "what makes one feature active, and an excerpt of text. Decide whether the feature is active on at least one token of the "
    f"excerpt. {DATA} Answer with one word, yes or no."
)


def ask(examples: LatentExamples, explanation: str | None, count: int, seed: int) -> list[Question]:
    """No question where there are not enough windows in which it fires, or none in which it is silent."""
    windows = {group: enough(examples.test.get(group, ()), count) for group in TEST}
    if not windows["decile"]:
        return []
    questions = [Question(group, group == "decile", _request(window.text, explanation))
                 for group, several in windows.items() for window in several]
    return questions if len(questions) > len(windows["decile"]) else []


def _request(text: str, explanation: str | None) -> Request:
    content = f"{described(explanation)}\n\n{fenced('excerpt', text)}\n\nIs the feature active in the excerpt?"
    return Request(INSTRUCTIONS, content, ONE_WORD, YES_NO)


def score(readings: Sequence[Reading]) -> dict[str, float]:
    random, same = (truth_and_said([one for one in readings if one.group in ("decile", group)]) for group in TEST[1:])
    return {"": auroc(*random), "_balanced": balanced_accuracy(*random), "_same_token": auroc(*same)}


DETECTION = Task(ask, read_yes, score, ("", "_balanced", "_same_token"))
