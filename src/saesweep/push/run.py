"""What `saesweep push` does: choose SAEs, write their folder with table, chart, page and card, and upload it."""
from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saesweep.push import copies, selected, upload
from saesweep.push.card import Content, card
from saesweep.push.licences import Licences, licences
from saesweep.push.selected import Selection
from saesweep.report import pareto
from saesweep.runtime import atomic
from saesweep.storage import files, sweep_table
from saesweep.study.subjects import sweep_of


@dataclass(frozen=True)
class Options:
    dry_run: Path | None = None  # the folder to write to in place of the hub
    private: bool = False
    license: str | None = None  # of the language model
    text_license: str | None = None


class Made(NamedTuple):
    folder: Path
    files: dict[str, int]  # bytes, by path, the largest first
    saes: int
    left_out: dict[str, int]
    rewritten: list[str]  # keys of the settings


def push(folders: Sequence[Path], repository: str, options: Options, say: Callable[[Made], None] = lambda made: None) -> str:
    """The folder that was written, or the address of the commit. Everything that a user can get wrong is found before a file
    is written. say: called before the upload. Raises UsageError.
    """
    upload.require_name(repository)
    chosen = selected.choose(folders)
    terms = licences([one.public.settings for one in chosen.saes], options.license, options.text_license)
    if options.dry_run is not None:
        copies.require_own(options.dry_run)
        say(_written(chosen, repository, terms, options.dry_run.resolve(), linked=False))
        return str(options.dry_run)
    upload.require_account(repository)
    with tempfile.TemporaryDirectory() as folder:
        say(_written(chosen, repository, terms, Path(folder).resolve(), linked=True))
        return upload.upload(Path(folder), repository, options.private)


def _written(chosen: Selection, repository: str, terms: Licences, out: Path, linked: bool) -> Made:
    copies.write(chosen.saes, out, linked)
    sweeps = list(dict.fromkeys(sweep_of(one.job) for one in chosen.saes))
    report = pareto.report([out])._replace(name=", ".join(sweep_table.sweep_names(sweeps).values()))
    pareto.write(report, out)
    df = sweep_table.table(out)
    settings = {one.place.as_posix(): one.public.settings for one in chosen.saes}
    rewritten = sorted({key for one in chosen.saes for key in one.public.rewritten})
    saved_as = [json.loads((out / path / files.CFG).read_text())["architecture"] for path in df["path"]]
    jobs = [settings[path] for path in df["path"]]
    atomic.write(out / copies.CARD, card(Content(repository, df, jobs, saved_as, terms, rewritten)))
    sizes = {file.relative_to(out).as_posix(): file.stat().st_size for file in out.rglob("*") if file.is_file()}
    by_size = dict(sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0])))
    return Made(out, by_size, len(chosen.saes), chosen.left_out, rewritten)
