"""Fronts and comparisons: the SAEs of one or more sweeps as a table, an answer, figures and a page.

    python -m saesweep.report.pareto outputs/default
    python -m saesweep.report.pareto outputs/a outputs/b --out outputs/both

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

from saesweep.errors import UsageError
from saesweep.report import compare, figures, page, verdicts, wording
from saesweep.results import files, sweep_table
from saesweep.results.sweep_table import Details
from saesweep.runtime import program

SHOWN = {"arch": "s", "sparsity": "g", "coefficient": "g", "seed": "g", "l0": ".2f", "fvu": ".4f", "delta_loss": ".4f",
         "loss_recovered": ".4f", "dead": ".3f", "recovery": ".3f"}
NO_SHARED_L0 = ("no two architectures have SAEs within 5% of one L0, or near enough around it; several sparsities make curves "
                "that do, such as sparsity=16,32,64")


class Report(NamedTuple):
    df: pd.DataFrame  # outputs.table
    comparison: dict[str, Any]  # pareto.json
    details: list[Details]  # of each row
    name: str


def report(sweeps: Sequence[Path], out: Path | None = None, reference: str | None = None) -> Report:
    """Read and compared; links are relative to `out`, the first sweep's folder if None."""
    base = Path(out or sweeps[0]).resolve()
    df = sweep_table.table(*sweeps, base=base)
    if reference is not None and reference not in set(df["arch"]):
        raise UsageError(f"--reference {reference}: there are {', '.join(sorted(set(df['arch']))) or 'no SAEs'}")
    folders = [Path(os.path.normpath(base / path)) for path in df["path"]]
    comparison = compare.compare(df, [sweep_table.documents(folder) for folder in folders], reference)
    details = [sweep_table.details(folder) for folder in folders]
    rows = list(zip(df.itertuples(), details, strict=True))
    comparison["failed"] = [{"path": r.path, "reason": d.reason} for r, d in rows if r.state == "failed"]
    comparison["unfinished"] = [{"path": r.path, "tokens": int(r.tokens)} for r, _ in rows if r.state == "unfinished"]
    return Report(df, comparison, details, ", ".join(sweep_table.names(sweeps).values()))


def write(found: Report, out: Path) -> list[Path]:
    """Each file whole or not at all."""
    out.mkdir(parents=True, exist_ok=True)
    contents = {
        "pareto.csv": found.df.astype({"sparsity": "Int64"}).to_csv(index=False).encode(),  # a target may be missing
        "pareto.json": json.dumps(found.comparison, indent=1, allow_nan=False).encode(),
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
            said = [*_pairs(found, measure), *_means(found, measure)]
            said += [f"  {a} and {b} were measured on different text, and are not compared" for a, b in found["on_other_text"]]
            where = f"\n{place['model']} {place['site']}.{place['layer']}, {measure}"
            if said:
                lines += [where, *said]
            elif len(found["curves"]) > 1:
                lines.append(f"{where}: {NO_SHARED_L0}")
    head = "Which is better at the same L0, by how much lower its number is."
    return "\n".join([head, *wording.scope(comparison), *lines]) if lines else ""


def _pairs(found: Mapping[str, Any], measure: str) -> list[str]:
    pairs = dict[str, list[str]]()
    for gap in found["gaps"]:
        gap = verdicts.turned(gap) if gap["verdict"] == "worse" else gap
        a, b = (f"this {arch}" if gap["one_seed"] else arch for arch in (gap["a"], gap["b"]))
        pairs.setdefault(f"{a} {wording.PHRASES[gap['verdict']]} {b}", []).append(_at(gap, measure))
    return [f"  {words} at {', '.join(gaps)}" for words, gaps in pairs.items()]


def _at(gap: Mapping[str, Any], measure: str) -> str:
    said, more = wording.amount(gap, measure), wording.note(gap)
    if gap["verdict"] == "better":
        return f"{gap['sparsity']:g} by {said}" + (f" ({more})" if more else "")
    return f"{gap['sparsity']:g} ({said}{'; ' if more else ''}{more})"


def _means(found: Mapping[str, Any], measure: str) -> list[str]:
    """The mean of the measure over log L0, and how it lies to the reference's."""
    reference, whose = found["reference"], " of these SAEs" * any(one.get("one_seed", False) for one in found["means"])
    each = [f"{one['arch']} {one['mean']:.4f}" + ("" if one["arch"] == reference else f" ({wording.beside(one, measure)})")
            for one in found["means"]]
    where = f"mean{whose} over L0 {wording.l0s(found['mean_over_l0'])}"
    return [f"  {where}, beside {reference}'s: {', '.join(each)}"] if each else []


def main() -> None:
    parser = argparse.ArgumentParser(prog=program.called("pareto"), description="Fronts and comparisons of sweeps.")
    parser.add_argument("sweeps", nargs="+", type=Path, help="folders such as outputs/default")
    parser.add_argument("--out", type=Path, help="where to write; needed for several sweeps, else only the text is shown")
    parser.add_argument("--reference", help="the architecture that means over L0 are compared with")
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
