"""The plan of a launch as text: one table per group."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saesweep.config.settings import has_lm, own_activations, passes, target, unique_tokens
from saesweep.loggers.identity import curves
from saesweep.storage import checkpoints
from saesweep.sweep.jobs import Job, shown

if TYPE_CHECKING:
    from saesweep.sweep.footprint import Place  # torch

COLUMNS = ("site", "arch", "sparsity", "seed", "d_in", "d_sae", "parameters", "memory", "folder")
LEFT = ("site", "arch", "folder")


def describe(done: Sequence[Job], groups: Sequence[Sequence[Job]], estimates: Sequence[dict[str, Any] | None]) -> str:
    """estimates: what `saesweep.sweep.probe.estimate` says of each group; None where the group runs on another machine."""
    count = sum(map(len, groups))
    parts = [f"{_many(count, 'SAE')} to train in {_many(len(groups), 'group')}, {len(done)} already finished"]
    for number, (group, estimate) in enumerate(zip(groups, estimates, strict=True), 1):
        if estimate is None:
            parts += ["", f"group {number}: {_shared(group)}", *(f"  {shown(job.folder)}" for job in group)]
        else:
            head = f"group {number}: {_shared(group)}; {_cost(estimate)}"
            parts += ["", head, *_table(group, estimate), *_places(estimate["places"], len(group)), *_not_counted(estimate)]
    if done:
        parts += ["", "finished: trained with the same settings, kept"]
        parts += [f"  {shown(job.folder)}" for job in done]
    return "\n".join(parts)


def _shared(group: Sequence[Job]) -> str:
    cfg = group[0].settings
    known = [most for job in group if (most := checkpoints.max_group_size(job.folder))]
    why = f" ({min(known)} at a time: more run out of memory)" if known else ""
    name = cfg["model"]["name"]
    once = f"{name} reads {cfg['text']['name']} once" if has_lm(cfg) else f"{name}: drawn once"
    if own := own_activations(cfg):
        once = f"{name}: {own['folder'] or own['iterator']} is read once"
    tokens = f"{cfg['tokens']:,} tokens"
    if passes(cfg) > 1:
        tokens += f", each read {passes(cfg)} times: {unique_tokens(cfg):,} harvested,"
    return f"{once} for {_many(len(group), 'SAE')}{why}, {tokens} in batches of {cfg['batch_tokens']:,}"


def _cost(estimate: dict[str, Any]) -> str:
    return f"{number(sum(estimate['params']))} parameters, about {duration(estimate['seconds'])}"


def _places(places: Sequence[Place], count: int) -> list[str]:
    """What a group of `count` SAEs takes of host, device and disk, by phase, and what to change if that is too much."""
    lines = []
    for place in places:
        peak, parts = place.peak
        held = ", ".join(f"{part} {number(size)}B" for part, size in parts.items() if size)
        others = ", ".join(f"{number(sum(parts.values()))}B {phase}" for phase, parts in place.phases.items() if phase != peak)
        head = f"  {place.name}: {number(sum(parts.values()))}B {peak}".rstrip()
        lines.append(f"{head}, of {number(place.there)}B: {held}" + (f"; {others}" if others else ""))
        if problem := place.problem(count):
            lines.append(f"  WARNING: {problem}")
    return lines


def _not_counted(estimate: Mapping[str, Any]) -> list[str]:
    count, no_loss = estimate["unmeasured"], estimate["no_loss"]
    lines = [f"  not counted: the dense latents of {_many(count, 'SAE')} whose evaluation fails"] if count else []
    return [*lines, *([f"  {no_loss}"] if no_loss else [])]


def _table(group: Sequence[Job], estimate: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = [COLUMNS]
    names = curves([job.settings for job in group], [job.folder for job in group])
    each = zip(group, names, estimate["d_in"], estimate["params"], estimate["sae_bytes"], strict=True)
    for job, curve, d_in, params, held in each:
        cfg = job.settings
        place, size = f"{cfg['site']['name']}.{cfg['layer']}", f"{number(held)}B"
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
