"""What each score is called, whether more of it is better, and whether verdicts on it are corrected for their number.

`<task>` of a judge (study/judge/), with the suffixes that its file defines, and with

    <task>_shuffled, <task>_none    the same with another latent's explanation, with none: what the task is compared with
"""
from __future__ import annotations

import re
from typing import NamedTuple

TASKS = {"detection": "detection by a model", "fuzz": "fuzzing by a model", "simulate": "simulation by a model",
         "intruder_lm": "intruder detection by a model"}  # of a judge
CONDITIONS = {"shuffled": "with another latent's explanation", "none": "without an explanation"}
YES = "yes"  # the score that people give


class Score(NamedTuple):
    words: str
    better: int  # 1: more is better, -1: less is better, 0: it describes and does not judge
    use: bool = False  # what the SAE is good for, beside how its features read
    primary: bool = False


_KNOWN = {
    "rule": Score("simulation by rules", 1, primary=True),
    "coverage": Score("coverage of labels", 1, primary=True),
    YES: Score("share judged by people to have one meaning", 1, primary=True),
    "rule_accuracy": Score("balanced accuracy of rules", 1),
    "rule_recall": Score("recall of rules", 1),
    "rule_f1": Score("F1 of rules", 1),
    "lookup_token": Score("simulation by the token", 1),
    "lookup_class": Score("simulation by the label", 1),
    "uncertainty": Score("uncertainty coefficient", 1),
    "context": Score("similarity of contexts", 1),
    "intruder": Score("intruder detection by embeddings", 1),
    "coverage_precise": Score("share of labels with a precise latent", 1),
    "known_f1": Score("F1 with the known features", 1),
    **{task: Score(words, 1) for task, words in TASKS.items()},
    "detection_balanced": Score("balanced accuracy of detection by a model", 1),
    "detection_same_token": Score("detection by a model among the same tokens", 1),
    "fuzz_balanced": Score("balanced accuracy of fuzzing by a model", 1),
    "simulate_spearman": Score("rank correlation of simulation by a model", 1),
    **{f"{task}_{key}": Score(f"{words} {condition}", 0)
       for task, words in TASKS.items() for key, condition in CONDITIONS.items()},
    "absorption": Score("absorption", -1, use=True),
    "splits": Score("feature splits", -1, use=True),
    "probe_x": Score("probing of the activations themselves", 0),
}
PRIMARY = tuple(name for name, one in _KNOWN.items() if one.primary)


def score(name: str) -> Score:
    """Of a score that is not listed, more is neither better nor worse."""
    if re.fullmatch(r"probe_\d+", name):
        return Score(f"probing with {name[6:]} latent{'s' * (name != 'probe_1')}", 1, use=True)
    return _KNOWN.get(name, Score(name.replace("_", " "), 0))


def task_of(name: str) -> str | None:
    """The judge's task that a score is of: `detection` of `detection_balanced`."""
    return next((task for task in TASKS if name == task or name.startswith(f"{task}_")), None)
