"""What each score is called in sentences, and whether more of it is better."""
from __future__ import annotations

import re
from typing import NamedTuple


class Score(NamedTuple):
    words: str
    better: int  # 1: more is better, -1: less is better, 0: it describes and does not judge
    use: bool = False  # what the SAE is good for, beside how its features read


_KNOWN = {
    "rule": Score("simulation by rules", 1),
    "rule_accuracy": Score("balanced accuracy of rules", 1),
    "rule_recall": Score("recall of rules", 1),
    "rule_f1": Score("F1 of rules", 1),
    "lookup_token": Score("simulation by the token", 1),
    "lookup_class": Score("simulation by the label", 1),
    "uncertainty": Score("uncertainty coefficient", 1),
    "context": Score("similarity of contexts", 1),
    "intruder": Score("intruder detection", 1),
    "coverage": Score("coverage of labels", 1),
    "coverage_precise": Score("share of labels with a precise latent", 1),
    "detection": Score("detection", 1),
    "detection_balanced": Score("balanced accuracy of detection", 1),
    "detection_same_token": Score("detection among the same tokens", 1),
    "fuzz": Score("fuzzing", 1),
    "fuzz_balanced": Score("balanced accuracy of fuzzing", 1),
    "known_f1": Score("F1 with the known features", 1),
    "simulate": Score("simulation by a language model", 1),
    "yes": Score("share judged to have one meaning", 1),
    "absorption": Score("absorption", -1, use=True),
    "splits": Score("feature splits", -1, use=True),
}


def score(name: str) -> Score:
    """Of a score that is not listed, more is neither better nor worse."""
    if re.fullmatch(r"probe_\d+", name):
        return Score(f"probing with {name[6:]} latent{'s' * (name != 'probe_1')}", 1, use=True)
    return _KNOWN.get(name, Score(name.replace("_", " "), 0))
