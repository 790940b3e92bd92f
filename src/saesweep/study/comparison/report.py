"""The content of study.json: every comparison of a study.

    places[]            a hook point: model, site, layer
      scores[]          a score and one of its means (means.py)
        curves[]        value and interval of each point
        gaps[], means[] two architectures at one L0, and in the mean over log L0 (matched.py), with verdicts (verdicts.py)
        on_other_text[] pairs of architectures that are not compared
        per_doubling[]  slope on log2 L0 of each architecture
        controls[]      each architecture less its controls
      frequency[]       for each score and architecture the slope on log10 frequency, and latents on a tenth of the tokens
      use[]             correlation of FVU with probing and absorption

Holm's correction runs over the verdicts on the primary scores, in both means; the other scores are descriptive.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saesweep.report.intervals import holm
from saesweep.runtime import atomic
from saesweep.storage import study_tables
from saesweep.storage.sweep_table import PLACE, imported
from saesweep.study.comparison import catalogue, matched, slopes, usefulness
from saesweep.study.comparison.contrasts import Contrast, Numbers, contrast
from saesweep.study.comparison.measured import Sae, Study

JUDGED = ("uniform", "by_frequency")  # the means whose verdicts on primary scores are in Holm's family


def report(study: Study, *, delta: float, primary: Sequence[str]) -> dict[str, Any]:
    """delta: differences within it are equal. primary: names of scores. SAEs that others have trained are in none of it."""
    trained = study.saes.loc[study.saes["control"].isna() & ~imported(study.saes)]
    places = [_place(study, rows, delta, primary) for _, rows in trained.groupby(trained.groupby(PLACE).ngroup())]
    tested = [row for block in blocks(places) if block["primary"] for row in verdicts(block) if row["p"] is not None]
    for row, significant in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["holm"] = significant and len(tested) > 1
    return {"delta": delta, "primary": list(primary), "comparisons": len(tested), "places": places}


def blocks(places: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A score and a mean at one hook point."""
    for place in places:
        yield from place["scores"]


def verdicts(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from block["gaps"]
    yield from block["means"]


def write(folder: Path, found: Mapping[str, Any]) -> Path:
    """folder: of the study."""
    atomic.write(folder / study_tables.COMPARISON, json.dumps(found, indent=1, allow_nan=False))
    return folder / study_tables.COMPARISON


def _place(study: Study, rows: pd.DataFrame, delta: float, primary: Sequence[str]) -> dict[str, Any]:
    saes = Sae.each(rows)
    scores = [_score(study, saes, key, delta, primary) for key in study.numbers]
    return {
        **{key: rows[key].tolist()[0] for key in PLACE},
        "scores": [one for one in scores if one],
        "frequency": [one for name in study.scores for one in _frequency(study, saes, name)],
        "use": list(_use(study, rows)),
    }


def _by_arch(saes: Sequence[Sae]) -> dict[str, list[Sae]]:
    return {arch: [one for one in saes if one.arch == arch] for arch in dict.fromkeys(one.arch for one in saes)}


def _score(study: Study, saes: Sequence[Sae], key: tuple[str, str], delta: float, primary: Sequence[str]) -> dict[str, Any]:
    """Empty where no SAE has the score."""
    name, mean = key
    numbers, about = study.numbers[key], catalogue.score(name)
    saes = [one for one in saes if numbers[one.row] is not None]
    if not saes:
        return {}
    curves, each = matched.Curves.of(saes, numbers, study.texts), _by_arch(saes)
    kinds = dict.fromkeys(control for one in saes for control in study.beside[one.row])
    controls = {(arch, control): slopes.over_control(own, study.beside, numbers, control)
                for arch, own in each.items() for control in kinds}
    return {
        "score": name, "mean": mean, "words": about.words, "better": about.better,
        "per_feature": name in study.scores, "primary": name in primary and mean in JUDGED,
        "curves": [_curve(arch, own, numbers) for arch, own in each.items()],
        **matched.compare(curves, numbers, about.better, delta), "on_other_text": curves.apart(),
        "per_doubling": [one for arch, own in each.items() for one in _named(slopes.l0_slope(own, numbers), arch=arch)],
        "controls": [one for (arch, control), found in controls.items() for one in _named(found, arch=arch, control=control)],
    }


def _named(found: Contrast | None, **names: Any) -> list[dict[str, Any]]:
    """Empty where there is nothing."""
    return [] if found is None else [names | found.as_dict()]


def _curve(arch: str, saes: Sequence[Sae], numbers: Numbers) -> dict[str, Any]:
    """The mean over seeds of each point, by L0."""
    points = []
    for target in dict.fromkeys(one.target for one in saes):
        point = [one for one in saes if one.target == target]
        found = contrast([{one.row: 1.0} for one in point], numbers).as_dict()
        sparsity, l0 = point[0].sparsity, float(np.exp(np.log([one.l0 for one in point]).mean()))
        points.append({"sparsity": None if math.isnan(sparsity) else sparsity, "l0": l0, "value": found["estimate"],
                       "low": found["low"], "high": found["high"], "seeds": found["seeds"]})
    return {"arch": arch, "points": sorted(points, key=lambda point: point["l0"])}


def _frequency(study: Study, saes: Sequence[Sae], name: str) -> Iterator[dict[str, Any]]:
    """Of each architecture that has the score."""
    slope = study.per_feature(slopes.frequency_slope, name)
    gap = study.per_feature(slopes.frequent_gap, name)
    about = catalogue.score(name)
    for arch, own in _by_arch(saes).items():
        each = {"per_tenfold": slopes.mean_over_saes(own, slope), "frequent": slopes.mean_over_saes(own, gap)}
        found = {key: one.as_dict() for key, one in each.items() if one is not None}
        if found:
            yield {"score": name, "words": about.words, "better": about.better, "arch": arch, **found}


def _use(study: Study, rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Of the SAEs on the most common text."""
    texts = pd.Series(study.texts).loc[rows.index]
    rows = rows.loc[texts.isin([-1, texts[texts >= 0].mode().min()])]
    for (name, mean), numbers in study.numbers.items():
        about = catalogue.score(name)
        if about.use and mean == "uniform":
            value = np.array([math.nan if (number := numbers[i]) is None else number.value for i in rows.index])
            found = usefulness.correlations(rows, value, about.better)
            if found:
                yield {"score": name, "words": about.words, **found}
