"""Where documents come from: the `kind` of a text, read as a sequence that stays, or as a stream."""

import hashlib
import itertools
import json
import logging
import os
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.lm.hub import require_hub
from saesweep.runtime.digests import sha256

log = logging.getLogger(__name__)
FIRST_ROWS = 1000  # of a stream, one of which has to hold text in text.field


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
        except OSError as error:
            raise UsageError(f"text=python_stdlib: cannot read {path}: {error.strerror}; use text=files") from error
    return texts


def files(text: Mapping[str, Any]) -> Sequence[str]:
    """One document per txt file, or per row of jsonl and parquet, in the order of the paths."""
    from saesweep.data import text_files  # imports pyarrow

    if not text["glob"]:
        raise UsageError("text=files needs text.glob, for instance text.glob='corpus/**/*.txt'")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saesweep" / "texts"
    return text_files.documents(text, cache)


class Streamed:
    """One field of a dataset's rows, shuffled in a buffer: the same documents in the same order each time it is iterated.

    `identity`: of the dataset's files, the commit that they are of, or on this machine a digest of their content.
    """

    def __init__(self, text: Mapping[str, Any], seed: int) -> None:
        import datasets

        self._where, self._field = text["repository"], text["field"]
        self._name = f"text={text['name']}"
        where = self._where
        if Path(where).is_dir():
            where = _as_it_is_written(where)
        else:
            require_hub(self._name, where, "use text=python_stdlib, or text=files")
        try:
            builder = datasets.load_dataset_builder(where, text["config"], revision=text["revision"])
            rows = builder.as_streaming_dataset(split="train")
            first = list(_until(lambda row: isinstance(row.get(self._field), str), itertools.islice(rows, FIRST_ROWS)))
        except Exception as error:
            hint = " (pip install zstandard)" if "zstd" in str(error) else ""
            raise UsageError(f"{self._name}: cannot read {self._where}: {_reason(error)}{hint}") from error
        self._require_field(first)
        self._rows = rows.shuffle(seed=seed, buffer_size=text["buffer"])
        self.identity = _content((builder.config.data_files or {}).get("train", []))

    def _require_field(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from saesweep.data.text_files import no_field

        if not rows:
            raise UsageError(f"{self._name}: cannot read {self._where}: it has no rows")
        if not isinstance(rows[-1].get(self._field), str):
            fields = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, str))
            raise no_field(self._field, self._where, list(fields))

    def __iter__(self) -> Iterator[str]:
        """Rows that are empty, or have no such field, are left out."""
        from saesweep.data.text_files import whole_characters

        rows, skipped = iter(self._rows), 0
        for number in itertools.count(1):
            try:
                row = next(rows, None)
            except Exception as error:
                raise UsageError(f"{self._name}: {self._where} broke off at row {number:,}: {_reason(error)}; run the same "
                                 "command again, which resumes from the last checkpoint") from error
            if row is None:
                break
            value = row.get(self._field)
            if value is not None and not isinstance(value, str):
                raise UsageError(f"text.field={self._field}: {self._where}, row {number:,} of the stream: holds a value "
                                 f"of type {type(value).__name__}, not text; choose another field or text")
            if value and value.strip():
                yield whole_characters(value)
            else:
                skipped += 1
        if skipped:
            log.warning("%s: %s of %s rows have no text in %s, and are left out", self._name, f"{skipped:,}", f"{number - 1:,}",
                        self._field)


def _until(enough: Callable[[Mapping[str, Any]], bool], rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        yield row
        if enough(row):
            return


def _reason(error: Exception) -> str:
    """One line of it."""
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__


def _as_it_is_written(folder: str) -> str:
    """The datasets library takes a folder for a pattern."""
    if any(character in folder for character in "*?[]"):
        raise UsageError(f"text.repository={folder}: a folder with * ? [ or ] in its name cannot be read; rename it")
    return folder


def _content(data_files: Iterable[str]) -> str:
    known = [[name, None if "://" in name else sha256(Path(name))] for name in map(str, data_files)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
