"""The pages of a study, below <sweep>/study/:

    study.html                                             the architectures, compared
    features/index.html                                    all scored latents
    features/<arch>/<sparsity>[.<seed>]/index.html         those of one SAE
    features/<arch>/<sparsity>[.<seed>]/<latent>.html      one latent

They are files that need no server and no network; the tables and the latents need no script.
"""
from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from saesweep.runtime import atomic
from saesweep.runtime.console import ProgressLine, TimeLeft
from saesweep.storage import study_tables
from saesweep.study.hits import TextHalf
from saesweep.study.pages import index, study_page
from saesweep.study.pages.facts import Means
from saesweep.study.pages.latent import latent_pages
from saesweep.study.pages.of_sae import Explanation, OfSAE, titles
from saesweep.study.pages.windows import Windows

__all__ = ["Explanation", "OfSAE", "write"]
FEATURES = "features"


def write(
    saes: Sequence[OfSAE], report: Mapping[str, Any], summary: pd.DataFrame, folder: Path, *, command: str
) -> list[Path]:
    """Write all pages in place of those that are there. Returns study.html and the index of all latents.

    saes: trained ones. report, summary: the content of study.json and of summary.csv. folder: <sweep>/study. command: what
    the user typed.
    """
    saes = [sae for sae in saes if sae.collected.control is None and len(sae.scores)]
    folders = study_tables.folders_of_pages(sae.collected.path for sae in saes)
    names, draft = titles(saes), folder / f".{FEATURES}.{os.getpid()}.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    try:
        _features(saes, names, summary, folders, draft, command)
        shutil.rmtree(folder / FEATURES, ignore_errors=True)
        draft.rename(folder / FEATURES)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    scores = pd.concat([sae.scores for sae in saes]) if saes else pd.DataFrame(columns=pd.Index(study_tables.FEATURE))
    return [write_study_page(folder, report, summary, scores, command=command), folder / FEATURES / "index.html"]


def write_study_page(
    folder: Path, report: Mapping[str, Any], summary: pd.DataFrame, scores: pd.DataFrame, *, command: str
) -> Path:
    """study.html, beside the pages of the latents. scores: rows of scores.csv of the trained SAEs."""
    names = dict(zip(summary["path"], summary["arch"], strict=True))  # of several sweeps with the sweep
    scores = scores.assign(arch=[names.get(path, arch) for path, arch in zip(scores["path"], scores["arch"], strict=True)])
    folders = study_tables.folders_of_pages(scores["path"])
    made = study_page.html(report, summary, scores, folders, folder.resolve().parent.name, command)
    atomic.write(folder / "study.html", made)
    return folder / "study.html"


def _features(
    saes: Sequence[OfSAE], names: Sequence[str], summary: pd.DataFrame, folders: Mapping[str, str], draft: Path, command: str
) -> None:
    """The folder `features`, as `draft`. Windows are made once for each text."""
    windows: dict[int, tuple[TextHalf, Windows]] = {}
    below = [folders[sae.collected.path].removeprefix(f"{FEATURES}/") for sae in saes]
    line, time_left = ProgressLine(), TimeLeft()
    for number, (sae, title, place) in enumerate(zip(saes, names, below, strict=True)):
        line(f"writing the pages of {title}, {number + 1} of {len(saes)} SAEs{time_left(number, len(saes))}")
        text = sae.collected.test.text
        if id(text) not in windows:
            windows[id(text)] = text, Windows(text, sae.tokenizer)
        means, up = means_of(summary, sae.collected.path), "/".join([".."] * (place.count("/") + 2))
        (draft / place).mkdir(parents=True, exist_ok=True)
        for latent, page in latent_pages(sae, title, means, windows[id(text)][1], command, up):
            (draft / place / f"{latent}.html").write_text(page, encoding="utf-8")
        (draft / place / "index.html").write_text(index.of_sae(sae, title, means, up), encoding="utf-8")
    draft.mkdir(parents=True, exist_ok=True)
    (draft / "index.html").write_text(index.of_all(saes, names, below), encoding="utf-8")


def means_of(summary: pd.DataFrame, path: str) -> Means:
    """By score: the uniform mean of an SAE's latents, and that of its control."""
    rows = summary.loc[(summary["path"] == path) & summary["control"].isna()]
    return {str(name): (float(own), float(control)) for name, own, control in
            rows[["score", "uniform", "baseline"]].to_numpy(object).tolist()}
