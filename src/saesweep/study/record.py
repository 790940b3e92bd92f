"""What a file of collected activations says of itself, and whether it answers what is asked now."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from saesweep.errors import UsageError
from saesweep.study.settings import identity
from saesweep.study.subjects import Subject

FORMAT = "1"  # of the files; another one is not read
MEASURED = "2"  # how controls are measured: to be raised where controls.py measures them otherwise


def header(subject: Subject, settings: Mapping[str, Any], text: str) -> dict[str, str]:
    """The metadata of a subject's files. text: the digest of what was read."""
    return {
        "format": FORMAT, "settings": json.dumps(identity(settings)), "features": str(settings["features"]),
        "weights": subject.weights, "text": text, "control": subject.control or "", "like": subject.path,
        **({"measured": MEASURED} if subject.control else {}),
    }


def outdated(there: Mapping[str, str], subject: Subject) -> bool:
    """Whether it is a control that an earlier version measured otherwise. No setting brings it back: it is collected anew."""
    return subject.control is not None and there.get("measured") != MEASURED


def differences(
    there: Mapping[str, str], subject: Subject, settings: Mapping[str, Any], text: str | None, unfinished: bool = False
) -> list[str]:
    """One line for each thing that differs; text: None where it is not known.

    More features than are asked for do no harm, unless more is to be added (`unfinished`).
    """
    if there.get("format") != FORMAT:
        return [f"format: {there.get('format')} there, {FORMAT} here"]
    made = json.loads(there["settings"])
    found = [f"{key}: {made.get(key)} there, {now} here" for key, now in identity(settings).items() if made.get(key) != now]
    features = int(there["features"])
    if features < settings["features"] or (unfinished and features > settings["features"]):
        found.append(f"features: {features} there, {settings['features']} here")
    if there["weights"] != subject.weights:
        found.append(f"weights: {there['weights'][:16]} there, {subject.weights[:16]} here: this SAE was trained again")
    if text is not None and there["text"] != text:
        found.append(f"text: {there['text']} there, {text} here: the held-out text has changed")
    return found


def refuse(changed: Mapping[str, Sequence[str]]) -> None:
    """Raises UsageError where there are differences, by the label of the subject."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for label, lines in changed.items():
        alike.setdefault(tuple(lines), []).append(label)
    parts = ["\n  ".join([f"{_named(labels)} collected with other settings:", *lines]) for lines, labels in alike.items()]
    if parts:
        raise UsageError("\n".join([*parts, "write the settings that are there, or replace what was collected with "
                                            "overwrite=true"]))


def _named(labels: Sequence[str]) -> str:
    return f"{labels[0]} was" if len(labels) == 1 else f"{len(labels)} SAEs and controls, such as {labels[0]}, were"
