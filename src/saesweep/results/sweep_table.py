"""What a sweep has left on disk: a folder per SAE, read as one table, and what lies behind each of its rows."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from saesweep.errors import UsageError
from saesweep.results import files
from saesweep.runtime import atomic

NAMES = ["model", "site", "layer", "arch", "sparsity", "seed"]
SIZES = ["d_in", "d_sae", "tokens", "coefficient"]
METRICS = ["l0", "fvu", "mse", "cosine", "relative_reconstruction_bias",
           "ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered",
           "dead", "frequency_over_1pct", "frequency_over_10pct", "recovery"]
COLUMNS = [*NAMES, *SIZES, *METRICS, "sinks", "state", "on_front", "path"]
PLACE = ["model", "site", "layer"]


class Details(NamedTuple):
    """What lies behind a row."""

    command: str  # trains this SAE alone again
    config: dict[str, Any]  # by dotted key
    curve: pd.DataFrame  # metrics.csv
    rates: np.ndarray | None  # [d_sae], of frequency.csv
    wandb: str | None  # the run's address, if it has been online
    reason: str | None  # why the SAE failed


def write(
    folder: Path, *, documents: Mapping[str, Sequence[float]], frequency: Sequence[float], numbers: Mapping[str, Any]
) -> None:
    """Each file whole or not at all, the numbers last."""
    atomic.write(folder / files.DOCUMENTS, pd.DataFrame(documents).to_csv(index_label="document"))
    atomic.write(folder / files.FREQUENCY, pd.Series(frequency, name="frequency").to_csv(index_label="latent"))
    finite = {key: None if isinstance(value, float) and value != value else value for key, value in numbers.items()}
    atomic.write(folder / files.NUMBERS, json.dumps(finite, indent=1))


def table(*sweeps: Path, base: Path | None = None) -> pd.DataFrame:
    """One row per SAE, finished or not, in the order of model, site, layer, sparsity, arch, seed; COLUMNS.

    An SAE of a fixed coefficient aims at no L0: its `sparsity` is NaN, and it comes last, by its coefficient.
    `path` is relative to `base`, the first sweep if None. Where an arch is in several sweeps, each is a curve of its own:
    its `arch` is "topk (name of the sweep)". Raises UsageError where there is no such folder.
    """
    named = names(sweeps)
    base = Path(base or sweeps[0]).resolve()
    rows = [row | {"sweep": name} for sweep, name in named.items() for row in _rows(sweep, base)]
    df = pd.DataFrame(rows, columns=["sweep", *(c for c in COLUMNS if c != "on_front")])
    df[[*METRICS, "coefficient"]] = df[[*METRICS, "coefficient"]].astype(float)
    df["sparsity"] = pd.to_numeric(df["sparsity"])
    several = df.groupby("arch")["sweep"].transform("nunique") > 1
    df["arch"] = df["arch"].where(~several, df["arch"] + " (" + df["sweep"] + ")")
    fixed = df["coefficient"].where(df["sparsity"].isna())
    df = df.assign(fixed=fixed).sort_values([*PLACE, "sparsity", "arch", "fixed", "seed"], kind="stable", ignore_index=True)
    return df.assign(on_front=on_front(df, "fvu"))[COLUMNS]


def aims(df: pd.DataFrame) -> pd.Series:
    """What each SAE was to reach, as text: seeds of one point of a curve have it in common."""
    targets, fixed = df["sparsity"].map("sparsity {:g}".format), df["coefficient"].map("coefficient {}".format)
    return targets.where(df["sparsity"].notna(), fixed)


def names(sweeps: Sequence[Path]) -> dict[Path, str]:
    """Of different folders, as much of the end of their paths as tells them apart."""
    for sweep in sweeps:
        if not Path(sweep).is_dir():
            raise UsageError(f"{sweep} is no folder: give a sweep's, such as outputs/default")
    folders = list(dict.fromkeys(Path(sweep).resolve() for sweep in sweeps))
    for length in itertools.count(1):
        found = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(found)) == len(found):
            return dict(zip(folders, found, strict=True))


def _rows(sweep: Path, base: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(sweep):
        yield _row(job) | {"path": Path(os.path.relpath(job.resolve(), base)).as_posix()}


def jobs(sweep: Path) -> list[Path]:
    """The folders of SAEs that are finished or were begun."""
    folders = sorted(file.parent for file in sweep.glob("*/*/*/*/.hydra"))
    return [job for job in folders if (job / files.RESOLVED).is_file() or _has_numbers_and_config(job)]


def _has_numbers_and_config(job: Path) -> bool:
    return files.state(job) == "finished" and (job / files.COMPOSED).is_file()


@cache
def _names(config: Path, _: int) -> dict[str, Any]:
    """Read once for each time it was written: a live view asks again and again."""
    found = OmegaConf.load(config)
    named = {key: OmegaConf.select(found, f"{key}.name") for key in ("model", "site", "arch")}
    named |= {key: OmegaConf.select(found, key) for key in ("layer", "sparsity", "seed")}
    fixed = OmegaConf.select(found, "arch.coefficient")
    return named if fixed is None else named | {"sparsity": None, "coefficient": fixed}


def _row(job: Path) -> dict[str, Any]:
    config = job / (files.RESOLVED if (job / files.RESOLVED).is_file() else files.COMPOSED)  # where 1e6 is 1000000
    names = _names(config, config.stat().st_mtime_ns)
    state = files.state(job)
    found = files.numbers(job) if state == "finished" else {"tokens": int(files.latest(job).get("tokens", 0))}
    return {**{key: found.get(key) for key in [*SIZES, *METRICS, "sinks"]}, **names, "state": state}


def _curve(job: Path) -> pd.DataFrame:
    """Whole lines only: the last one may just be on its way."""
    try:
        text = (job / files.CURVE).read_text()
    except FileNotFoundError:
        text = ""
    lines = [line.rstrip("\n").split(",") for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return pd.DataFrame(lines[1:], columns=lines[0]).astype(float) if lines else pd.DataFrame(columns=["tokens"])


def on_front(df: pd.DataFrame, metric: str) -> list[bool]:
    """No other SAE of the same place has at most its l0 and at most its metric, and one of them smaller.

    Points without numbers (failed runs) are on no front and dominate nobody.
    """
    l0, value = df["l0"].to_numpy(float), df[metric].to_numpy(float)
    place = df.groupby(PLACE).ngroup().to_numpy()

    def dominated(i: int) -> bool:
        no_worse = (place == place[i]) & (l0 <= l0[i]) & (value <= value[i])
        return bool((no_worse & ((l0 < l0[i]) | (value < value[i]))).any())

    return [bool(np.isfinite([l0[i], value[i]]).all()) and not dominated(i) for i in range(len(df))]


def documents(job: Path) -> pd.DataFrame | None:
    """tokens, active, error, variance and, where a language model read them, scored, nats_clean, nats_sae; by document."""
    return pd.read_csv(job / files.DOCUMENTS, index_col="document") if (job / files.DOCUMENTS).is_file() else None


def frequency(job: Path) -> np.ndarray | None:
    """[d_sae]: the share of the held-out tokens on which each latent is active."""
    return pd.read_csv(job / files.FREQUENCY)["frequency"].to_numpy() if (job / files.FREQUENCY).is_file() else None


def details(job: Path) -> Details:
    return Details(
        command=files.command(job), config=dict(files.flat(files.settings(job))), curve=_curve(job), rates=frequency(job),
        wandb=_text(job / files.URL), reason=_text(job / files.FAILED),
    )


def _text(file: Path) -> str | None:
    return file.read_text().strip() if file.is_file() else None
