"""The results of sweeps as one table, a row per SAE, read from the job folders; and the details of each row."""

import io
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from saesweep.errors import UsageError
from saesweep.runtime import atomic
from saesweep.storage import files, study_tables, variants
from saesweep.storage.curves import VARIANT, natural
from saesweep.storage.exact_csv import read_csv

NAMES = ["model", "site", "layer", "arch", "sparsity", "seed"]
SIZES = ["d_in", "d_sae", "tokens", "unique_tokens", "coefficient"]
METRICS = ["l0", "fvu", "mse", "cosine", "relative_reconstruction_bias",
           "ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered",
           "dead", "frequency_over_1pct", "frequency_over_10pct", "firings_over_10pct", "frequency_max", "frequency_of_firings",
           "recovery", "parent_silent_with_child", "parent_silent_alone"]
COLUMNS = [*NAMES, *SIZES, *METRICS, "sinks", "state", "on_front", "path"]
PLACE = ["model", "site", "layer"]  # a hook point
TRAINED_BY = "trained_by"  # the column that says who, of SAEs that others have trained (imported/)


class Details(NamedTuple):
    """Of one row: what is too long for the table."""

    command: str  # trains this SAE alone
    config: dict[str, Any]  # by dotted key
    curve: pd.DataFrame  # metrics.csv
    rates: np.ndarray | None  # [d_sae], the firing rates of frequency.csv
    wandb: str | None  # URL of the W&B run; None if it was offline
    reason: str | None  # why the SAE failed
    counted: int | None = None  # held-out tokens on which the firing rates were measured
    parts: Sequence[Mapping[str, Any]] = ()  # evaluation/parts.py
    latents: str | None = None  # the index of its latents' pages, relative to the page; None without a study


