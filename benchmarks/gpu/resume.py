"""A short sweep, killed (SIGKILL) after its first checkpoint, resumed, and compared with one that was not disturbed.

All weights should be the same bits: on a GPU, torch's deterministic algorithms are on.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from benchmarks.gpu.section import Section
from benchmarks.gpu.sizes import ROOT

COLUMNS = ("l0", "fvu", "delta_loss")  # of eval.json
POLL = 0.02  # seconds
SHOWN = 4000  # characters of the end of the output


def run(section: Section) -> None:
    words = overrides(section.sizes)
    section.note("python train.py -m " + " ".join(words))
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        if not _train(section, killed, words, kill=True) or not _train(section, killed, words, kill=False):
            return
        _rows(section, "evaluation of the resumed sweep", killed)
        if section.time_left() > 0 and _train(section, whole, words, kill=False):
            _rows(section, "evaluation of an undisturbed sweep", whole)
            _compare(section, killed, whole)


def overrides(sizes: dict[str, Any]) -> list[str]:
    """With the tiny model where the packages of the other one's weights are not installed."""
    source: Any = OmegaConf.load(ROOT / f"conf/model/{sizes['model']}.yaml").source
    there = all(find_spec(str(part).split("/")[0]) for part in source.get("parts", []))
    rest = [] if there else sizes["without"]
    return [f"model={sizes['model'] if there else 'tiny'}", *sizes["overrides"], "logger=csv", "name=resume", *rest]


def _train(section: Section, folder: Path, words: list[str], kill: bool) -> bool:
    """Whether the command was killed, or ended well, in the time that is left."""
    folder.mkdir(exist_ok=True)
    log, start, began = folder / "log", time.monotonic(), _checkpoints(folder)
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), "-m", *words], cwd=folder, stdout=file,
                                   stderr=subprocess.STDOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        try:
            while process.poll() is None and section.time_left() > 0 and not (kill and _checkpoints(folder)):
                time.sleep(POLL)
            code = process.poll()
        finally:
            process.kill()  # SIGKILL
            process.wait()
    good = code is None and section.time_left() > 0 if kill else code == 0
    section.row("commands", command="killed" if kill else "resumed" if began else "undisturbed", good=good,
                seconds=time.monotonic() - start, checkpoints=len(began))
    if not good:
        why = "no time was left" if code is None else f"the command ended with code {code}"
        section.fail(why, log.read_text()[-SHOWN:])
    return good


def _checkpoints(folder: Path) -> list[Path]:
    return list(folder.rglob("checkpoint/*.safetensors"))


def _rows(section: Section, table: str, folder: Path) -> None:
    for file in sorted(folder.rglob("eval.json")):
        numbers = json.loads(file.read_text())
        section.row(table, SAE="/".join(file.parent.parts[-2:]), **{key: numbers.get(key) for key in COLUMNS})


def _compare(section: Section, one: Path, other: Path) -> None:
    for file in sorted(one.rglob("sae_weights.safetensors")):
        found, wanted = (load_file(path) for path in (file, other / file.relative_to(one)))
        same = all(torch.equal(found[name], wanted[name]) for name in wanted)
        largest = max(float((found[name] - wanted[name]).abs().max()) for name in wanted)
        section.row("resumed against undisturbed", SAE="/".join(file.parent.parent.parts[-2:]), **{
            "same bits": same, "largest difference of a weight": largest})
