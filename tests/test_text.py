"""Texts: the order of documents, the held-out split, blocks of tokens, and the refusal of a user's mistakes."""

import json
import os
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from fresh import TEXTS as WORDS
from omegaconf import OmegaConf
from small import require_enough_tokens

from saesweep.data import overlap
from saesweep.data.text import BATCH, Corpus, TextEnded, blocks
from saesweep.data.text_files import matched
from saesweep.errors import UsageError
from saesweep.lm.models import load_tokenizer
from saesweep.lm.tokenizer import Tokenizer

CONF = Path(__file__).parents[1] / "conf"


def config(group: str, name: str, **changes: Any) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")) | changes


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def tokenizer() -> Tokenizer:
    return load_tokenizer(config("model", "tiny"))


@pytest.fixture
def jsonl(tmp_path: Path) -> str:
    return write_jsonl(tmp_path / "a.jsonl", WORDS)


def write_jsonl(path: Path, documents: list[str], field: str = "text") -> str:
    path.write_text("".join(json.dumps({field: document, "n": 1}) + "\n" for document in documents))
    return str(path)


def files(glob: str, seed: int = 0, **changes: Any) -> Corpus:
    return Corpus(config("text", "files", glob=glob, **changes), seed)


def both(corpus: Corpus) -> tuple[list[str], list[str]]:
    return list(corpus.one_pass("train")), list(corpus.one_pass("held_out"))


def stream_folder(tmp_path: Path, documents: list[str]) -> str:
    (tmp_path / "stream").mkdir()
    write_jsonl(tmp_path / "stream" / "train.jsonl", documents)
    return str(tmp_path / "stream")


def streamed(folder: str, seed: int = 0, **changes: Any) -> Corpus:
    return Corpus(config("text", "fineweb", repository=folder, config=None, held_out=10, buffer=20) | changes, seed)


# Order and split


def test_every_document_is_in_exactly_one_split(jsonl: str) -> None:
    train, held_out = both(files(jsonl))
    assert len(held_out) == 5 and sorted(train + held_out) == sorted(WORDS)


def test_the_stream_seed_determines_order_and_split(jsonl: str) -> None:
    assert both(files(jsonl, seed=0)) == both(files(jsonl, seed=0))
    assert both(files(jsonl, seed=0))[0] != WORDS[5:]
    assert set(both(files(jsonl, seed=0))[1]) != set(both(files(jsonl, seed=1))[1])


def test_the_order_is_the_same_in_another_process(fresh: Path, found_fresh: dict[str, Any]) -> None:
    assert found_fresh["order"] == list(files(str(fresh / "text.jsonl"), seed=3).one_pass("train"))


def test_equal_documents_are_never_in_both_splits(tmp_path: Path) -> None:
    corpus = files(write_jsonl(tmp_path / "a.jsonl", WORDS * 3), held_out=0.3)
    train, held_out = both(corpus)
    assert len(train) + len(held_out) == len(WORDS) and not set(train) & set(held_out)


def test_empty_documents_are_dropped(tmp_path: Path) -> None:
    train, held_out = both(files(write_jsonl(tmp_path / "a.jsonl", ["", " \n", *WORDS[:4]])))
    assert sorted(train + held_out) == sorted(WORDS[:4])


def test_reading_from_a_start_number_skips_as_many_documents(jsonl: str) -> None:
    corpus = files(jsonl, repeat=True)
    assert list(islice(corpus.documents("train", 120), 30)) == list(islice(corpus.documents("train"), 120, 150))
    assert list(corpus.documents("held_out", 2)) == list(corpus.documents("held_out"))[2:]


def test_the_end_of_a_text_is_an_error_without_repeat(jsonl: str) -> None:
    once: Iterator[str] = files(jsonl).documents("train")
    assert len(list(islice(once, 95))) == 95
    with pytest.raises(UsageError, match=r"text\.repeat=true"):
        next(once)


