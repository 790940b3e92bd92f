"""Where documents come from: the `kind` of a text, read as a sequence that stays, or as a stream."""

import glob
import itertools
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.hub import require_hub

BUILDERS = {".txt": "text", ".jsonl": "json", ".parquet": "parquet"}  # of the datasets library
STRINGS = ("string", "large_string")


def stdlib() -> list[str]:
    """Python's own source with its tests, by path; a few files are deliberately not UTF-8."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in root.rglob("*.py") if not {"site-packages", "dist-packages"} & set(path.parts)]
    if not paths:
        raise UsageError(f"text=python_stdlib: no .py file under {root}; use text=files text.glob='...'")
    texts = []
    for path in sorted(paths):
        try:
            texts.append(path.read_bytes().decode())
        except UnicodeDecodeError:
            continue
    return texts


def files(text: Mapping[str, Any]) -> Sequence[str]:
    """One document per txt file, or per row of jsonl and parquet, in the order of the paths."""
    if not text["glob"]:
        raise UsageError("text=files needs text.glob, for instance text.glob='corpus/**/*.txt'")
    pattern = str(Path(text["glob"]).expanduser())
    paths = sorted(path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file())
    if not paths:
        raise UsageError(f"text.glob={text['glob']}: no file matches it from {Path.cwd()}")
    by_suffix = defaultdict(list)
    for path in paths:
        if path.suffix not in BUILDERS:
            raise UsageError(f"text.glob={text['glob']} matches {path}: choose files of {', '.join(BUILDERS)}")
        by_suffix[path.suffix].append(str(path))
    columns = [_column(suffix, by_suffix[suffix], text["field"]) for suffix in sorted(by_suffix)]
    return columns[0] if len(columns) == 1 else list(itertools.chain(*columns))


def _column(suffix: str, paths: list[str], field: str) -> Sequence[str]:
    import datasets

    datasets.disable_progress_bars()
    options = {"sample_by": "document"} if suffix == ".txt" else {}
    try:
        rows = datasets.load_dataset(BUILDERS[suffix], data_files=paths, split="train", **options)
    except datasets.exceptions.DatasetGenerationError as error:
        reason = error.__cause__ or error
        raise UsageError(f"text.glob: cannot read {', '.join(paths)} as {suffix}: {reason}") from error
    strings = [name for name, feature in rows.features.items() if getattr(feature, "dtype", "") in STRINGS]
    return rows[_text_field(strings, "text" if suffix == ".txt" else field, ", ".join(paths))]


def hub(text: Mapping[str, Any], seed: int) -> Iterable[str]:
    """Shuffled in a buffer; the same documents in the same order each time it is iterated."""
    import datasets

    where = text["repository"]
    if not Path(where).is_dir():
        require_hub(f"text={text['name']}", where, "use text=python_stdlib, or text=files")
    try:
        rows = datasets.load_dataset(where, text["config"], split="train", streaming=True, revision=text["revision"])
        first = next(iter(rows))
    except (OSError, ValueError, RuntimeError, StopIteration, datasets.exceptions.DatasetsError) as error:
        hint = " (pip install zstandard)" if "zstd" in str(error) else ""
        raise UsageError(f"text={text['name']}: cannot read {where}: {error or 'it has no rows'}{hint}") from error
    field = _text_field([name for name, value in first.items() if isinstance(value, str)], text["field"], where)
    return _Field(rows.shuffle(seed=seed, buffer_size=text["buffer"]), field)


class _Field:
    """One field of rows that can be iterated again."""

    def __init__(self, rows: Iterable[Mapping[str, Any]], field: str) -> None:
        self.rows, self.field = rows, field

    def __iter__(self) -> Iterator[str]:
        return (row[self.field] or "" for row in self.rows)


def _text_field(fields: list[str], field: str, where: str) -> str:
    if field not in fields:
        raise UsageError(f"text.field={field}: {where} has no such field of text; it has {', '.join(fields) or 'none'}")
    return field