def write(
    folder: Path, *, documents: Mapping[str, Sequence[float]], frequency: Sequence[float], numbers: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write each file atomically; eval.json comes last and marks the SAE as finished. parts: evaluation/parts.py."""
    atomic.write(folder / files.DOCUMENTS, pd.DataFrame(documents).to_csv(index_label="document"))
    atomic.write(folder / files.FREQUENCY, pd.Series(frequency, name="frequency").to_csv(index_label="latent"))
    finite = {key: None if isinstance(value, float) and value != value else value for key, value in numbers.items()}
    atomic.write(folder / files.NUMBERS, json.dumps(finite | ({files.PARTS: list(parts)} if parts else {}), indent=1))


def table(*sweeps: Path, base: Path | None = None) -> pd.DataFrame:
    """One row per SAE, finished or not, sorted by model, site, layer, sparsity, arch and seed; columns COLUMNS.

    The `sparsity` of an SAE with a fixed coefficient is NaN; these rows come last, by coefficient. `path` is relative to
    `base`, the first sweep if None. An architecture that is in several sweeps is named "topk (sweep)" and is a curve per
    sweep. Where further settings differ within a sweep (variants.py), `variant` follows `arch`; where there are SAEs that
    others have trained, TRAINED_BY does; where there is a study its main scores follow. Raises UsageError if a folder does not
    exist.
    """
    base = Path(base or sweeps[0]).resolve()
    rows = [row | {"sweep": name} for sweep, name in sweep_names(sweeps).items() for row in _rows(sweep, base)]
    order = {variant: i for i, variant in enumerate(sorted({row[VARIANT] for row in rows}, key=natural))}
    df = pd.DataFrame(rows, columns=pd.Index(["sweep", *(c for c in COLUMNS if c != "on_front"), TRAINED_BY]))
    df[[*METRICS, "coefficient"]] = df[[*METRICS, "coefficient"]].astype(float)
    df["sparsity"] = pd.to_numeric(df["sparsity"])
    several = df.groupby("arch")["sweep"].transform(lambda sweeps: sweeps.nunique() > 1).astype(bool)
    df["arch"] = df["arch"].where(~several, df["arch"] + " (" + df["sweep"] + ")")
    fixed = df["coefficient"].where(df["sparsity"].isna())
    named = {VARIANT: [row[VARIANT] for row in rows], "order": [order[row[VARIANT]] for row in rows]}
    by = [*PLACE, "sparsity", "arch", "order", "fixed", "seed"]
    df = df.assign(fixed=fixed, **named).sort_values(by, kind="stable", ignore_index=True)
    further = [VARIANT] * (len(order) > 1) + [TRAINED_BY] * bool(df[TRAINED_BY].notna().any())
    columns = [key for column in COLUMNS for key in ([column, *further] if column == "arch" else [column])]
    df = df.assign(on_front=on_front(df, "fvu")).reindex(columns=columns)
    return with_scores(df, dict.fromkeys([*(Path(sweep).resolve() for sweep in sweeps), base]), base)


def with_scores(df: pd.DataFrame, folders: Iterable[Path], base: Path) -> pd.DataFrame:
    """The table with the main scores of the studies in these folders as further columns; itself where there is no study.

    base: what `path` is relative to. The first folder that has a score counts.
    """
    found = [(folder, scores) for folder in folders if len(scores := study_tables.main_scores(folder))]
    if not found:
        return df
    at = [scores.set_axis([Path(os.path.relpath(folder / path, base)).as_posix() for path in scores.index])
          for folder, scores in found]
    scores = reduce(lambda first, other: first.combine_first(other), at)
    order = [key for name in study_tables.MAIN for key in study_tables.columns_of(name) if key in scores]
    return df.join(scores[order], on="path")


def imported(df: pd.DataFrame) -> np.ndarray:
    """Per row, whether others have trained the SAE."""
    return df[TRAINED_BY].notna().to_numpy(bool) if TRAINED_BY in df else np.zeros(len(df), bool)


def targets(df: pd.DataFrame) -> pd.Series:
    """`sparsity 32` or `coefficient 0.1`, per row: the seeds of one point of a curve share it."""
    coefficients = df["coefficient"].map("coefficient {}".format)
    return pd.Series(df["sparsity"].map("sparsity {:g}".format).where(df["sparsity"].notna(), coefficients))


def sweep_names(sweeps: Sequence[Path]) -> dict[Path, str]:
    """The shortest ends of the paths that differ from each other. Raises UsageError if a folder does not exist."""
    for sweep in sweeps:
        if not Path(sweep).is_dir():
            raise UsageError(f"{sweep} is not a folder: give the folder of a sweep, such as outputs/default")
    folders = list(dict.fromkeys(Path(sweep).resolve() for sweep in sweeps))
    ends = (["/".join(folder.parts[-length:]) for folder in folders] for length in itertools.count(1))
    return dict(zip(folders, next(names for names in ends if len(set(names)) == len(names)), strict=True))


def variants_of(sweep: Path) -> dict[Path, str]:
    """What tells each SAE of a sweep apart beside its architecture (variants.py), by its folder: `width=4096 lr=0.002`."""
    folders = jobs(sweep)
    found = variants.of_flat([_settings(job) for job in folders])
    return {job: variants.written(pairs) for job, pairs in zip(folders, found, strict=True)}


def _rows(sweep: Path, base: Path) -> Iterator[dict[str, Any]]:
    for job, variant in variants_of(sweep).items():
        path = Path(os.path.relpath(job.resolve(), base)).as_posix()
        yield _row(job) | {VARIANT: variant, "path": path}


def jobs(sweep: Path) -> list[Path]:
    """The folders of SAEs that are finished or were started."""
    folders = sorted(file.parent for file in sweep.glob("*/*/*/*/.hydra"))
    return [job for job in folders if (job / files.RESOLVED).is_file() or _has_numbers_and_config(job)]


def _has_numbers_and_config(job: Path) -> bool:
    return files.state(job) == "finished" and (job / files.COMPOSED).is_file()


def _settings(job: Path) -> dict[str, Any]:
    """Those that determine the SAE, by dotted key."""
    return _read(job, files.settings_file(job).stat().st_mtime_ns)


@cache
def _read(job: Path, _mtime: int) -> dict[str, Any]:
    """Cached until the file changes: the live view reads it repeatedly."""
    return variants.flat_settings(files.settings(job))


def _row(job: Path) -> dict[str, Any]:
    cfg = _settings(job)
    names = {key: cfg.get(f"{key}.name") for key in ("model", "site", "arch")}
    names |= {key: cfg.get(key) for key in ("layer", "sparsity", "seed")}
    if (fixed := cfg.get("arch.coefficient")) is not None:
        names |= {"sparsity": None, "coefficient": fixed}
    state = files.state(job)
    found = files.numbers(job) if state == "finished" else {"tokens": int(files.latest(job).get("tokens", 0))}
    if state == "finished" and "unique_tokens" not in found:  # an older result
        found = {**found, "unique_tokens": found.get("tokens")}
    names[TRAINED_BY] = cfg.get("arch.imported.trained_by")
    return {**{key: found.get(key) for key in [*SIZES, *METRICS, "sinks"]}, **names, "state": state}


def _curve(job: Path) -> pd.DataFrame:
    """metrics.csv without its last line while that is incomplete."""
    text = (job / files.CURVE).read_text() if (job / files.CURVE).is_file() else ""
    return read_csv(io.StringIO(text[: text.rfind("\n") + 1] or "tokens\n"), dtype=float)


def on_front(df: pd.DataFrame, metric: str) -> list[bool]:
    """Per row, whether no other SAE at the hook point dominates it: l0 and metric both at most as high, one of them lower.

    SAEs without numbers (failed runs), and those that others have trained, are on no front and dominate none.
    """
    l0, value = df["l0"].to_numpy(float), df[metric].where(~imported(df)).to_numpy(float)
    place = df.groupby(PLACE).ngroup().to_numpy()

    def dominated(i: int) -> bool:
        no_worse = (place == place[i]) & (l0 <= l0[i]) & (value <= value[i])
        return bool((no_worse & ((l0 < l0[i]) | (value < value[i]))).any())

    return [bool(np.isfinite([l0[i], value[i]]).all()) and not dominated(i) for i in range(len(df))]


def documents(job: Path) -> pd.DataFrame | None:
    """Sums by held-out document: tokens, active, error, variance; with a language model scored, nats_clean, nats_sae."""
    return pd.read_csv(job / files.DOCUMENTS, index_col="document") if (job / files.DOCUMENTS).is_file() else None


def frequency(job: Path) -> np.ndarray | None:
    """[d_sae]: the fraction of the held-out tokens on which each latent is active."""
    return pd.read_csv(job / files.FREQUENCY)["frequency"].to_numpy() if (job / files.FREQUENCY).is_file() else None


def details(job: Path) -> Details:
    parts, config = documents(job), dict(files.flat(files.settings(job)))
    return Details(
        command=config.get("arch.imported.command") or files.command(job), config=config, curve=_curve(job),
        rates=frequency(job), wandb=_text(job / files.URL), reason=_text(job / files.FAILED),
        counted=None if parts is None else int(parts["tokens"].to_numpy().sum()),
        parts=files.parts(job) if files.state(job) == "finished" else [],
    )


def _text(file: Path) -> str | None:
    return file.read_text().strip() if file.is_file() else None