def test_a_repeated_text_has_a_new_order_each_pass_and_no_held_out_documents(jsonl: str) -> None:
    corpus = files(jsonl, repeat=True)
    thrice = list(islice(corpus.documents("train"), 3 * 95))
    passes = [thrice[:95], thrice[95:190], thrice[190:]]
    assert passes[0] != passes[1] != passes[2]
    assert all(sorted(one) == sorted(passes[0]) for one in passes)
    assert not set(thrice) & set(corpus.documents("held_out"))


# Kinds of text


@pytest.mark.slow
def test_python_stdlib_has_the_modules_of_the_standard_library_and_no_installed_ones() -> None:
    train, held_out = both(Corpus(config("text", "python_stdlib"), 0))
    everything = set(train + held_out)
    assert Path(json.__file__).read_bytes().decode() in everything
    assert Path(torch.__file__).read_bytes().decode() not in everything
    assert 0.09 < len(held_out) / len(everything) < 0.11 and not set(train) & set(held_out)
    assert sum(map(len, everything)) > 10_000_000


def test_files_of_three_kinds_are_read_together(tmp_path: Path) -> None:
    import pandas

    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.txt").write_text("first line\n\n  second line\n")
    write_jsonl(tmp_path / "b.jsonl", ["from jsonl"])
    pandas.DataFrame({"text": ["from parquet", "another row"]}).to_parquet(tmp_path / "c.parquet")
    train, held_out = both(files(str(tmp_path / "**" / "*.*")))
    assert set(train + held_out) == {"first line\n\n  second line\n", "from jsonl", "from parquet", "another row"}


def test_the_text_may_be_in_another_field(tmp_path: Path) -> None:
    train, held_out = both(files(write_jsonl(tmp_path / "a.jsonl", WORDS, "content"), field="content"))
    assert sorted(train + held_out) == sorted(WORDS)


def test_the_stream_seed_determines_order_and_split_of_a_stream(tmp_path: Path) -> None:
    folder = stream_folder(tmp_path, WORDS)
    train, held_out = both(streamed(folder))
    assert len(held_out) == 10 and sorted(train + held_out) == sorted(WORDS) and train + held_out != WORDS
    assert both(streamed(folder)) == (train, held_out) and both(streamed(folder, seed=1)) != (train, held_out)


def test_training_on_a_stream_skips_the_held_out_documents(tmp_path: Path) -> None:
    corpus = streamed(stream_folder(tmp_path, WORDS * 4), repeat=True)
    held_out = set(corpus.documents("held_out"))
    assert held_out and not held_out & set(islice(corpus.documents("train"), 1000))


def test_a_stream_without_training_documents_ends_even_with_repeat(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="to its end"):
        next(streamed(stream_folder(tmp_path, WORDS), held_out=100, repeat=True).documents("train"))


# Files


def everything(corpus: Corpus) -> list[str]:
    train, held_out = both(corpus)
    return sorted(train + held_out)


def test_a_file_with_brackets_in_its_name_matches_a_pattern_and_its_own_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "part[0].jsonl", WORDS[:20])
    write_jsonl(tmp_path / "part0.jsonl", WORDS[20:40])
    assert everything(files(str(tmp_path / "*.jsonl"))) == sorted(WORDS[:40])
    assert everything(files(str(tmp_path / "part[0].jsonl"))) == sorted(WORDS[:20])


def test_a_file_with_several_paths_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    write_jsonl(tmp_path / "deep/a.jsonl", WORDS[:4])
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "deep/a.jsonl")
    (tmp_path / "around").symlink_to(tmp_path / "deep", target_is_directory=True)
    (tmp_path / "folder.jsonl").mkdir()
    assert len(matched(str(tmp_path / "**/**/*.jsonl"))) == 1
    monkeypatch.setenv("HOME", str(tmp_path))
    assert everything(files("~/deep/*.jsonl")) == sorted(WORDS[:4])


