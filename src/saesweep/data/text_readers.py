"""Readers of txt, jsonl and parquet files: documents, or None for rows without text; errors name the byte or row."""
import codecs
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from saesweep.errors import UsageError

COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"PK\x03\x04")  # gzip, zstd, bzip2, xz, zip
BYTE_ORDER_MARKS = {  # the longer ones first
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}
BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')  # of JSON: whole strings, which may contain brackets, and brackets
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())


def _txt(path: Path, field: str) -> Iterator[str]:
    """The whole file as one document, with \\n for every line end."""
    content = _decoded(path, path.read_bytes(), 0).removeprefix("\ufeff")
    if content:
        yield content.replace("\r\n", "\n").replace("\r", "\n")


def _jsonl(path: Path, field: str) -> Iterator[str | None]:
    has_field, first = False, None
    for row, values in _objects(path):
        first = values if first is None else first
        has_field |= field in values
        yield _text(values.get(field), f"{path}, row {row:,}", field, _text_fields(values))
    if first is not None and not has_field:
        raise no_field(field, str(path), _text_fields(first))


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of each row that is not empty."""
    offset = 0
    with path.open("rb") as lines:
        for row, line in enumerate(lines, 1):
            content = _decoded(path, line, offset)
            offset += len(line)
            content = content.removeprefix("\ufeff") if row == 1 else content
            if content.strip():
                yield row, _object(path, row, content)


def values(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    """Of each row of a jsonl or parquet file: where it is, and the value of the field, of any type; None where it has none.
    Raises UsageError for a file without the field."""
    if path.suffix == ".jsonl":
        for row, found in _objects(path):
            if field not in found:
                raise UsageError(f"text.field={field}: {path}, row {row:,}: has no such field; it has "
                                 f"{', '.join(found) or 'none'}")
            yield f"{path}, row {row:,}", found[field]
        return
    with parquet.ParquetFile(path) as file:
        if field not in (names := file.schema_arrow.names):
            raise UsageError(f"text.field={field}: {path} has no such column; it has {', '.join(names) or 'none'}")
        each = itertools.chain.from_iterable(batch.column(field) for batch in file.iter_batches(columns=[field]))
        for row, value in enumerate(each, 1):
            yield f"{path}, row {row:,}", _value(path, row, value)


def _object(path: Path, row: int, line: str) -> dict[str, Any]:
    try:
        values = _parsed(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"text.glob: {path}, row {row:,}: is not JSON ({error}); correct or remove the row") from error
    if not isinstance(values, dict):
        raise UsageError(f"text.glob: {path}, row {row:,}: is a JSON {type(values).__name__}; each line has to be an object, "
                         'such as {"text": "..."}')
    return values


def _parsed(line: str) -> Any:
    """json.loads, but other fields may hold integers of any length and nesting of any depth."""
    try:
        return json.loads(line, parse_int=_number)
    except RecursionError:
        return json.loads(_shallow(line), parse_int=_number)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) < 1000 else float(digits)  # Python refuses integers of more than 4,300 digits


def _shallow(line: str) -> str:
    """The line with every list and object inside its outermost object emptied."""
    parts, depth, end = [], 0, 0
    for found in BRACKETS.finditer(line):
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
        raise UsageError(f"text.glob: {path}, row {row:,}: is not UTF-8 ({error.reason}); correct or remove the row") from error


def _is_text(kind: pa.DataType) -> bool:
    return (kind.value_type if pa.types.is_dictionary(kind) else kind) in TEXT_TYPES


def _text(value: Any, where: str, field: str, fields: Sequence[str]) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"text.field={field}: {where}: holds a value of type {type(value).__name__}, not text; "
                         f"it has text in {', '.join(fields) or 'no field'}")
    return value and without_surrogates(value)


def without_surrogates(text: str) -> str:
    """The text with U+FFFD in place of unpaired surrogates, which JSON can hold but UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _text_fields(row: Mapping[str, Any]) -> list[str]:
    return [name for name, value in row.items() if isinstance(value, str)]


def no_field(field: str, where: str, fields: Sequence[str]) -> UsageError:
    """The error for a missing text.field; `fields`: those that hold text."""
    return UsageError(f"text.field={field}: {where} has no such field of text; it has {', '.join(fields) or 'none'}")


def _decoded(path: Path, content: bytes, offset: int) -> str:
    """`offset`: the position of the content in the file, in bytes."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if offset == 0 and content.startswith(mark)), "latin1")
        fix = f"convert it, as in iconv -f {encoding} -t utf-8"
        fix = "unpack it" if offset == 0 and content.startswith(COMPRESSED) else fix
        raise UsageError(f"text.glob: {path}, byte {offset + error.start:,}: is not UTF-8 ({error.reason}); {fix}") from error


READERS: dict[str, Callable[[Path, str], Iterator[str | None]]] = {".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet}
