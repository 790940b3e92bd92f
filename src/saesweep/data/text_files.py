"""Text files as documents: each txt file is one, each row of a jsonl or parquet file is one.

Every matched file is read once, and only the field that holds the text. What is read is written to an Arrow file that has
no name and is mapped into memory: nothing of it is kept for the next run, so no file is ever read as it was before.
"""
from __future__ import annotations

import codecs
import glob
import itertools
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from saesweep.errors import UsageError

log = logging.getLogger(__name__)
BATCH_CHARACTERS = 1 << 24  # of documents per batch of the Arrow file
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PK\x03\x04")  # gzip, zstd, bzip2, xz, zip
MARKS = {  # the longer ones first
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}
STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')  # of JSON: strings, and where lists and objects begin and end
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())


class Documents(Sequence):
    """The documents of an Arrow column, read from disk as they are asked for."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, number: int) -> str:
        return self._column[number].as_py()

    def __iter__(self) -> Iterator[str]:
        return (document for chunk in self._column.chunks for document in chunk.to_pylist())


def documents(text: Mapping[str, Any], cache: Path) -> Documents:
    """Of all files that text.glob matches, in the order of their paths; the Arrow file stands in the folder `cache`."""
    counts = {"rows": 0, "skipped": 0}
    found = _map(_with_text(matched(text["glob"]), text["field"], counts), cache)
    where = f"text.glob={text['glob']}"
    if not len(found):
        raise UsageError(f"{where}: its files hold no text in text.field={text['field']}; choose other files or another field")
    if counts["skipped"]:
        log.warning("%s: %s of %s documents are empty, or rows without text.field=%s, and are left out",
                    where, f"{counts['skipped']:,}", f"{counts['rows']:,}", text["field"])
    return found


def matched(pattern: str) -> list[Path]:
    """The files of a pattern, each once, however many links lead to it. A path that exists is taken as it is written."""
    where, expanded = f"text.glob={pattern}", os.path.expanduser(pattern)
    names = [expanded] if os.path.isfile(expanded) else sorted(glob.glob(expanded, recursive=True))
    folders = [name for name in names if os.path.isdir(name)]
    files = {os.path.realpath(name): Path(name) for name in reversed(names) if name not in folders}
    if not files:
        hint = f"; {folders[0]} is a folder: write '{Path(folders[0]) / '**/*.jsonl'}'" if folders else ""
        hint = hint or ("; a [ that is part of a name is written [[]" if "[" in pattern else "")
        raise UsageError(f"{where}: no file matches it from {Path.cwd()}{hint}")
    for path in files.values():
        if not path.is_file():
            raise UsageError(f"{where} matches {path}: it is a link to nothing, or no ordinary file; remove it")
        if path.suffix not in READERS:
            raise UsageError(f"{where} matches {path}: choose files of {', '.join(READERS)}; unpack compressed ones")
    return sorted(files.values())


def _with_text(paths: Iterable[Path], field: str, counts: dict[str, int]) -> Iterator[str]:
    for path in paths:
        before = counts["rows"]
        try:
            for document in READERS[path.suffix](path, field):
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


def _txt(path: Path, field: str) -> Iterator[str]:
    """Line ends become newlines."""
    content = _decoded(path, path.read_bytes(), 0).removeprefix("\ufeff")
    if content:
        yield content.replace("\r\n", "\n").replace("\r", "\n")


def _jsonl(path: Path, field: str) -> Iterator[str | None]:
    at, row, has_field, first = 0, 0, False, None
    with path.open("rb") as lines:
        for row, line in enumerate(lines, 1):
            content = _decoded(path, line, at)
            at += len(line)
            content = content.removeprefix("\ufeff") if row == 1 else content
            if content.strip():
                values = _object(path, row, content)
                first = values if first is None else first
                has_field |= field in values
                yield _text(values.get(field), f"{path}, row {row:,}", field, _text_fields(values))
    if first is not None and not has_field:
        raise no_field(field, str(path), _text_fields(first))


def _object(path: Path, row: int, line: str) -> dict[str, Any]:
    try:
        values = _parsed(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"text.glob: {path}, row {row:,}: is no JSON ({error}); mend or remove the row") from error
    if not isinstance(values, dict):
        raise UsageError(f"text.glob: {path}, row {row:,}: is a JSON {type(values).__name__}; each line has to be an object, "
                         'such as {"text": "..."}')
    return values


def _parsed(line: str) -> Any:
    """Other fields than that of the text may hold whatever JSON allows: integers of any length, nesting of any depth."""
    try:
        return json.loads(line, parse_int=_number)
    except RecursionError:
        return json.loads(_shallow(line), parse_int=_number)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < 1000 else float(digits)  # Python parses no longer integers than 4,300 digits


def _shallow(line: str) -> str:
    """A line of JSON with empty lists and objects in place of those inside of its object."""
    parts, depth, end = [], 0, 0
    for found in STRUCTURE.finditer(line):
        if found[0] in "[{":
            depth += 1
            if depth == 2:
                parts.append(line[end:found.start()])
        elif found[0] in "]}":
            depth -= 1
            if depth == 1:
                parts.append("[]" if found[0] == "]" else "{}")
                end = found.end()
    return "".join([*parts, line[end:]])


def _parquet(path: Path, field: str) -> Iterator[str | None]:
    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        fields = [column.name for column in schema if _is_text(column.type)]
        if (count := schema.names.count(field)) > 1:
            raise UsageError(f"text.field={field}: {path} has {count} columns of that name; rename all but one")
        if not count or not (_is_text(kind := schema.field(field).type) or pa.types.is_null(kind)):
            raise no_field(field, str(path), fields)
        values = itertools.chain.from_iterable(batch.column(field) for batch in file.iter_batches(columns=[field]))
        for row, value in enumerate(values, 1):
            yield _text(_value(path, row, value), f"{path}, row {row:,}", field, fields)


def _value(path: Path, row: int, value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        raise UsageError(f"text.glob: {path}, row {row:,}: is not UTF-8 ({error.reason}); mend or remove the row") from error


def _is_text(kind: pa.DataType) -> bool:
    return (kind.value_type if pa.types.is_dictionary(kind) else kind) in TEXT_TYPES


def _text(value: Any, where: str, field: str, fields: Sequence[str]) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"text.field={field}: {where}: holds a value of type {type(value).__name__}, not text; "
                         f"it has text in {', '.join(fields) or 'no field'}")
    return value and whole_characters(value)


def whole_characters(text: str) -> str:
    """JSON can hold halves of surrogate pairs, which are no characters: each becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _text_fields(row: Mapping[str, Any]) -> list[str]:
    return [name for name, value in row.items() if isinstance(value, str)]


