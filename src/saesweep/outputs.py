"""What a sweep has left on disk: a folder per SAE, read as one table, and what lies behind each of its rows.

    sae/                    the SAE, in SAELens' format
    statistics.safetensors  mean, scale and sinks of its site
    documents.csv           the sums that the numbers of eval.json are made of, by held-out document
    frequency.csv           per latent, the share of the held-out tokens on which it is active
    eval.json               the numbers; written last, it says that the SAE is finished
    failed.txt              why there are none
"""
import json
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from saesweep.errors import UsageError

log = logging.getLogger(__name__)

NAMES = ["model", "site", "layer", "arch", "sparsity", "seed"]
SIZES = ["d_in", "d_sae", "tokens", "coefficient"]
METRICS = ["l0", "fvu", "mse", "cosine", "relative_reconstruction_bias",
           "ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered",
           "dead", "frequency_over_1pct", "frequency_over_10pct"]  # fmt: skip
COLUMNS = [*NAMES, *SIZES, *METRICS, "sinks", "state", "on_front", "path"]
PLACE = ["model", "site", "layer"]

NUMBERS, DOCUMENTS, FREQUENCY, FAILED, CURVE = "eval.json", "documents.csv", "frequency.csv", "failed.txt", "metrics.csv"
RESOLVED, COMPOSED, WORDS = ".hydra/resolved.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml"
URL, STATISTICS, WEIGHTS = "wandb/url.txt", "statistics.safetensors", "sae/sae_weights.safetensors"
FILES = (NUMBERS, DOCUMENTS, FREQUENCY, FAILED, CURVE, STATISTICS)


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
    _replace(folder / DOCUMENTS, pd.DataFrame(documents).to_csv(index_label="document"))
    _replace(folder / FREQUENCY, pd.Series(frequency, name="frequency").to_csv(index_label="latent"))
    finite = {key: None if isinstance(value, float) and value != value else value for key, value in numbers.items()}
    _replace(folder / NUMBERS, json.dumps(finite, indent=1))


def write_failed(folder: Path, reason: str) -> None:
    """A folder that cannot be written to may be why."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).write_text(reason + "\n")
    except OSError as error:
        log.error("%s cannot be written: %s", folder / FAILED, error)


def _replace(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.tmp")
    draft.write_text(text)
    draft.replace(file)


def table(*sweeps: Path, base: Path | None = None) -> pd.DataFrame:
    """One row per SAE, finished or not, in the order of model, site, layer, sparsity, arch, seed; COLUMNS.

    `path` is relative to `base`, the first sweep if None. Where an arch is in several sweeps, each is a curve of its own:
    its `arch` is "topk (name of the sweep)".
    """
    base = Path(base or sweeps[0]).resolve()
    rows = [row | {"sweep": Path(sweep).resolve().name} for sweep in sweeps for row in _rows(Path(sweep), base)]
    df = pd.DataFrame(rows, columns=["sweep", *(c for c in COLUMNS if c != "on_front")])
    df[[*METRICS, "coefficient"]] = df[[*METRICS, "coefficient"]].astype(float)
    several = df.groupby("arch")["sweep"].transform("nunique") > 1
    df["arch"] = df["arch"].where(~several, df["arch"] + " (" + df["sweep"] + ")")
    df = df.sort_values([*PLACE, "sparsity", "arch", "seed"], kind="stable", ignore_index=True)
    return df.assign(on_front=on_front(df, "fvu"))[COLUMNS]


def _rows(sweep: Path, base: Path) -> Iterator[dict[str, Any]]:
    for job in jobs(sweep):
        yield _row(job) | {"path": Path(os.path.relpath(job.resolve(), base)).as_posix()}


def jobs(sweep: Path) -> list[Path]:
    """The folders of SAEs that are finished or were begun."""
    folders = sorted(file.parent for file in sweep.glob("*/*/*/*/.hydra"))
    return [job for job in folders if (job / RESOLVED).is_file() or (_finished(job) and (job / COMPOSED).is_file())]


def _finished(job: Path) -> bool:
    return (job / NUMBERS).is_file()


def _row(job: Path) -> dict[str, Any]:
    config = OmegaConf.load(job / (COMPOSED if (job / COMPOSED).is_file() else RESOLVED))
    named = {key: OmegaConf.select(config, f"{key}.name") for key in ("model", "site", "arch")}
    plain = {key: OmegaConf.select(config, key) for key in ("layer", "sparsity", "seed")}
    if _finished(job):
        found, state = numbers(job), "finished"
    else:
        found, state = {"tokens": int(latest(job).get("tokens", 0))}, "failed" if (job / FAILED).is_file() else "unfinished"
    return {**named, **plain, **{key: found.get(key) for key in [*SIZES, *METRICS, "sinks"]}, "state": state}


def numbers(job: Path) -> Mapping[str, int | float | None]:
    """eval.json."""
    file = job / NUMBERS
    try:
        found = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} is not readable JSON ({error}): delete the file and run the sweep again") from error
    missing = [key for key in ("l0", "fvu") if key not in found]
    if missing:
        raise UsageError(f"{file} has no {' and no '.join(missing)}: delete the file and run the sweep again")
    return found


def latest(job: Path) -> dict[str, float]:
    """The last whole row of metrics.csv; nothing if there is none."""
    if not (job / CURVE).is_file():
        return {}
    with (job / CURVE).open("rb") as file:
        header = file.readline()
        start = max(len(header), file.seek(0, os.SEEK_END) - 4096)  # a row is some hundred characters
        file.seek(start)
        rows = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
    keys = header.decode().strip().split(",")
    return dict(zip(keys, map(float, rows[-1].split(b",")), strict=True)) if rows else {}


def _curve(job: Path) -> pd.DataFrame:
    """Whole lines only: the last one may just be on its way."""
    try:
        text = (job / CURVE).read_text()
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
    return pd.read_csv(job / DOCUMENTS, index_col="document") if (job / DOCUMENTS).is_file() else None


def frequency(job: Path) -> np.ndarray | None:
    """[d_sae]: the share of the held-out tokens on which each latent is active."""
    return pd.read_csv(job / FREQUENCY)["frequency"].to_numpy() if (job / FREQUENCY).is_file() else None


def details(job: Path) -> Details:
    return Details(
        command=command(job), config=dict(flat(settings(job))), curve=_curve(job), rates=frequency(job),
        wandb=_text(job / URL), reason=_text(job / FAILED),
    )  # fmt: skip


def command(job: Path) -> str:
    """What the job's own overrides make of the program."""
    words = OmegaConf.to_container(OmegaConf.load(job / WORDS)) if (job / WORDS).is_file() else []
    return " ".join(["python train.py", *map(shlex.quote, map(str, words))])


def settings(job: Path) -> dict[str, Any]:
    """Every setting that made the SAE, as it was composed."""
    file = next((job / name for name in (RESOLVED, COMPOSED) if (job / name).is_file()), None)
    return OmegaConf.to_container(OmegaConf.load(file), resolve=True) if file else {}


def flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, node


def _text(file: Path) -> str | None:
    return file.read_text().strip() if file.is_file() else None
