"""What a sweep says of its last study: the settings, in <sweep>/study/study.yaml, and the folders that have its tables."""
from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from saesweep.runtime import atomic, program
from saesweep.study.subjects import FOLDER

SETTINGS = "study.yaml"


def write_settings(sweep: Path, settings: Mapping[str, Any]) -> None:
    """`out` is written relative to the sweep's folder."""
    (sweep / FOLDER).mkdir(exist_ok=True)
    out = settings["out"] and os.path.relpath(Path(settings["out"]).resolve(), sweep.resolve())
    atomic.write(sweep / FOLDER / SETTINGS, yaml.safe_dump({**settings, "out": out}, sort_keys=False))


def settings_of(sweep: Path) -> dict[str, Any]:
    """Empty where there was no study."""
    file = sweep / FOLDER / SETTINGS
    return yaml.safe_load(file.read_text()) if file.is_file() else {}


def folders_of_tables(sweep: Path) -> list[Path]:
    """Those that may hold study/scores.csv with the SAEs of a sweep: that of its last study first, then the sweep's own."""
    sweep = sweep.resolve()
    out = settings_of(sweep).get("out")
    return list(dict.fromkeys([*([(sweep / out).resolve()] if out else []), sweep]))


def command(*sweeps: Path) -> str:
    """That studies these sweeps: what an error tells the user to run."""
    here = Path.cwd()
    shown = [one.relative_to(here) if one.is_relative_to(here) else one for one in sweeps]
    out = ["--out", str(shown[0].parent / "both")] if len(sweeps) > 1 else []
    return f"{program.called('study')} {shlex.join([*map(str, shown), *out])}"
