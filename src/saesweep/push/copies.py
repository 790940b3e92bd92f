"""The files of an SAE as they are uploaded: in the layout of a sweep, and with settings that hold no path of this machine."""
from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from saesweep.errors import UsageError
from saesweep.push.private import command, replaced
from saesweep.push.selected import Chosen
from saesweep.runtime import atomic
from saesweep.storage import checkpoints, files, on_hub, sweep_table

REWRITTEN = (files.RESOLVED, files.OVERRIDES, files.CFG, checkpoints.ORIGIN)
CARD, MARK = "README.md", "- saesweep"  # a tag in its header


def require_own(out: Path) -> None:
    """Raises UsageError where the folder holds anything that an earlier call has not written."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--dry-run {out}: is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not _is_own(out):
        raise UsageError(f"--dry-run {out}: holds other files; give an empty folder, or one that a --dry-run has written")


def _is_own(out: Path) -> bool:
    card = (out / CARD).read_text(errors="replace") if (out / CARD).is_file() else ""
    return card.startswith("---\n") and MARK in card.partition("\n---\n")[0].splitlines()


def write(saes: Sequence[Chosen], out: Path, linked: bool) -> None:
    """The folders of these SAEs, and of no others that an earlier call has left.

    linked: by links in place of copies, for a folder that is read once.
    """
    for stale in {*sweep_table.jobs(out)} - {out / one.place for one in saes}:
        shutil.rmtree(stale)
    for one in saes:
        _write_config(one, out / one.place)
        for name in on_hub.FILES:
            source, target = one.job / name, out / one.place / name
            if name in REWRITTEN or not source.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(source) if linked else shutil.copyfile(source, target)


def _write_config(one: Chosen, folder: Path) -> None:
    known = one.public.rewritten
    atomic.write(folder / files.RESOLVED, OmegaConf.to_yaml(OmegaConf.create(one.public.settings)))
    if (one.job / files.OVERRIDES).is_file():
        words: Any = OmegaConf.to_container(OmegaConf.load(one.job / files.OVERRIDES))
        atomic.write(folder / files.OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(command(words))))
    for name in (files.CFG, checkpoints.ORIGIN):
        if (one.job / name).is_file():
            atomic.write(folder / name, json.dumps(replaced(json.loads((one.job / name).read_text()), known), indent=1))
