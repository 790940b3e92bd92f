"""Sources of documents: the standard library and text files as sequences, datasets of the Hugging Face hub as streams."""

import hashlib
import itertools
import json
import logging
import os
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError
from saesweep.lm.hub import require_hub
from saesweep.lm.tokenizer import Tokenizer
from saesweep.runtime.digests import sha256

log = logging.getLogger(__name__)
FIRST_ROWS = 1000  # rows of a stream among which one must hold text in text.field


def stdlib() -> list[str]:
    """The source files of Python's standard library, tests included, sorted by path; files that are not UTF-8 are left out."""
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
    """One document per txt file, or per row of jsonl and parquet, in the order of the paths. Raises UsageError."""
    from saesweep.data import text_files  # imports pyarrow

    if not text["glob"]:
        raise UsageError("text=files needs text.glob, for instance text.glob='corpus/**/*.txt'")
    return text_files.documents(text, _cache())


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saesweep" / "texts"


def token_files(text: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[Sequence[str], dict[str, Any]]:
    """The rows of ids, or of messages, of jsonl and parquet files, and what is noted of them. Raises UsageError."""
    from saesweep.data import token_files as reader  # imports pyarrow

    if not text["glob"]:
        raise UsageError(f"text={text['name']} needs text.glob, for instance text.glob='corpus/*.parquet'")
    return reader.documents(text, tokenizer, _cache())


class Streamed:
    """One field of the rows of a dataset, shuffled in a buffer; every iteration gives the same documents in the same order.

    `identity`: a digest of the URLs of the dataset's files, which contain its commit, or of the content of local files.
    Raises UsageError for a dataset that cannot be read or has no text in text.field.
    """

    def __init__(self, text: Mapping[str, Any], seed: int) -> None:
        import datasets

        self._where, self._field = text["repository"], text["field"]
        self._name = f"text={text['name']}"
        if Path(self._where).is_dir():
            _require_no_pattern(self._where)
        else:
            require_hub(self._name, self._where, "use text=python_stdlib, or text=files")
        try:
            builder = datasets.load_dataset_builder(self._where, text["config"], revision=text["revision"])
            rows: Any = builder.as_streaming_dataset(split="train")
            first = []
            for row in itertools.islice(rows, FIRST_ROWS):
                first.append(row)
                if isinstance(row.get(self._field), str):
                    break
        except Exception as error:
            hint = " (pip install zstandard)" if "zstd" in str(error) else ""
            raise UsageError(f"{self._name}: cannot read {self._where}: {_reason(error)}{hint}") from error
        self._require_field(first)
        self._rows = rows.shuffle(seed=seed, buffer_size=text["buffer"])
        self.identity = _files_digest((builder.config.data_files or {}).get("train", []))

    def _require_field(self, rows: Sequence[Mapping[str, Any]]) -> None:
        from saesweep.data.text_readers import no_field

        if not rows:
            raise UsageError(f"{self._name}: cannot read {self._where}: it has no rows")
        if not isinstance(rows[-1].get(self._field), str):
            fields = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, str))
            raise no_field(self._field, self._where, list(fields))

    def __iter__(self) -> Iterator[str]:
        """The documents; rows that are empty or lack the field are left out. Raises UsageError where reading fails."""
        from saesweep.data.text_readers import without_surrogates

        rows, skipped = iter(self._rows), 0
        for number in itertools.count(1):
            try:
                row = next(rows, None)
            except Exception as error:
                raise UsageError(f"{self._name}: {self._where} broke off at row {number:,}: {_reason(error)}; run the same "
                                 "command again to resume from the last checkpoint") from error
            if row is None:
                break
            value = row.get(self._field)
            if value is not None and not isinstance(value, str):
                raise UsageError(f"text.field={self._field}: {self._where}, row {number:,} of the stream: holds a value "
                                 f"of type {type(value).__name__}, not text; choose another field or text")
            if value and value.strip():
                yield without_surrogates(value)
            else:
                skipped += 1
        if skipped:
            log.warning("%s: %s of %s rows have no text in %s, and are left out", self._name, f"{skipped:,}", f"{number - 1:,}",
                        self._field)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0]}" if str(error) else type(error).__name__


def _require_no_pattern(folder: str) -> None:
    """Raises UsageError for a folder that the datasets library would take as a pattern."""
    if any(character in folder for character in "*?[]"):
        raise UsageError(f"text.repository={folder}: a folder with * ? [ or ] in its name cannot be read; rename it")


def _files_digest(data_files: Iterable[str]) -> str:
    known = [[name, None if "://" in name else sha256(Path(name))] for name in map(str, data_files)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()
