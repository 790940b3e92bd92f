"""The tables of an interpretability study, in `study/` of a sweep: names of files and columns, reading, writing.

    scores.csv              a row per feature: an SAE, a latent, its weight (1 / probability of being sampled) and its scores
    summary.csv             a row per SAE and score: the means over its features, or the score of the whole SAE
    labels.csv              a row per SAE and label: the latent that finds it best
    replicates.safetensors  the means under drawn documents (study/comparison/replicates.py)
    study.json              the comparison of the architectures

`path` is the folder of the SAE relative to the sweep's, or to the folder that holds the study of several sweeps. `control`
is empty for a trained SAE, else the name of what is measured in its place: random, residual, pca. In the files the further
settings that tell curves apart are in `variant`, which is left out where there are none; in memory `arch` names the curve.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from saesweep.runtime import atomic
from saesweep.storage.curves import VARIANT, by_arch, by_curve
from saesweep.storage.exact_csv import read_csv

FOLDER, SCORES, SUMMARY, LABELS = "study", "scores.csv", "summary.csv", "labels.csv"
COMPARISON, REPLICATES = "study.json", "replicates.safetensors"
SAE = ["path", "arch", VARIANT, "sparsity", "seed"]
FEATURE = [*SAE, "latent", "control", "stratum", "weight", "frequency", "fires", "documents", "eligible"]  # before the scores
WORDS = ["rule_words", "lookup_label", "uncertainty_label", "top_token", "reason",
         "explainer", "judge", "explanation", "judge_reason"]  # of a feature, after its scores
LABEL = [*SAE, "control", "label", "latent", "threshold", "precision", "recall", "f1", "f1_fit", "tokens"]
SHARES = ["dead", "rare", "eligible"]  # of the latents
MEANS = ["uniform", "by_frequency", "with_zeros", "several_tokens"]
OVER = ["baseline", "difference", "difference_low", "difference_high"]  # the control's mean, and the uniform mean less it
MISSING = ["insufficient", "failed", "failed_answers"]  # of the features that a score was asked of (comparison/missing.py)
SUMMARY_COLUMNS = [*SAE, "control", "score", *MEANS, "low", "high", *OVER, *SHARES, *MISSING]
FAILED = "_failed"  # <task>_failed: the share of a judge's questions about a feature without a readable answer
BESIDE = ["_control", "_difference"]  # <score>_control: the control's mean; <score>_difference: the feature's score less it
MAIN = ["rule", "coverage", "lookup_token", "uncertainty", "probe_1", "absorption", "detection", "yes"]
BASELINES = ["random", "residual", "pca"]  # the first control that was measured is the baseline


def score_names(scores: pd.DataFrame) -> list[str]:
    """The scores among the columns of scores.csv."""
    return [key for key in scores.columns if key not in (*FEATURE, *WORDS) and not key.endswith((FAILED, *BESIDE))]


def with_score(scores: pd.DataFrame, name: str, values: Mapping[tuple[str, str, int], float]) -> pd.DataFrame:
    """The table with one more score, such as the share of raters who say yes. values: by path, control ("" of a trained SAE)
    and latent; features without one have no such score."""
    latents = scores["latent"].astype(int)
    keys = [(*key, latent) for key, latent in zip(sae_keys(scores), latents, strict=True)]
    return scores.assign(**{name: [values.get(key, float("nan")) for key in keys]})


def sae_keys(df: pd.DataFrame) -> list[tuple[str, str]]:
    """Of each row the path and the control, "" of a trained SAE."""
    return list(zip(df["path"], df["control"].astype(object).fillna(""), strict=True))


def read(file: Path) -> pd.DataFrame:
    """scores.csv or summary.csv, `arch` by curve; an empty `control` is None."""
    df = read_csv(file, dtype={"path": str, "control": object, "reason": object, VARIANT: object})
    if VARIANT not in df:
        df.insert(df.columns.tolist().index("arch") + 1, VARIANT, "")
    return with_nones(by_curve(df.fillna({VARIANT: ""})))


def with_nones(df: pd.DataFrame) -> pd.DataFrame:
    """An empty `control` or `reason` is None, not NaN."""
    texts = [key for key in ("control", "reason") if key in df.columns]
    return df.assign(**{key: df[key].astype(object).where(df[key].notna(), None) for key in texts})


def write_scores(folder: Path, scores: pd.DataFrame) -> None:
    """The columns FEATURE, then the scores and what is beside them, then the WORDS that there are."""
    words = [key for key in WORDS if key in scores.columns or key == "reason"]
    beside = [key for key in scores.columns if key.endswith((FAILED, *BESIDE))]
    _write(folder / SCORES, scores, [*FEATURE, *score_names(scores), *beside, *words])


def write_summary(folder: Path, summary: pd.DataFrame) -> None:
    _write(folder / SUMMARY, summary, SUMMARY_COLUMNS)


def write_labels(folder: Path, labels: pd.DataFrame) -> None:
    _write(folder / LABELS, labels, LABEL)


def _write(file: Path, df: pd.DataFrame, columns: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    df = df.reindex(columns=columns).astype({VARIANT: object}).fillna({VARIANT: ""})
    df = by_arch(df) if any(df[VARIANT]) else df.drop(columns=VARIANT)
    atomic.write(file, df.to_csv(index=False))


def forget(folder: Path, path: str) -> None:
    """Take a trained SAE out of the tables of the study in `folder`, because it is trained anew; the other rows stay as they
    are. Its pages and the comparison stay until the next study."""
    for file in (folder / FOLDER / name for name in (SCORES, SUMMARY, LABELS)):
        if file.is_file():
            df = pd.read_csv(file, dtype=str, keep_default_na=False)
            atomic.write(file, df.loc[(df["path"] != path) | (df["control"] != "")].to_csv(index=False))


def main_scores(folder: Path) -> pd.DataFrame:
    """Of the study in `folder` the scores MAIN, a row per SAE, by path; empty where there is no study.

    Each score has the columns `rule` (mean over the features, or the score of the SAE), `rule_by_frequency` and
    `rule_control` (the baseline), as far as they were measured.
    """
    if not (folder / FOLDER / SUMMARY).is_file():
        return pd.DataFrame()
    summary = read(folder / FOLDER / SUMMARY)
    summary = summary.loc[summary["control"].isna() & summary["score"].isin(MAIN)]
    columns = {}
    for name in (name for name in MAIN if name in set(summary["score"])):
        rows = summary.loc[summary["score"] == name].set_index("path")
        columns |= {new: rows[old].astype(float) for new, old in columns_of(name).items() if rows[old].notna().any()}
    return pd.DataFrame(columns)


def columns_of(score: str) -> dict[str, str]:
    """The columns of a main score, with those of summary.csv that they are."""
    return {score: "uniform", f"{score}_by_frequency": "by_frequency", f"{score}_control": "baseline"}


def wandb_keys(folder: Path, path: str) -> dict[str, float]:
    """For the summary of one SAE's run in W&B: `study/rule`, `study/rule_by_frequency`, `study/rule_control`, and so on."""
    found = main_scores(folder)
    row = found.loc[path].dropna() if path in found.index else pd.Series(dtype=float)
    return {f"study/{key}": float(value) for key, value in row.items()}


def folders_of_pages(paths: Iterable[str]) -> dict[str, str]:
    """By path of an SAE the folder of its latents' pages, relative to the study's: features/<arch>/<sparsity>[.<seed>], and
    with hook point, and model, before the architecture where the SAEs are at several."""
    parts = {path: PurePosixPath(path).parts for path in dict.fromkeys(paths)}
    count = 2 if len({one[:-2] for one in parts.values()}) < 2 else 4
    clean = {path: [part for part in one if part != ".."] for path, one in parts.items()}
    if len({tuple(one[-count:]) for one in clean.values()}) < len(clean):
        count = max(map(len, clean.values()))
    return {path: "/".join(["features", *one[-count:]]) for path, one in clean.items()}


def indexes_of_latents(folder: Path) -> dict[str, str]:
    """By path of an SAE the index of its latents' pages, relative to `folder`, where the study in it has written one."""
    if not (file := folder / FOLDER / SUMMARY).is_file():
        return {}
    summary = read(file)
    found = folders_of_pages(summary.loc[summary["control"].isna(), "path"])
    pages = {path: f"{FOLDER}/{pages}/index.html" for path, pages in found.items()}
    return {path: page for path, page in pages.items() if (folder / page).is_file()}
