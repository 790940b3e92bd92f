"""The pages of a study, below <sweep>/study/:

    study.html                                             the architectures, compared
    features/index.html                                    all scored latents
    features/<arch>/<sparsity>[.<seed>]/index.html         those of one SAE
    features/<arch>/<sparsity>[.<seed>]/<latent>.html      one latent

They are files that need no server and no network; the tables and the latents need no script.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from saesweep.runtime import atomic
from saesweep.runtime.console import ProgressLine, TimeLeft
from saesweep.storage import study_tables
from saesweep.study.hits import TextHalf
from saesweep.study.pages import index, study_page
from saesweep.study.pages.facts import Means
from saesweep.study.pages.kept_pages import is_kept, made_from, remove_others, replaced
from saesweep.study.pages.latent import latent_pages
from saesweep.study.pages.of_sae import Explanation, OfSAE, titles
from saesweep.study.pages.windows import Windows

__all__ = ["Explanation", "OfSAE", "write"]
FEATURES = "features"


def write(
    saes: Sequence[OfSAE], report: Mapping[str, Any], summary: pd.DataFrame, folder: Path, *, command: str,
    complete: Callable[[OfSAE], OfSAE] = lambda sae: sae, made_with: Mapping[str, Any] = MappingProxyType({}),
) -> list[Path]:
    """Write all pages that are not there yet or say what has changed since. Returns study.html and the index of all latents.

    saes: trained ones. report, summary: the content of study.json and of summary.csv. folder: <sweep>/study. command: what
    the user typed. complete: adds what takes weights to an SAE whose pages are written, with the settings made_with.
    """
    saes = [sae for sae in saes if sae.collected.control is None and len(sae.scores)]
    folders = study_tables.folders_of_pages(sae.collected.path for sae in saes)
    _features(saes, summary, folders, folder / FEATURES, command, complete, made_with)
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
    saes: Sequence[OfSAE], summary: pd.DataFrame, folders: Mapping[str, str], features: Path, command: str,
    complete: Callable[[OfSAE], OfSAE], made_with: Mapping[str, Any],
) -> None:
    """The folder `features`. Windows are made once for each text."""
    windows: dict[int, tuple[TextHalf, Windows]] = {}
    names, below = titles(saes), [folders[sae.collected.path].removeprefix(f"{FEATURES}/") for sae in saes]
    line, time_left = ProgressLine(), TimeLeft()
    features.mkdir(parents=True, exist_ok=True)
    remove_others(features, [features / place for place in [*below, "index.html"]])
    for number, (sae, title, place) in enumerate(zip(saes, names, below, strict=True)):
        means = means_of(summary, sae.collected.path)
        digest = made_from(sae, title, means, command, dict(made_with))
        if is_kept(features / place, sae, digest):
            continue
        line(f"writing the pages of {title}, {number + 1} of {len(saes)} SAEs{time_left(number, len(saes))}")
        text = sae.collected.test.text
        if id(text) not in windows:
            windows[id(text)] = text, Windows(text, sae.tokenizer)
        with replaced(features / place, digest) as draft:
            _of_sae(complete(sae), title, means, windows[id(text)][1], command, place.count("/") + 2, draft)
    atomic.write(features / "index.html", index.of_all(saes, names, below))


def _of_sae(sae: OfSAE, title: str, means: Means, windows: Windows, command: str, depth: int, folder: Path) -> None:
    """The pages of one SAE. depth: of their folder below that of the study."""
    up = "/".join([".."] * depth)
    for latent, page in latent_pages(sae, title, means, windows, command, up):
        (folder / f"{latent}.html").write_text(page, encoding="utf-8")
    (folder / "index.html").write_text(index.of_sae(sae, title, means, up), encoding="utf-8")


def means_of(summary: pd.DataFrame, path: str) -> Means:
    """By score: the uniform mean of an SAE's latents, and that of its control."""
    rows = summary.loc[(summary["path"] == path) & summary["control"].isna()]
    return {str(name): (float(own), float(control)) for name, own, control in
            rows[["score", "uniform", "baseline"]].to_numpy(object).tolist()}
