"""Text files as documents: each txt file is one, each row of a jsonl or parquet file is one.

Every matched file is read once, of its fields only the text. The documents go to an unnamed Arrow file that is mapped into
memory and lasts as long as the mapping: nothing is kept for a later run, so changed files are always read anew.
"""
import glob
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from saesweep.data.documents import Tokenised
from saesweep.data.text_readers import READERS
from saesweep.errors import UsageError

log = logging.getLogger(__name__)
BATCH_CHARACTERS = 1 << 24  # per record batch of the Arrow file


Reader = Callable[[Path], Iterator[str | None]]


class Documents(Sequence[str]):
    """The documents of a memory-mapped Arrow column; those with token ids have them in another."""

    def __init__(self, column: pa.ChunkedArray, ids: pa.ChunkedArray | None = None) -> None:
        self._column, self._ids = column, ids

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, number: int) -> str:
        document = self._column[number].as_py()
        return document if self._ids is None else Tokenised.of(document, self._ids[number].as_py())

    def __iter__(self) -> Iterator[str]:
        return (document for chunk in self._column.chunks for document in chunk.to_pylist())


def documents(text: Mapping[str, Any], cache: Path) -> Documents:
    """The documents of all files that text.glob matches, in the order of their paths; `cache` is the folder of the Arrow file.
    Raises UsageError for files that cannot be read or hold no text."""
    return of_files(text, matched(text["glob"]), lambda path: READERS[path.suffix](path, text["field"]), cache)


def of_files(text: Mapping[str, Any], paths: Iterable[Path], read: Reader, cache: Path, has_ids: bool = False) -> Documents:
    """As `documents`; has_ids: `read` gives documents with token ids."""
    counts = {"rows": 0, "skipped": 0}
    found = _memory_mapped(_non_empty(paths, read, counts), cache, has_ids)
    where = f"text.glob={text['glob']}"
    if not len(found):
        raise UsageError(f"{where}: its files hold no text in text.field={text['field']}; choose other files or another field")
    if counts["skipped"]:
        log.warning("%s: %s of %s documents are empty, or rows without text.field=%s, and are left out",
                    where, f"{counts['skipped']:,}", f"{counts['rows']:,}", text["field"])
    return found


def matched(pattern: str, kinds: Collection[str] = tuple(READERS)) -> list[Path]:
    """The files of a pattern, sorted, without duplicates by links; an existing path is not taken as a pattern.
    Raises UsageError where there is none, or one of another kind."""
    where, expanded = f"text.glob={pattern}", os.path.expanduser(pattern)
    names = [expanded] if os.path.isfile(expanded) else sorted(glob.glob(expanded, recursive=True))
    folders = [name for name in names if os.path.isdir(name)]
    files = {os.path.realpath(name): Path(name) for name in reversed(names) if name not in folders}
    if not files:
        hint = f"; {folders[0]} is a folder: write '{Path(folders[0]) / '**/*.jsonl'}'" if folders else ""
        hint = hint or ("; a [ in a name is written [[]" if "[" in pattern else "")
        raise UsageError(f"{where}: no file matches it from {Path.cwd()}{hint}")
    for path in files.values():
        if not path.is_file():
            raise UsageError(f"{where} matches {path}: it is a link to nothing, or not an ordinary file; remove it")
        if path.suffix not in kinds:
            raise UsageError(f"{where} matches {path}: choose files of {', '.join(kinds)}; unpack compressed ones")
    return sorted(files.values())


def _non_empty(paths: Iterable[Path], read: Reader, counts: dict[str, int]) -> Iterator[str]:
    for path in paths:
        before = counts["rows"]
        try:
            for document in read(path):
                counts["rows"] += 1
                if document is None or not document.strip():
                    counts["skipped"] += 1
                else:
                    yield document
        except (OSError, pa.ArrowException) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            fix = "make it readable, or leave it out"
            raise UsageError(f"text.glob: cannot read {path} as {path.suffix}: {reason}; {fix}") from error
        if counts["rows"] == before:
            log.warning("text.glob: %s is empty", path)


def _memory_mapped(found: Iterator[str], folder: Path, has_ids: bool) -> Documents:
    """The Arrow file is unlinked once it is mapped."""
    schema = pa.schema([("text", pa.large_string()), *([("ids", pa.large_list(pa.int64()))] if has_ids else [])])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".text-", suffix=".arrow") as draft:
            with pa.OSFile(draft.name, "wb") as out, pa.ipc.new_file(out, schema) as writer:
                for batch in _batches(found):
                    ids = [[document.ids for document in batch if isinstance(document, Tokenised)]] if has_ids else []
                    columns = [pa.array(part, kind.type) for part, kind in zip([batch, *ids], schema, strict=True)]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
            table = pa.ipc.open_file(pa.memory_map(draft.name)).read_all()
            return Documents(table["text"], table["ids"] if has_ids else None)
    except OSError as error:  # of writing: _non_empty has turned those of reading into UsageError
        raise UsageError(f"text=files: cannot write the text that was read to {folder} ({error.strerror or error}): make room, "
                         "or set XDG_CACHE_HOME to a folder with more") from error


def _batches(found: Iterable[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for document in found:
        batch.append(document)
        size += len(document)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
