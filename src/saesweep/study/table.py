"""The scores of SAEs and controls that need no language model, as tables (storage/study_tables.py)."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from saesweep.config.settings import target
from saesweep.lm.tokenizer import Tokenizer
from saesweep.storage import study_tables
from saesweep.storage.curves import VARIANT
from saesweep.study.comparison.replicates import Replicates
from saesweep.study.hits import Collected
from saesweep.study.sampling import eligible, sample
from saesweep.study.scores.conditions import Conditions
from saesweep.study.scores.ground import Ground
from saesweep.study.scores.of_sae import Extra, label_rows, latent_rows, whole_sae

Row = dict[str, Any]


@dataclass
class Rows:
    """Of all SAEs: features, scores of whole SAEs, labels, and shares of latents; and the means under drawn documents."""

    scores: list[Row] = field(default_factory=list)
    saes: list[Row] = field(default_factory=list)
    labels: list[Row] = field(default_factory=list)
    shares: list[Row] = field(default_factory=list)
    replicates: Replicates = field(default_factory=Replicates)

    def extend(self, others: Rows) -> None:
        """Add those of other SAEs."""
        for name in ("scores", "saes", "labels", "shares"):
            getattr(self, name).extend(getattr(others, name))
        self.replicates.means |= others.replicates.means
        self.replicates.documents |= others.replicates.documents
        self.replicates.texts |= others.replicates.texts

    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """scores.csv, the scores of whole SAEs (path, control, score, uniform, and the shares), labels.csv, and the shares,
        as comparison/measured.py and comparison/summary.py take them."""
        scores = pd.DataFrame(self.scores, columns=None if self.scores else pd.Index(study_tables.FEATURE))
        labels = pd.DataFrame(self.labels, columns=pd.Index(study_tables.LABEL))
        columns = [*study_tables.SAE, "control", "score", "uniform", *study_tables.SHARES]
        saes = pd.DataFrame(self.saes, columns=pd.Index(columns))
        scores, saes, labels, shares = map(study_tables.with_nones, (scores, saes, labels, pd.DataFrame(self.shares)))
        return scores, saes, labels, shares


def score_one(
    sae: Collected, both: tuple[Conditions, Conditions], counts: Int64[np.ndarray, "rows documents"], tokenizer: Tokenizer, *,
    features: int, min_fires: int, min_documents: int, extras: Sequence[Extra],
) -> Rows:
    """both: the conditions of its text. counts: of the draws of test documents."""
    rows = Rows(replicates=Replicates(texts={sae.path: sae.digest}))
    grounds = (Ground(both[0], sae.fit), Ground(both[1], sae.test))
    allowed = eligible(sae, min_fires, min_documents)
    about, shares = about_sae(sae) | {"control": sae.control}, shares_of(sae, allowed)
    drawn = sample(sae, allowed, features)
    found = latent_rows(sae, grounds, drawn, tokenizer, counts, rows.replicates, extras)
    rows.scores = [about | {"eligible": True} | row for row in found]
    whole, detected = whole_sae(sae, grounds, counts, rows.replicates, extras)
    rows.saes = [about | {"score": name, "uniform": value} | shares for name, value in whole.items()]
    rows.labels = [about | row for row in label_rows(grounds, detected)]
    rows.shares = [{"path": sae.path, "control": sae.control} | shares]
    return rows


def about_sae(sae: Collected) -> Row:
    """The columns study_tables.SAE."""
    config = sae.config
    return {"path": sae.path, "arch": sae.curve, VARIANT: sae.variant, "sparsity": target(config), "seed": config["seed"]}


def shares_of(sae: Collected, allowed: np.ndarray) -> dict[str, float]:
    """Of all latents: dead on both halves, rare (neither dead nor eligible), eligible."""
    dead, all_eligible = float((sae.fit.fires + sae.test.fires == 0).mean()), float(allowed.mean())
    return {"dead": dead, "rare": 1 - dead - all_eligible, "eligible": all_eligible}

