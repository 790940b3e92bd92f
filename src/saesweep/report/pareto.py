"""The report of one or more sweeps: a table, the comparison of architectures, figures and a page.

    saesweep pareto outputs/default
    saesweep pareto outputs/a outputs/b --out outputs/both

prints the table and the comparison, and writes pareto.csv, pareto.json, pareto.html, pareto.png, pareto.svg,
frequency.png and frequency.svg: for one sweep into its folder, for several into the folder given by --out.
"""
import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from saesweep.errors import UsageError, exit_on_usage_error
from saesweep.report import compare, figures, page, verdicts, wording
from saesweep.runtime import atomic, program
from saesweep.storage import curves, study_tables, sweep_table
from saesweep.storage.sweep_table import Details

COLUMNS = {  # of the printed table, with their formats
    "arch": "s", "trained_by": "s", "tokens": ",.0f", "sparsity": "g", "coefficient": "g", "seed": "g", "l0": ".2f",
    "fvu": ".4f", "delta_loss": ".4f", "loss_recovered": ".4f", "dead": ".3f", "recovery": ".3f",
}


class Report(NamedTuple):
    df: pd.DataFrame  # sweep_table.table, with `arch` by_curve
    comparison: dict[str, Any]  # the content of pareto.json
    details: list[Details]  # of each row
    name: str


def report(sweeps: Sequence[Path], out: Path | None = None, reference: str | None = None) -> Report:
    """Read and compare the sweeps; paths are relative to `out`, the folder of the first sweep if None.

    Raises UsageError if a sweep does not exist or has no architecture `reference`.
    """
    base = Path(out or sweeps[0]).resolve()
    df = curves.by_curve(sweep_table.table(*sweeps, base=base))
    if reference is not None and reference not in set(df["arch"]):
        raise UsageError(f"--reference {reference}: the sweep has {', '.join(sorted(set(df['arch']))) or 'no SAEs'}")
    folders = [Path(os.path.normpath(base / path)) for path in df["path"]]
    comparison = compare.compare(df, [sweep_table.documents(folder) for folder in folders], reference)
    latents = study_tables.indexes_of_latents(base)
    details = [sweep_table.details(folder)._replace(latents=latents.get(path))
               for folder, path in zip(folders, df["path"], strict=True)]
    rows = list(zip(df.to_dict("records"), details, strict=True))
    comparison["failed"] = [{"path": row["path"], "reason": d.reason} for row, d in rows if row["state"] == "failed"]
    unfinished = df.loc[df["state"] == "unfinished"]
    comparison["unfinished"] = unfinished[["path", "tokens"]].astype({"tokens": int}).to_dict("records")
    return Report(df, comparison, details, ", ".join(sweep_table.sweep_names(sweeps).values()))


def write(report: Report, out: Path) -> list[Path]:
    """Write each file atomically."""
    df, comparison, details, _ = report
    counts = ["sparsity", *(["tokens", "unique_tokens"] if sweep_table.imported(df).any() else [])]
    saes = curves.by_arch(df).astype(dict.fromkeys(counts, "Int64"))  # of which some may be missing
    contents = {
        "pareto.csv": saes.to_csv(index=False).encode(),
        "pareto.json": json.dumps(comparison, indent=1, allow_nan=False).encode(),
        "pareto.html": page.html(*report).encode(),
        **{f"pareto.{kind}": content for kind, content in figures.pareto(df, comparison).items()},
        **{f"frequency.{kind}": content for kind, content in figures.frequency(df, details).items()},
    }
    for name, content in contents.items():
        atomic.write(out / name, content)
    return [out / name for name in contents]


def text(report: Report) -> str:
    """The table and the comparison."""
    imported = wording.imported("Rows with `trained_by`") if sweep_table.imported(report.df).any() else ""
    return "\n\n".join(part for part in (table(report.df), imported, answer(report.comparison)) if part)


