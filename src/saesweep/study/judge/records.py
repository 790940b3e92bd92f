"""What was asked and answered, one line of JSON each, in the folder of the SAE.

    study/explanations.jsonl   control, latent, explainer, explanation (null: the request failed)
    study/answers.jsonl        control, latent, task, condition, group, truth, said (null: the request failed or was unreadable)

Both are written whole, when all requests of the SAE and of its controls are answered.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from saesweep.runtime.atomic import write

EXPLANATIONS, ANSWERS = "explanations.jsonl", "answers.jsonl"


def write_records(job: Path, explanations: Iterable[Mapping[str, Any]], answers: Iterable[Mapping[str, Any]]) -> None:
    (job / "study").mkdir(parents=True, exist_ok=True)
    for name, records in ((EXPLANATIONS, explanations), (ANSWERS, answers)):
        write(job / "study" / name, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