def no_field(field: str, where: str, fields: Sequence[str]) -> UsageError:
    return UsageError(f"text.field={field}: {where} has no such field of text; it has {', '.join(fields) or 'none'}")


def _decoded(path: Path, content: bytes, at: int) -> str:
    """`at`: the byte of the file with which the content begins."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        encoding = next((name for mark, name in MARKS.items() if at == 0 and content.startswith(mark)), "latin1")
        fix = f"convert it, as in iconv -f {encoding} -t utf-8"
        fix = "unpack it" if at == 0 and content.startswith(COMPRESSED) else fix
        raise UsageError(f"text.glob: {path}, byte {at + error.start:,}: is not UTF-8 ({error.reason}); {fix}") from error


READERS: dict[str, Callable[[Path, str], Iterator[str | None]]] = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}


def _map(found: Iterator[str], folder: Path) -> Documents:
    """The file is removed once it is mapped; it lasts as long as the mapping."""
    schema = pa.schema([("text", pa.large_string())])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".text-", suffix=".arrow") as draft:
            with pa.OSFile(draft.name, "wb") as out, pa.ipc.new_file(out, schema) as writer:
                for batch in _batches(found):
                    writer.write_batch(pa.record_batch([pa.array(batch, pa.large_string())], schema=schema))
            return Documents(pa.ipc.open_file(pa.memory_map(draft.name)).read_all()["text"])
    except OSError as error:  # what cannot be read has been said
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
