"""The plan of a launch as text: one table per group."""
from collections.abc import Mapping, Sequence
from typing import Any

from saesweep.config.settings import passes, target, unique_tokens
from saesweep.loggers.identity import curves
from saesweep.storage import checkpoints
from saesweep.sweep.jobs import Job, shown

COLUMNS = ("site", "arch", "sparsity", "seed", "d_in", "d_sae", "parameters", "optimizer", "folder")
LEFT = ("site", "arch", "folder")


def describe(done: Sequence[Job], groups: Sequence[Sequence[Job]], estimates: Sequence[dict[str, Any] | None]) -> str:
    """estimates: what `saesweep.sweep.probe.estimate` says of each group; None where the group runs on another machine."""
    count = sum(map(len, groups))
    parts = [f"{_many(count, 'SAE')} to train in {_many(len(groups), 'group')}, {len(done)} already finished"]
    for number, (group, estimate) in enumerate(zip(groups, estimates, strict=True), 1):
        if estimate is None:
            parts += ["", f"group {number}: {_shared(group)}", *(f"  {shown(job.folder)}" for job in group)]
        else:
            parts += ["", f"group {number}: {_shared(group)}; {_cost(estimate)}", *_table(group, estimate)]
    if done:
        parts += ["", "finished: trained with the same settings, kept"]
        parts += [f"  {shown(job.folder)}" for job in done]
    return "\n".join(parts)


def _shared(group: Sequence[Job]) -> str:
    cfg = group[0].settings
    known = [most for job in group if (most := checkpoints.max_group_size(job.folder))]
    why = f" ({min(known)} at a time: more run out of memory)" if known else ""
    name = cfg["model"]["name"]
    once = f"{name}: drawn once" if "synthetic" in cfg["model"]["source"] else f"{name} reads {cfg['text']['name']} once"
    tokens = f"{cfg['tokens']:,} tokens"
    if passes(cfg) > 1:
        tokens += f", each read {passes(cfg)} times: {unique_tokens(cfg):,} harvested,"
    return f"{once} for {_many(len(group), 'SAE')}{why}, {tokens} in batches of {cfg['batch_tokens']:,}"


def _cost(estimate: dict[str, Any]) -> str:
    params, state = number(sum(estimate["params"])), number(sum(estimate["optimizer_bytes"]))
    return f"{params} parameters, {state}B of optimizer state, about {duration(estimate['seconds'])}"


def _table(group: Sequence[Job], estimate: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = [COLUMNS]
    names = curves([job.settings for job in group], [job.folder for job in group])
    each = zip(group, names, estimate["d_in"], estimate["params"], estimate["optimizer_bytes"], strict=True)
    for job, curve, d_in, params, state in each:
        cfg = job.settings
        place, size = f"{cfg['site']['name']}.{cfg['layer']}", f"{number(state)}B"
        rows.append((place, curve, shown_target(cfg), str(cfg["seed"]), str(d_in), str(cfg["width"]),
                     number(params), size, shown(job.folder)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(_pad(*cell) for cell in zip(COLUMNS, row, widths, strict=True)).rstrip() for row in rows]


def shown_target(cfg: Mapping[str, Any]) -> str:
    """The column `sparsity`: target L0, or the fixed coefficient."""
    return f"λ {cfg['arch']['coefficient']:g}" if (l0 := target(cfg)) is None else f"{l0:g}"


def _pad(column: str, text: str, width: int) -> str:
    return text.ljust(width) if column in LEFT else text.rjust(width)


def number(value: int | float) -> str:
    """5242880 -> 5.24 M."""
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} T"


def duration(seconds: int | float) -> str:
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
