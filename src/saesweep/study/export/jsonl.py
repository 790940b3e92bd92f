"""latents.jsonl: a line of JSON per scored latent.

    path, arch, sparsity, seed, latent, model, site, layer      which latent; `variant` where further settings differ
    frequency, fires, documents, maximum                        on the test half, in training units
    scale                                                       raw units per training unit
    scores                                                      by name; null where there is none
    words                                                       rule, labels and commonest token
    explanation, explainer                                      null where no model was asked
    positive_logits, negative_logits                            [word, logit], largest first
    nearest                                                     [latent, cosine] of decoder rows
    examples                                                    group, part, tokens, values, at
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saesweep.runtime import atomic
from saesweep.storage import study_tables
from saesweep.storage.curves import VARIANT
from saesweep.study.export.windows import latents
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.pieces import Pieces

FILE = "latents.jsonl"


def write(saes: Sequence[OfSAE], out: Path) -> Path:
    """One SAE's lines are in memory at a time."""
    with atomic.draft(out / FILE) as draft, draft.open("w", encoding="utf-8") as file:
        for sae in saes:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows(sae))
    return out / FILE


def rows(sae: OfSAE) -> Iterator[dict[str, Any]]:
    pieces, names = Pieces(sae.tokenizer), study_tables.score_names(sae.scores)
    for number, row, active, windows in latents(sae, pieces):
        told = sae.explanations.get(int(row["latent"]))
        yield {
            **_which(sae, row), "frequency": float(row["frequency"]), "fires": int(row["fires"]),
            "documents": int(row["documents"]), "maximum": active.maximum, "scale": sae.scale,
            "scores": {name: _finite(row[name]) for name in names},
            "words": {key: row[key] for key in study_tables.WORDS if isinstance(row.get(key), str)},
            "explanation": told and told.text, "explainer": told and told.model,
            **_logits(sae, number, pieces), "nearest": _nearest(sae, number),
            "examples": [window._asdict() for window in windows],
        }


def _which(sae: OfSAE, row: Mapping[Any, Any]) -> dict[str, Any]:
    config = sae.collected.config
    variant = {VARIANT: sae.collected.variant} if sae.collected.variant else {}
    return {"path": row["path"], "arch": config["arch"]["name"], **variant, "sparsity": _finite(row["sparsity"]),
            "seed": int(row["seed"]), "latent": int(row["latent"]), "model": config["model"]["name"],
            "site": config["site"]["name"], "layer": config["layer"]}


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _logits(sae: OfSAE, number: int, pieces: Pieces) -> dict[str, Any]:
    if sae.logits is None:
        return {"positive_logits": [], "negative_logits": []}
    sides = {"positive_logits": (sae.logits.highest, sae.logits.highest_values),
             "negative_logits": (sae.logits.lowest, sae.logits.lowest_values)}
    return {key: [[pieces.verbatim(int(one)), float(value)] for one, value in zip(words[number], values[number], strict=True)]
            for key, (words, values) in sides.items()}


def _nearest(sae: OfSAE, number: int) -> list[list[float]]:
    if sae.nearest is None:
        return []
    cosines = np.round(sae.nearest.cosines[number], 5).tolist()
    return [list(pair) for pair in zip(sae.nearest.latents[number].tolist(), cosines, strict=True)]