def test_other_columns_may_differ_between_files_and_rows(tmp_path: Path) -> None:
    import pandas

    others = [{}, {"extra": 1}, {"extra": "one"}, {"extra": [2]}]
    rows = [other | {"text": word} for other, word in zip(others, WORDS[:4], strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pandas.DataFrame({"text": WORDS[4:6], "n": [1, 2]}).to_parquet(tmp_path / "b.parquet")
    pandas.DataFrame({"n": ["x", "y"], "text": WORDS[6:8]}).to_parquet(tmp_path / "c.parquet")
    assert everything(files(str(tmp_path / "*"))) == sorted(WORDS[:8])


def test_a_parquet_column_is_found_by_its_full_name_and_may_be_dictionary_encoded(tmp_path: Path) -> None:
    import pandas

    frame = pandas.DataFrame({"text.en": ["a", "b"], "text": pandas.Categorical(["c", "d"]), "texts": [[1], [2]]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert everything(files(str(tmp_path / "a.parquet"))) == ["c", "d"]
    assert everything(files(str(tmp_path / "a.parquet"), field="text.en")) == ["a", "b"]


def test_byte_order_marks_and_windows_line_ends_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"text": "one"}\r\n\r\n{"text": "two"}')
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfthree\r\nfour\r\n")
    assert everything(files(str(tmp_path / "*"))) == ["one", "three\nfour\n", "two"]


def test_rows_without_text_are_dropped_and_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": None}, {"text": ""}, {"other": 1}, *({"text": word} for word in WORDS[:4])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text("")
    assert everything(files(str(tmp_path / "*.jsonl"))) == sorted(WORDS[:4])
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2 and "b.jsonl is empty" in messages[0] and "3 of 7 documents" in messages[1]


def test_half_a_surrogate_pair_becomes_the_replacement_character(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud83db"}\n{"text": "\\ud83d\\ude00"}\n')
    found = everything(files(str(tmp_path / "a.jsonl")))
    assert found == ["a\ufffdb", "\U0001f600"] and tokenizer.encode(found)


def test_a_replaced_text_with_the_same_time_stamp_and_size_is_read_again(tmp_path: Path) -> None:
    path = Path(write_jsonl(tmp_path / "a.jsonl", WORDS))
    os.utime(path, (10**9, 10**9))
    before = files(str(path))
    kept = both(before)
    write_jsonl(path, [document.upper() for document in WORDS])
    os.utime(path, (10**9, 10**9))
    after = files(str(path))
    assert everything(after) == sorted(document.upper() for document in WORDS)
    assert after.identity["digest"] != before.identity["digest"]
    assert both(before) == kept  # the earlier corpus does not change


GZIP = b"\x1f\x8b\x08\x00"
DAMAGED_FILES = [
    ("a.jsonl", b'{"text": "one"}\n{"text": "caf\xe9"}\n', r"a\.jsonl, byte 29: is not UTF-8.*iconv"),
    ("a.txt", b"caf\xe9", r"a\.txt, byte 3: is not UTF-8.*iconv"),
    *((name, '{"text": "one"}\n'.encode(code), rf"byte 0: is not UTF-8.*iconv -f {code[:6]} -t utf-8")
      for name in ("a.jsonl", "a.txt") for code in ("utf-16", "utf-32")),
    ("a.txt", b"\xfe\xff\0o", r"byte 0: is not UTF-8.*iconv -f utf-16 -t utf-8"),
    ("a.txt", b"\0\0\xfe\xff\0\0\0o", r"byte 2: is not UTF-8.*iconv -f utf-32 -t utf-8"),
    ("a.jsonl", GZIP, r"a\.jsonl, byte 1: is not UTF-8.*unpack it"),
    ("a.jsonl.gz", GZIP, r"a\.jsonl\.gz: choose files of \.txt, \.jsonl, \.parquet; unpack"),
    ("a.jsonl", b'{"text": "one"}\n{"text": \n', r"a\.jsonl, row 2: is not JSON"),
    ("a.jsonl", b"[" * 100_000, r"a\.jsonl, row 1: is not JSON"),
    ("a.jsonl", b'{"text": "one"}\n["two"]\n', r"a\.jsonl, row 2: is a JSON list"),
    ("a.jsonl", b'{"text": "one"}\n{"text": ["two"], "body": "b"}\n', r"row 2: holds a value of type list, not text.*in body"),
    ("a.jsonl", b'{"body": "one"}\n', r"text\.field=text: .*a\.jsonl has no such field of text; it has body"),
    ("a.jsonl", b"", r"hold no text in text\.field=text"),
    ("a.jsonl", b'{"text": null}\n', r"hold no text in text\.field=text"),
    ("a.parquet", b"PAR1 and no more", r"cannot read .*a\.parquet as \.parquet"),
    ("a.parquet", b"", r"cannot read .*a\.parquet as \.parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), DAMAGED_FILES)
def test_a_damaged_file_is_refused_in_one_line_with_byte_or_row_and_fix(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        files(str(tmp_path / "*"))
    assert "\n" not in str(error.value)


DEEP, LONG = "[" * 50_000 + '{"]": "[\\""}' + "]" * 50_000, "9" * 6000


@pytest.mark.parametrize("other", [DEEP, '{"a": ' * 50_000 + "1" + "}" * 50_000, LONG, f"-{LONG}", f"[{LONG}]"])
def test_other_fields_may_have_any_json_value(tmp_path: Path, other: str) -> None:
    path = tmp_path / "a.jsonl"
    rows = [f'{{"text": "one [", "other": {other}}}', f'{{"other": {other}, "more": {other}, "text": "two"}}']
    rows.append('{"text": "three"}')
    path.write_text("\n".join(rows))
    assert everything(files(str(path))) == ["one [", "three", "two"]


@pytest.mark.parametrize(("value", "message"), [
    (DEEP, "row 2: holds a value of type list, not text"), (LONG, "row 2: holds a value of type float, not text"),
    (DEEP[:-10], "row 2: is not JSON"), (DEEP + "]", "row 2: is not JSON"),
])
def test_a_deep_or_long_value_in_the_text_field_is_refused(tmp_path: Path, value: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one"}}\n{{"text": {value}}}\n')
    with pytest.raises(UsageError, match=message):
        files(str(path))


def test_two_columns_with_the_name_of_the_field_are_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), path)
    with pytest.raises(UsageError, match=r"text\.field=text: .*a\.parquet has 2 columns of that name; rename"):
        files(str(path))


def test_a_parquet_file_that_is_truncated_or_has_numbers_as_text_is_refused_by_name(tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "a.parquet"
    pandas.DataFrame({"text": [1, 2], "body": ["a", "b"]}).to_parquet(path)
    with pytest.raises(UsageError, match=r"text\.field=text: .*a\.parquet has no such field of text; it has body"):
        files(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"cannot read .*a\.parquet"):
        files(str(path))


def test_a_dangling_link_and_an_unreadable_file_are_refused(
    tmp_path: Path, jsonl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"link\.jsonl: it is a link to nothing"):
        files(str(tmp_path / "*.jsonl"))

    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UsageError, match=r"cannot read .*a\.jsonl as \.jsonl: Permission denied"):
        files(jsonl)


def test_a_folder_is_refused_with_the_pattern_of_its_files(tmp_path: Path, jsonl: str) -> None:
    with pytest.raises(UsageError, match=r"is a folder: write '.*\*\*/\*\.jsonl'"):
        files(str(tmp_path))


def test_reading_a_text_leaves_no_file_in_the_cache(jsonl: str, tmp_path: Path) -> None:
    corpus = files(jsonl)
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    assert everything(corpus) == sorted(WORDS)


# Streams


def mock_stream(monkeypatch: pytest.MonkeyPatch, rows: list[Any]) -> None:
    """Replaces datasets with a stream of these rows; a row that is an exception is raised."""
    import datasets

    class Rows:
        def __iter__(self) -> Iterator[Any]:
            for row in rows:
                if isinstance(row, Exception):
                    raise row
                yield row

        def shuffle(self, **_: Any) -> "Rows":
            return self

    builder = SimpleNamespace(as_streaming_dataset=lambda split: Rows(), config=SimpleNamespace(data_files=None))
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)


def test_an_error_of_a_stream_is_one_line_and_not_taken_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Exception):
        """Not an OSError, like the errors of HTTP clients."""

    mock_stream(monkeypatch, [*({"text": word} for word in WORDS[:30]), Broken("connection reset\nby peer")])
    documents = streamed(str(tmp_path)).documents("train")
    assert len(list(islice(documents, 20))) == 20
    with pytest.raises(UsageError, match=r"broke off at row 31: Broken: connection reset; run the same command") as error:
        next(documents)
    assert not isinstance(error.value, TextEnded)


def test_rows_of_a_stream_without_text_are_dropped_and_those_with_a_number_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"other": 1}, {"text": None}, *({"text": word} for word in WORDS)]
    mock_stream(monkeypatch, rows)
    assert everything(streamed(str(tmp_path))) == sorted(WORDS)
    assert "2 of 102 rows have no text" in caplog.text
    mock_stream(monkeypatch, [*rows, {"text": 7}])
    with pytest.raises(UsageError, match=r"text\.field=text: .*row 103 of the stream: holds a value of type int"):
        everything(streamed(str(tmp_path)))


def test_the_held_out_documents_of_a_stream_are_distinct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mock_stream(monkeypatch, [{"text": word} for word in [WORDS[0]] * 7 + WORDS])
    train, held_out = both(streamed(str(tmp_path)))
    assert held_out == WORDS[:10] and train == WORDS[10:]


def test_the_identity_of_a_streamed_folder_is_its_content(tmp_path: Path) -> None:
    folder = stream_folder(tmp_path, WORDS)
    file = Path(folder) / "train.jsonl"
    os.utime(file, (10**9, 10**9))
    before = streamed(folder).identity["digest"]
    assert streamed(folder).identity["digest"] == before
    write_jsonl(file, [document.upper() for document in WORDS])
    os.utime(file, (10**9, 10**9))
    assert streamed(folder).identity["digest"] != before


# Passages in both splits


def random_text(seed: int, characters: int = 3000) -> str:
    draw = random.Random(seed)
    return "".join(draw.choices("etaoin shrdlu\n", k=characters))


SHARED = random_text(-1, 600)


def test_training_documents_that_share_passages_with_held_out_text_are_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    separate, overlapping = [random_text(i) for i in range(30)], [random_text(i) + SHARED for i in range(100, 130)]
    corpus = files(write_jsonl(tmp_path / "a.jsonl", separate + overlapping), held_out=0.3)
    with caplog.at_level("INFO"):
        train, held_out = both(files(str(tmp_path / "a.jsonl"), held_out=0.3))
    assert any(SHARED in document for document in held_out) and not any(SHARED in document for document in train)
    dropped = 60 - 18 - len(train)
    assert dropped > 10 and f"{dropped} of 42 training documents share passages" in caplog.text
    assert both(corpus) == (train, held_out)


def test_a_stream_drops_training_documents_that_share_passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlapping = [random_text(i) + SHARED for i in range(20)]
    mock_stream(monkeypatch, [{"text": text} for text in [*overlapping, *map(random_text, range(50, 60))]])
    train, _ = both(streamed(str(tmp_path)))
    assert train == list(map(random_text, range(50, 60)))


def test_calibration_and_evaluation_documents_share_no_passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [random_text(i) for i in range(6)]
    held_out = [alone[0] + SHARED, alone[1] + SHARED, *alone[2:5], alone[5] + SHARED]
    mock_stream(monkeypatch, [{"text": text} for text in [*held_out, random_text(6)]])
    assert list(streamed(str(tmp_path), held_out=6).documents("held_out")) == [held_out[0], "", *held_out[2:5], ""]


def test_the_hash_of_a_passage_does_not_depend_on_its_position() -> None:
    document = random_text(0, overlap.CHUNK + 5000)
    hashes = overlap.passages(document)
    sampled = overlap.passages(document[-6000:])
    assert len(sampled) > 100 and len(set(sampled) - set(hashes)) <= 1  # except the smallest
    assert len(set(sampled) & set(overlap.passages(random_text(1, 6000)))) == 0
    assert len(overlap.passages(random_text(0, 199))) == 0 and len(overlap.passages(random_text(0, 200))) == 1


@pytest.mark.slow
def test_few_passages_of_the_default_evaluation_text_occur_in_training() -> None:
    corpus = Corpus(config("text", "python_stdlib"), 0)
    evaluation = list(corpus.one_pass("held_out"))[::2]

    def hashes(document: str) -> numpy.ndarray:
        starts, size = range(0, len(document), overlap.CHUNK), overlap.CHUNK + overlap.PASSAGE - 1
        parts = [document[start : start + size].encode("utf-32-le") for start in starts]
        codes = [numpy.frombuffer(part, "<u4") for part in parts if len(part) >= 4 * overlap.PASSAGE]
        return numpy.concatenate([numpy.empty(0, numpy.uint64), *map(overlap._hashes, codes)])

    evaluated = numpy.unique(numpy.concatenate([hashes(document)[:: overlap.PASSAGE] for document in evaluation]))
    seen = numpy.zeros(len(evaluated), bool)
    for document in corpus.one_pass("train"):
        own = hashes(document)
        at = numpy.searchsorted(evaluated, own).clip(max=len(evaluated) - 1)
        seen[at[evaluated[at] == own]] = True
    assert 0 < seen.mean() < 0.005  # 0.049 if no document is dropped


# Blocks


def decode(block: torch.Tensor) -> str:
    return bytes(token - 3 for token in block.tolist() if token > 2).decode()


def test_blocks_start_with_bos_are_padded_at_the_end_and_contain_every_token(tokenizer: Tokenizer) -> None:
    found = list(blocks(["abcdefghij", "xyz"], tokenizer, 5))
    assert [decode(block) for block in found] == ["abcd", "efgh", "ij", "xyz"]
    assert all(block.shape == (5,) and block.dtype == torch.int64 and block[0] == tokenizer.bos for block in found)
    assert [(block == -1).sum().item() for block in found] == [0, 0, 2, 1]
    assert found[2].tolist() == [1, ord("i") + 3, ord("j") + 3, -1, -1]


def test_blocks_without_bos_have_one_more_token() -> None:
    found = list(blocks(["abcdefghij"], load_tokenizer(config("model", "tiny", bos=False)), 5))
    assert [decode(block) for block in found] == ["abcde", "fghij"]


def test_a_document_that_fills_its_blocks_has_no_empty_block(tokenizer: Tokenizer) -> None:
    assert len(list(blocks(["abcd", "", "abcdefgh"], tokenizer, 5))) == 3


def test_blocks_do_not_depend_on_how_many_documents_are_tokenised_at_once(tokenizer: Tokenizer) -> None:
    documents = WORDS * 2
    assert len(documents) > 3 * BATCH
    separate = [block for document in documents for block in blocks([document], tokenizer, 16)]
    assert torch.equal(torch.stack(list(blocks(documents, tokenizer, 16))), torch.stack(separate))


# Length of the text


def bytes_of(corpus: Corpus) -> int:
    return sum(len(document.encode()) for document in corpus.one_pass("train"))


def settings(tokens: int = 1, context: int = 16) -> dict[str, Any]:
    """Settings with batches of one token, so that no window has a remainder."""
    sizes = {"tokens": tokens, "batch_tokens": 1, "context": context, "activations": {"window": 1024}}
    return sizes | {"evaluation": {"tokens": 1, "calibration_tokens": 1}, "stream_seed": 0}


def test_a_training_may_use_every_token_of_the_text_and_no_more(jsonl: str, tokenizer: Tokenizer) -> None:
    corpus = files(jsonl)
    require_enough_tokens(corpus, tokenizer, settings(bytes_of(corpus)))
    with pytest.raises(UsageError, match=rf"{bytes_of(corpus):,} training tokens.*are asked for.*text\.repeat=true"):
        require_enough_tokens(corpus, tokenizer, settings(bytes_of(corpus) + 1))


def test_a_repeated_text_suffices_and_the_number_of_passes_is_logged(
    jsonl: str, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = files(jsonl, repeat=True)
    require_enough_tokens(corpus, tokenizer, settings(3 * bytes_of(corpus)))
    assert "3.0 times" in caplog.text


def test_special_tokens_in_a_text_are_not_counted(jsonl: str, tokenizer: Tokenizer) -> None:
    corpus = files(jsonl)
    without_o = Tokenizer(tokenizer.encode, tokenizer.bos, tokenizer.special | {ord("o") + 3}, tokenizer.vocab_size)
    with pytest.raises(UsageError):
        require_enough_tokens(corpus, without_o, settings(bytes_of(corpus)))


@pytest.mark.parametrize("key", ["tokens", "calibration_tokens"])
def test_too_little_held_out_text_for_evaluation_or_calibration_is_refused(
    jsonl: str, tokenizer: Tokenizer, key: str
) -> None:
    corpus = files(jsonl, repeat=True)
    documents = list(corpus.one_pass("held_out"))[key == "calibration_tokens" :: 2]
    job = settings()
    job["evaluation"][key] = sum(len(document.encode()) for document in documents)
    require_enough_tokens(corpus, tokenizer, job)
    job["evaluation"][key] += 1
    with pytest.raises(UsageError, match=rf"evaluation\.{key}=.*text\.held_out"):
        require_enough_tokens(corpus, tokenizer, job)


def test_a_context_with_room_for_bos_only_is_refused(jsonl: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="context=1"):
        require_enough_tokens(files(jsonl), tokenizer, settings(10, context=1))


def test_too_little_held_out_text_of_a_stream_is_refused_before_training(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = streamed(stream_folder(tmp_path, WORDS))
    job = settings()
    require_enough_tokens(corpus, tokenizer, job)
    job["evaluation"]["tokens"] = 10_000
    with pytest.raises(UsageError, match=r"evaluation\.tokens=10000"):
        require_enough_tokens(corpus, tokenizer, job)


# A user's mistakes


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_held_out_share_outside_0_to_1_is_refused(jsonl: str, share: float) -> None:
    with pytest.raises(UsageError, match=rf"text\.held_out={share}"):
        files(jsonl, held_out=share)


def test_a_single_document_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="1 different documents"):
        files(write_jsonl(tmp_path / "a.jsonl", ["the same", "the same"]))


def test_a_glob_that_is_missing_or_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs text\.glob"):
        Corpus(config("text", "files"), 0)
    with pytest.raises(UsageError, match=r"none\*\.txt: no file matches"):
        files(str(tmp_path / "none*.txt"))


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(UsageError, match=r"a\.pdf.*\.txt, \.jsonl, \.parquet"):
        files(str(tmp_path / "*"))


def test_a_field_that_is_missing_or_not_text_is_refused_with_the_fields_of_text(jsonl: str) -> None:
    for field in ("body", "n"):
        with pytest.raises(UsageError, match=rf"text\.field={field}.*it has text"):
            files(jsonl, field=field)


def test_a_file_that_is_not_of_its_suffixs_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(UsageError, match=r"broken\.jsonl"):
        files(str(tmp_path / "broken.jsonl"))


def test_a_field_missing_from_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"text\.field=body.*it has text"):
        streamed(stream_folder(tmp_path, WORDS), field="body")


def test_a_held_out_share_of_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"text\.held_out=0\.05.*number of documents"):
        streamed(stream_folder(tmp_path, WORDS), held_out=0.05)


@pytest.mark.parametrize("name", ["pile", "fineweb", "openwebtext"])
def test_a_text_of_the_hub_without_a_network_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:9")
    with pytest.raises(UsageError, match=rf"text={name}.*cannot be reached.*text=python_stdlib"):
        Corpus(config("text", name), 0)
