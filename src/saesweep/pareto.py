"""Fronts and comparisons: the SAEs of one or more sweeps as a table, an answer, figures and a page.

    python -m saesweep.pareto outputs/default
    python -m saesweep.pareto outputs/a outputs/b --out outputs/both

prints the table and which architecture is better at which sparsity, and writes pareto.csv, pareto.json, pareto.html,
pareto.png, pareto.svg, frequency.png and frequency.svg: of one sweep into its folder, of several where --out says.
"""
import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from saesweep import compare, figures, files, outputs, page
from saesweep.errors import UsageError
from saesweep.outputs import Details

SHOWN = {"arch": "s", "sparsity": "g", "coefficient": "g", "seed": "g", "l0": ".2f", "fvu": ".4f", "delta_loss": ".4f",
         "loss_recovered": ".4f", "dead": ".3f", "recovery": ".3f"}
NO_SHARED_L0 = "no two architectures share an L0; several sparsities make curves that do, such as sparsity=16,32,64"
PHRASES = {"better": "is better than", "level": "is level with"}


class Report(NamedTuple):
    df: pd.DataFrame  # outputs.table
    comparison: dict[str, Any]  # pareto.json
    details: list[Details]  # of each row
    name: str


def report(sweeps: Sequence[Path], out: Path | None = None, reference: str | None = None) -> Report:
    """Read and compared; links are relative to `out`, the first sweep's folder if None."""
    base = Path(out or sweeps[0]).resolve()
    df = outputs.table(*sweeps, base=base)
    if reference is not None and reference not in set(df["arch"]):
        raise UsageError(f"--reference {reference}: there are {', '.join(sorted(set(df['arch']))) or 'no SAEs'}")
    folders = [Path(os.path.normpath(base / path)) for path in df["path"]]
    comparison = compare.compare(df, [outputs.documents(folder) for folder in folders], reference)
    details = [outputs.details(folder) for folder in folders]
    rows = list(zip(df.itertuples(), details, strict=True))
    comparison["failed"] = [{"path": r.path, "reason": d.reason} for r, d in rows if r.state == "failed"]
    comparison["unfinished"] = [{"path": r.path, "tokens": int(r.tokens)} for r, _ in rows if r.state == "unfinished"]
    return Report(df, comparison, details, ", ".join(outputs.names(sweeps).values()))