def table(df: pd.DataFrame) -> str:
    """Aligned text, one block per hook point; `*` marks the Pareto front, `-` stands for no number."""
    if df.empty:
        return "no SAEs"
    rows = df.to_dict("records")
    optional = {"seed": df["seed"].nunique() > 1, "coefficient": bool(df["sparsity"].isna().any()),
                "recovery": bool(df["recovery"].notna().any()),
                **dict.fromkeys(("trained_by", "tokens"), bool(sweep_table.imported(df).any()))}
    columns = [_column(key, df[key].tolist(), form) for key, form in COLUMNS.items() if optional.get(key, True)]
    states = ["" if row["state"] == "finished" else row["state"] for row in rows]
    columns.append(["front", *("*" if row["on_front"] else state for row, state in zip(rows, states, strict=True))])
    header, *lines = ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]
    blocks: dict[str, list[str]] = {}
    for row, line in zip(rows, lines, strict=True):
        blocks.setdefault(f"\n{row['model']} {row['site']}.{row['layer']}", []).append(line)
    return "\n".join([header, *("\n".join([place, *block]) for place, block in blocks.items())])


def _column(key: str, values: Sequence[Any], form: str) -> list[str]:
    cells = [key, *("-" if value is None or value != value else format(value, form) for value in values)]
    width = max(map(len, cells))
    return [cell.ljust(width) if form == "s" else cell.rjust(width) for cell in cells]


def answer(comparison: Mapping[str, Any]) -> str:
    """A sentence per pair of architectures, by hook point and measure: which is better, at which L0, by how much."""
    lines = []
    for place in comparison["places"]:
        for measure, block in place["metrics"].items():
            sentences = [*_pairs(block, measure), wording.means(measure, [block]), wording.not_compared([block])]
            found = [f"  {sentence}" for sentence in sentences if sentence]
            title = f"\n{place['model']} {place['site']}.{place['layer']}, {measure}"
            if found:
                lines += [title, *found]
            elif len(block["curves"]) > 1:
                lines.append(f"{title}: {wording.NOT_COMPARABLE}")
    head = "Comparison at the same L0; lower is better. Brackets are intervals; percentages are of the second value."
    return "\n".join([head, *wording.scope(comparison), *lines]) if lines else ""


def _pairs(block: Mapping[str, Any], measure: str) -> list[str]:
    """`topk is better than gated at 16 by 5.4% [4.1, 6.7]*, 32 by ..`"""
    pairs = dict[str, list[str]]()
    for gap in block["gaps"]:
        gap = verdicts.swapped(gap) if gap["verdict"] == "worse" else gap
        a, b = (f"this {arch}" if gap["one_seed"] else arch for arch in (gap["a"], gap["b"]))
        pairs.setdefault(f"{a} {wording.PHRASES[gap['verdict']]} {b}", []).append(_amount(gap, measure))
    return [f"{words} at {', '.join(gaps)}" for words, gaps in pairs.items()]


def _amount(gap: Mapping[str, Any], measure: str) -> str:
    estimate, caveat = wording.estimate(gap, measure), wording.caveat(gap, measure)
    if gap["verdict"] == "better":
        return f"{gap['sparsity']:g} by {estimate}" + (f" ({caveat})" if caveat else "")
    return f"{gap['sparsity']:g} ({estimate}{'; ' if caveat else ''}{caveat})"


@exit_on_usage_error()
def main() -> None:
    parser = argparse.ArgumentParser(prog=program.called("pareto"), description="Compare the SAEs of sweeps.")
    parser.add_argument("sweeps", nargs="+", type=Path, help="folders such as outputs/default")
    parser.add_argument("--out", type=Path, help="folder to write to; several sweeps are only printed without it")
    parser.add_argument("--reference", help="the architecture that means over L0 are relative to")
    given = parser.parse_args()
    out = given.out or (given.sweeps[0] if len(given.sweeps) == 1 else None)
    made = report(given.sweeps, out, given.reference)
    print(text(made))
    if out is None:
        print("\n--out FOLDER writes pareto.csv, pareto.json, pareto.html and the figures")
    else:
        print("", *write(made, out), sep="\n")


if __name__ == "__main__":
    main()
