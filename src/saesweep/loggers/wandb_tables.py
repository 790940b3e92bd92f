"""What a sweep's summary run in W&B shows, as tables, from the files in the sweep's folder."""
import json
from collections.abc import Container
from pathlib import Path

import pandas as pd

from saesweep.storage import curves, files, sweep_table

CURRENT = ("tokens", "l0", "fvu", "dead", "coefficient")  # of the last row of metrics.csv
FILES = {"page": "pareto.html", "figure": "pareto.png", "frequency": "frequency.png"}


def written(sweep: Path) -> dict[str, Path]:
    """The page and the figures that are there, by key."""
    return {key: sweep / name for key, name in FILES.items() if (sweep / name).is_file()}


def curves_of(df: pd.DataFrame) -> pd.DataFrame:
    """The finished SAEs, by l0; a curve is one architecture at one site."""
    df = curves.by_curve(df)
    finished: pd.DataFrame = df.loc[df["state"] == "finished"]
    done = finished.sort_values(by="l0", kind="stable")
    place = done["model"].astype(str) + " " + done["site"].astype(str) + "." + done["layer"].astype(str)
    curve = done["arch"].astype(str) + (" " + place if len(place.unique()) > 1 else "")
    return done.assign(curve=curve).loc[:, ["l0", "fvu", "delta_loss", "curve", "sparsity", "seed", "path"]]


def matched_l0(sweep: Path) -> pd.DataFrame | None:
    """The comparisons at equal L0 of pareto.json, one row per pair, target L0, metric and site."""
    if not (sweep / "pareto.json").is_file():
        return None
    rows = []
    for place in json.loads((sweep / "pareto.json").read_text())["places"]:
        where = {key: place[key] for key in sweep_table.PLACE}
        for metric, found in place["metrics"].items():
            rows += [{**where, "metric": metric, **gap} for gap in found["gaps"]]
    return pd.DataFrame(rows)


def standing(sweep: Path, running: Container[Path] = ()) -> pd.DataFrame:
    """All SAEs of the sweep with their `state`; for those in `running`, the metrics of the last training batches."""
    df = sweep_table.table(sweep).astype(object)
    for row, path in zip(df.index, df["path"].tolist(), strict=True):
        now = files.latest(sweep / path) if sweep / path in running and df.at[row, "state"] == "unfinished" else {}
        for key in CURRENT if now else ():
            df.at[row, key] = now.get(key)
        df.at[row, "state"] = "training" if now else df.at[row, "state"]
    return df