def write(found: Report, out: Path) -> list[Path]:
    """Each file whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    contents = {
        "pareto.csv": found.df.astype({"sparsity": "Int64"}).to_csv(index=False).encode(),  # a target may be missing
        "pareto.json": json.dumps(found.comparison, indent=1).encode(),
        "pareto.html": page.html(*found).encode(),
        **{f"pareto.{kind}": content for kind, content in figures.pareto(found.df, found.comparison).items()},
        **{f"frequency.{kind}": content for kind, content in figures.frequency(found.df, found.details).items()},
    }
    for name, content in contents.items():
        files.replace(out / name, content)
    return [out / name for name in contents]


def text(found: Report) -> str:
    """The table, then the answer."""
    return "\n\n".join(part for part in (table(found.df), answer(found.comparison)) if part)


def table(df: pd.DataFrame) -> str:
    """Aligned plain text, one block per model, site and layer; `*` marks the front, `-` what was not measured."""
    if df.empty:
        return "no SAEs"
    needed = {"seed": df["seed"].nunique() > 1, "coefficient": df["sparsity"].isna().any()}
    needed["recovery"] = df["recovery"].notna().any()
    shown = [key for key in SHOWN if needed.get(key, True)]
    columns = [_column(key, df[key], SHOWN[key]) for key in shown]
    marks = ["*" if row.on_front else "" if row.state == "finished" else row.state for row in df.itertuples()]
    columns.append(["front", *marks])
    lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    places = [f"{row.model} {row.site}.{row.layer}" for row in df.itertuples()]
    blocks = [lines[0]]
    for i, place in enumerate(places):
        blocks += ([f"\n{place}"] if place not in places[:i] else []) + [lines[i + 1]]
    return "\n".join(blocks)


def _column(key: str, values: pd.Series, form: str) -> list[str]:
    cells = [key, *(_cell(value, form) for value in values)]
    width = max(map(len, cells))
    return [cell.ljust(width) if form == "s" else cell.rjust(width) for cell in cells]


def _cell(value: object, form: str) -> str:
    return "-" if value is None or value != value else format(value, form)


def answer(comparison: Mapping[str, Any]) -> str:
    """A sentence for each two architectures, by place and measure: where which is better, and by how much."""
    lines = []
    for place in comparison["places"]:
        for measure, found in place["metrics"].items():
            apart, where = found["on_other_text"], f"\n{place['model']} {place['site']}.{place['layer']}, {measure}"
            if not found["gaps"] and not apart:
                lines += [f"{where}: {NO_SHARED_L0}"] if len(found["curves"]) > 1 else []
                continue
            pairs = dict[tuple[str, str, str], list[Mapping[str, Any]]]()
            for gap in found["gaps"]:
                gap = compare.turned(gap) if compare.verdict(gap) == "worse" else gap
                pairs.setdefault((gap["a"], PHRASES[compare.verdict(gap)], gap["b"]), []).append(gap)
            lines.append(where)
            lines += [f"  {' '.join(words)} at {', '.join(map(_at, gaps))}" for words, gaps in pairs.items()]
            lines += [f"  {_areas(found)}"] if len(found["areas"]) > 1 else []
            lines += [f"  {a} and {b} were measured on different text, and are not compared" for a, b in apart]
    kinds = dict.fromkeys(gap["interval"] for p in comparison["places"] for m in p["metrics"].values() for gap in m["gaps"])
    said = " and ".join(kind for kind in kinds if kind)
    head = "Which is better at the same L0, by how much lower its number is" + (f" [95% interval, from {said}]" if said else "")
    return "\n".join([head, *lines]) if lines else ""


def _at(gap: Mapping[str, Any]) -> str:
    return f"{gap['sparsity']:g} " + (f"({_amount(gap)})" if compare.verdict(gap) == "level" else f"by {_amount(gap)}")


def _amount(found: Mapping[str, Any]) -> str:
    interval = "" if found["low"] is None else f" [{found['low']:z.1f}, {found['high']:z.1f}]"
    return f"{found['percent']:z.1f}%{interval}"


def _areas(found: Mapping[str, Any]) -> str:
    """The mean of the measure over log L0, and how it lies to the reference's."""
    each = [f"{one['arch']} {one['mean']:.4f}{_beside(one)}" for one in found["areas"]]
    low, high = found["range"]
    return f"mean from L0 {low:.1f} to {high:.1f}, beside {found['reference']}'s: {', '.join(each)}"


def _beside(one: Mapping[str, Any]) -> str:
    """An area says by how many percent it is lower than the reference's."""
    if not one["percent"]:
        return ""
    if compare.verdict(one) == "level":
        return f" (level [{one['low']:z.1f}, {one['high']:z.1f}])"
    if one["percent"] > 0:
        return f" ({_amount(one)} lower)"
    low, high = (None if end is None else -end for end in (one["high"], one["low"]))
    return f" ({_amount({'percent': -one['percent'], 'low': low, 'high': high})} higher)"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m saesweep.pareto", description="Fronts and comparisons of sweeps.")
    parser.add_argument("sweeps", nargs="+", type=Path, help="folders such as outputs/default")
    parser.add_argument("--out", type=Path, help="where to write; needed for several sweeps, else only the text is shown")
    parser.add_argument("--reference", help="the architecture that areas under the front are compared with")
    given = parser.parse_args()
    out = given.out or (given.sweeps[0] if len(given.sweeps) == 1 else None)
    try:
        found = report(given.sweeps, out, given.reference)
        print(text(found))
        if out is None:
            print("\n--out FOLDER writes this as pareto.csv, pareto.json, pareto.html and figures")
        else:
            print("", *write(found, out), sep="\n")
    except UsageError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
