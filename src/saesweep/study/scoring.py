"""The second stage of a study: the scores of what was collected that need no judge, and their comparison.

It takes a minute, and is done anew by each command; its files are whole or as they were before (storage/study_tables.py).
"""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from saesweep.config.settings import Settings
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.lm.hooks import hook_point
from saesweep.lm.tokenizer import Tokenizer, byte_tokenizer
from saesweep.lm.unembedding import unembedding
from saesweep.runtime.console import ProgressLine
from saesweep.storage import study_tables, sweep_table
from saesweep.study.activations import FromText, activations_of
from saesweep.study.collect import collected
from saesweep.study.comparison import measured, replicates, report
from saesweep.study.comparison.summary import summary
from saesweep.study.dictionary import FromDictionary
from saesweep.study.hits import HALVES, Collected
from saesweep.study.judging import with_judgements
from saesweep.study.known_dictionary import KnownDictionary, Truth, feature_labels
from saesweep.study.labels import Labels, label
from saesweep.study.passes import on_device
from saesweep.study.scores.absorption import RowScores
from saesweep.study.scores.logits import LogitScores
from saesweep.study.scores.of_sae import Extra
from saesweep.study.subjects import reads
from saesweep.study.table import Rows, score
from saesweep.study.text import Text
from saesweep.study.weights import DenseRows, Weights

PRIMARY = ("rule", "coverage")  # the scores whose verdicts are corrected for their number


class Scored(NamedTuple):
    """What a study has found, in the folder `base`, which paths are relative to."""

    base: Path
    saes: list[tuple[Collected, Tokenizer]]
    scores: pd.DataFrame
    summary: pd.DataFrame
    comparison: dict[str, Any]


def base_of(sweeps: Sequence[Path], out: str | None) -> Path:
    """The folder below which the study's tables go. Raises UsageError for several sweeps without `out`."""
    if out is None and len(sweeps) > 1:
        raise UsageError(f"{len(sweeps)} sweeps: name the folder of their study, such as out=outputs/both")
    return Path(out or sweeps[0]).resolve()


def run_scores(sweeps: Sequence[Path], settings: Mapping[str, Any], resources: Resources) -> Scored:
    """Score, compare and write the tables."""
    base, show = base_of(sweeps, settings["out"]), ProgressLine()
    found, rows = list[tuple[Collected, Tokenizer]](), Rows()
    for group in _groups([one for sweep in sweeps for one in collected(sweep)]):
        show(f"scoring {len(group)} SAEs and controls")
        based = [replace(one, path=Path(os.path.relpath(one.folder, base)).as_posix()) for one in group]
        scored, tokenizer = _score(based, settings, resources)
        rows.extend(scored)
        found += [(one, tokenizer) for one in based]
    scores, saes, labels, shares = rows.frames()
    scores = with_judgements(scores, found, settings, base)
    study = measured.study(sweep_table.table(*sweeps, base=base), scores, saes, rows.replicates)
    of_saes, comparison = summary(study, shares), report.report(study, delta=settings["delta"], primary=PRIMARY)
    folder = base / study_tables.FOLDER
    study_tables.write_scores(folder, scores)
    study_tables.write_labels(folder, labels)
    replicates.save(folder / study_tables.REPLICATES, rows.replicates)
    report.write(folder, comparison)
    study_tables.write_summary(folder, of_saes)
    return Scored(base, found, scores, of_saes, comparison)


def _groups(saes: Sequence[Collected]) -> list[list[Collected]]:
    """Those of one text and language model; in a group those of a hook point next to each other, the trained ones first."""
    groups: dict[str, list[Collected]] = {}
    for one in sorted(saes, key=lambda sae: (sae.config["site"]["name"], sae.config["layer"], sae.control is not None)):
        groups.setdefault(repr(reads(one.config)), []).append(one)
    return list(groups.values())


def _score(group: Sequence[Collected], settings: Mapping[str, Any], resources: Resources) -> tuple[Rows, Tokenizer]:
    job = on_device(group[0].config, settings["device"])
    points = dict.fromkeys(hook_point(one.config["model"], one.config["site"]["name"], one.config["layer"]) for one in group)
    source, weights = activations_of(job, list(points), settings, resources), Weights()
    labels, tokenizer, extras = (
        _of_text(job, group, source, weights, settings, resources) if isinstance(source, FromText) else _of_dictionary(source))
    asked = {key: settings[key] for key in ("features", "min_fires", "min_documents", "draws", "seed")}
    return score(group, labels, tokenizer, extras=extras, **asked), tokenizer


def _of_text(
    job: Settings, group: Sequence[Collected], source: FromText, weights: Weights, settings: Mapping[str, Any],
    resources: Resources,
) -> tuple[Labels, Tokenizer, list[Extra]]:
    kind = settings["labels"]
    kind = ("python" if job["text"]["kind"] == "stdlib" else "text") if kind == "auto" else kind
    labels = label(kind, group[0].fit.text, group[0].test.text, source.tokenizer, min_tokens=settings["label_tokens"],
                   min_documents=settings["label_documents"])
    extras: list[Extra] = []
    if settings["logits"]:
        extras.append(LogitScores(unembedding(resources.language_model(job).module), weights.decoder_of_resid))
    if settings["dense_probes"] and labels.names:
        text: Text = {half: group[0].half(half).text for half in HALVES}
        rows = DenseRows(source, text, settings["dense_tokens"], weights)
        extras.append(RowScores(rows, weights.decoder_array))
    return labels, source.tokenizer, extras


def _of_dictionary(source: FromDictionary) -> tuple[Labels, Tokenizer, list[Extra]]:
    """The labels are the features of the dictionary; there are no tokens."""
    truth: Truth = {half: source.features(half).numpy().astype(np.float64) for half in HALVES}
    extras: list[Extra] = [KnownDictionary(truth)]
    return feature_labels(truth), byte_tokenizer(bos=False, positions=None), extras


