"""A small study made by hand, from activations to tables: two architectures at two target L0s, with their random control."""
from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from study_halves import collected, score, text_half, words_tokenizer
from typechecker import unchecked

from saesweep.storage import study_tables, sweep_table
from saesweep.study.comparison import measured, report, summary
from saesweep.study.labels import HalfLabels, Labels
from saesweep.study.pages.neighbours import neighbours
from saesweep.study.pages.of_sae import Explanation, OfSAE
from saesweep.study.scores.logits import Logits
from saesweep.study.scores.row_histograms import Histograms

EVIL = "</li></ol><script>document.title='run'</script><img\tsrc=x\tonerror=document.title='run'>"
VOCABULARY = ["self", "def", "a\nb", EVIL, "&amp;", *(f"w{number}" for number in range(35))]
TOKENIZER = words_tokenizer(VOCABULARY)
LATENTS, D_IN = 12, 8
PLACES = (("topk", 16), ("topk", 32), ("jumprelu", 16), ("jumprelu", 32))


class Made(NamedTuple):
    saes: list[OfSAE]
    scores: pd.DataFrame
    summary: pd.DataFrame
    report: dict[str, Any]


def activations(text, seed: int) -> np.ndarray:
    """Latents 0 to 4 are active on one word each, the others on tokens at random; the last one never."""
    draw = np.random.default_rng(seed)
    on = [text.tokens == number for number in range(5)]
    on += [draw.random(len(text.tokens)) < 0.03 * (number + 1) for number in range(LATENTS - 6)]
    on.append(np.zeros(len(text.tokens), bool))
    return np.stack(on, 1) * (0.2 + draw.exponential(size=(len(text.tokens), LATENTS)))


def texts(count: int = 60):
    draws = (np.random.default_rng(seed).choice(VOCABULARY, (count, 120)) for seed in (1, 2))
    return [text_half([" ".join(row) for row in words], TOKENIZER) for words in draws]


def of_place(halves, arch: str, sparsity: int, number: int, control: str | None = None):
    found = (activations(text, 2 * number + half + 100 * (control is not None)) for half, text in enumerate(halves))
    sae = collected(*halves, *found, path=f"tiny/resid.1/{arch}/{sparsity}", control=control)
    config = {**sae.config, "model": {"name": "tiny"}, "site": {"name": "resid"}, "layer": 1}
    return dataclasses.replace(sae, config=config, metrics={"l0": float(sparsity)})


@unchecked()
def made(saes=PLACES) -> Made:
    halves = texts()
    trained = [of_place(halves, *place, number) for number, place in enumerate(saes)]
    beside = [of_place(halves, *place, number, "random") for number, place in enumerate(saes[:2])]
    names = ("self", "def")
    matrices = [csr_array(half.tokens == np.array([VOCABULARY.index(name) for name in names])[:, None]) for half in halves]
    labels = Labels([f"`{name}`" for name in names], *(HalfLabels(one, np.ones(one.shape[1], bool)) for one in matrices))
    rows = score([*trained, *beside], labels, TOKENIZER, features=10, min_fires=20, min_documents=5, draws=20, seed=0)
    scores, whole, _, shares = rows.frames()
    study = measured.study(_table(saes), scores, whole, rows.replicates)
    found = [_of_sae(sae, scores) for sae in trained]
    return Made(found, scores, summary.summary(study, shares), report.report(study, delta=0.05, primary=("rule", "coverage")))


def _of_sae(sae, scores: pd.DataFrame) -> OfSAE:
    mine = scores.loc[(scores["path"] == sae.path) & scores["control"].isna()].reset_index(drop=True)
    n = len(mine)
    words = np.tile(np.arange(10), (n, 1))
    values = np.tile(np.linspace(3, 1, 10), (n, 1))
    counts = np.tile(np.r_[10, 25, 0, 1, 4], (n, 1))
    histograms = Histograms(counts, np.full(n, -1.0), np.full(n, 0.5))
    logits = Logits(np.zeros(n), np.zeros(n), words, words[:, ::-1].copy(), values, -values, histograms)
    return OfSAE(sae, mine, TOKENIZER, logits, {0: Explanation(f"the word self {EVIL}", "a model")},
                 neighbours(decoder(), mine["latent"].to_numpy(np.int64)), scale=2.0)


def decoder() -> np.ndarray:
    """Rows of length 1."""
    rows = np.random.default_rng(0).normal(size=(LATENTS, D_IN))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _table(saes) -> pd.DataFrame:
    rows = [dict.fromkeys(sweep_table.COLUMNS) | {"model": "tiny", "site": "resid", "layer": 1, "state": "finished"}
            | {"arch": arch, "sparsity": sparsity, "seed": 0, "l0": float(sparsity), "fvu": 0.1,
               "path": f"tiny/resid.1/{arch}/{sparsity}"} for arch, sparsity in saes]
    return pd.DataFrame(rows, columns=sweep_table.COLUMNS)


def tables(folder: Path, study: Made) -> Path:
    """The folder of the study with its tables, as the scores leave it."""
    study_tables.write_scores(folder, study.scores)
    study_tables.write_summary(folder, study.summary)
    report.write(folder, study.report)
    return folder
