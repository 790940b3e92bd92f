"""The order of documents, the held-out split, blocks of tokens, and what a user can get wrong about a text."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from omegaconf import OmegaConf
from small import require_enough_tokens

from saesweep.data import overlap
from saesweep.data.text import BATCH, Corpus, TextEnded, blocks
from saesweep.data.text_files import matched
from saesweep.errors import UsageError
from saesweep.lm.models import load_tokenizer
from saesweep.lm.tokenizer import Tokenizer

CONF = Path(__file__).parents[1] / "conf"
WORDS = [f"document {i}: " + "lorem ipsum dolor " * (i % 7 + 1) for i in range(100)]


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


def test_every_document_is_on_exactly_one_side(jsonl: str) -> None:
    train, held_out = both(files(jsonl))
    assert len(held_out) == 5 and sorted(train + held_out) == sorted(WORDS)


def test_stream_seed_decides_the_order_and_the_split(jsonl: str) -> None:
    assert both(files(jsonl, seed=0)) == both(files(jsonl, seed=0))
    assert both(files(jsonl, seed=0))[0] != WORDS[5:]
    assert set(both(files(jsonl, seed=0))[1]) != set(both(files(jsonl, seed=1))[1])


@pytest.mark.slow
@pytest.mark.process
def test_the_order_is_the_same_in_another_process(jsonl: str) -> None:
    code = (
        "import sys; from omegaconf import OmegaConf; from saesweep.data.text import Corpus\n"
        "text = OmegaConf.load(sys.argv[1]); text.glob = sys.argv[2]\n"
        "print(*(d.split(':')[0] for d in Corpus(text, 3).one_pass('train')), sep='|')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(CONF / "text/files.yaml"), jsonl],
        env=os.environ | {"PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True,
    )
    assert run.stdout.strip().split("|") == [d.split(":")[0] for d in files(jsonl, seed=3).one_pass("train")]


def test_the_same_content_is_never_on_both_sides(tmp_path: Path) -> None:
    corpus = files(write_jsonl(tmp_path / "a.jsonl", WORDS * 3), held_out=0.3)
    train, held_out = both(corpus)
    assert len(train) + len(held_out) == len(WORDS) and not set(train) & set(held_out)


def test_empty_documents_are_no_documents(tmp_path: Path) -> None:
    train, held_out = both(files(write_jsonl(tmp_path / "a.jsonl", ["", " \n", *WORDS[:4]])))
    assert sorted(train + held_out) == sorted(WORDS[:4])


def test_reading_from_a_document_number_skips_so_many(jsonl: str) -> None:
    corpus = files(jsonl, repeat=True)
    assert list(islice(corpus.documents("train", 120), 30)) == list(islice(corpus.documents("train"), 120, 150))
    assert list(corpus.documents("held_out", 2)) == list(corpus.documents("held_out"))[2:]


def test_a_text_that_ends_stops_training_unless_told_to_repeat(jsonl: str) -> None:
    once: Iterator[str] = files(jsonl).documents("train")
    assert len(list(islice(once, 95))) == 95
    with pytest.raises(UsageError, match=r"text\.repeat=true"):
        next(once)


def test_a_repeated_text_has_a_new_order_each_time_and_never_the_held_out_documents(jsonl: str) -> None:
    corpus = files(jsonl, repeat=True)
    thrice = list(islice(corpus.documents("train"), 3 * 95))
    passes = [thrice[:95], thrice[95:190], thrice[190:]]
    assert passes[0] != passes[1] != passes[2]
    assert all(sorted(one) == sorted(passes[0]) for one in passes)
    assert not set(thrice) & set(corpus.documents("held_out"))


# Kinds


def test_the_standard_library_holds_its_modules_and_nothing_installed() -> None:
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


def test_another_field_can_hold_the_text(tmp_path: Path) -> None:
    train, held_out = both(files(write_jsonl(tmp_path / "a.jsonl", WORDS, "content"), field="content"))
    assert sorted(train + held_out) == sorted(WORDS)


def test_a_stream_is_shuffled_and_split_the_same_way_each_time(tmp_path: Path) -> None:
    folder = stream_folder(tmp_path, WORDS)
    train, held_out = both(streamed(folder))
    assert len(held_out) == 10 and sorted(train + held_out) == sorted(WORDS) and train + held_out != WORDS
    assert both(streamed(folder)) == (train, held_out) and both(streamed(folder, seed=1)) != (train, held_out)


def test_a_stream_skips_what_it_held_out(tmp_path: Path) -> None:
    corpus = streamed(stream_folder(tmp_path, WORDS * 4), repeat=True)
    held_out = set(corpus.documents("held_out"))
    assert held_out and not held_out & set(islice(corpus.documents("train"), 1000))


def test_a_stream_with_nothing_to_train_on_ends_even_if_it_repeats(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="to its end"):
        next(streamed(stream_folder(tmp_path, WORDS), held_out=100, repeat=True).documents("train"))


# Files: each is read once, whatever it is called and whatever else it holds


def everything(corpus: Corpus) -> list[str]:
    train, held_out = both(corpus)
    return sorted(train + held_out)


def test_a_file_with_brackets_in_its_name_is_read_by_a_pattern_and_by_its_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "part[0].jsonl", WORDS[:20])
    write_jsonl(tmp_path / "part0.jsonl", WORDS[20:40])
    assert everything(files(str(tmp_path / "*.jsonl"))) == sorted(WORDS[:40])
    assert everything(files(str(tmp_path / "part[0].jsonl"))) == sorted(WORDS[:20])


def test_a_file_that_several_paths_lead_to_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_column_of_a_parquet_file_is_found_by_its_whole_name_and_may_be_encoded_in_a_dictionary(tmp_path: Path) -> None:
    import pandas

    frame = pandas.DataFrame({"text.en": ["a", "b"], "text": pandas.Categorical(["c", "d"]), "texts": [[1], [2]]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert everything(files(str(tmp_path / "a.parquet"))) == ["c", "d"]
    assert everything(files(str(tmp_path / "a.parquet"), field="text.en")) == ["a", "b"]


def test_byte_order_marks_and_windows_line_ends_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"text": "one"}\r\n\r\n{"text": "two"}')
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfthree\r\nfour\r\n")
    assert everything(files(str(tmp_path / "*"))) == ["one", "three\nfour\n", "two"]


def test_rows_without_text_are_left_out_and_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": None}, {"text": ""}, {"other": 1}, *({"text": word} for word in WORDS[:4])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text("")
    assert everything(files(str(tmp_path / "*.jsonl"))) == sorted(WORDS[:4])
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "b.jsonl is empty" in said[0] and "3 of 7 documents" in said[1]


def test_half_a_surrogate_pair_becomes_a_character_that_a_tokenizer_takes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud83db"}\n{"text": "\\ud83d\\ude00"}\n')
    found = everything(files(str(tmp_path / "a.jsonl")))
    assert found == ["a\ufffdb", "\U0001f600"] and tokenizer.encode(found)


def test_a_text_that_was_replaced_is_read_anew_though_its_time_stamp_and_size_are_the_same(tmp_path: Path) -> None:
    path = Path(write_jsonl(tmp_path / "a.jsonl", WORDS))
    os.utime(path, (10**9, 10**9))
    before = files(str(path))
    kept = both(before)
    write_jsonl(path, [document.upper() for document in WORDS])
    os.utime(path, (10**9, 10**9))
    after = files(str(path))
    assert everything(after) == sorted(document.upper() for document in WORDS)
    assert after.identity["digest"] != before.identity["digest"]
    assert both(before) == kept  # what was read stays


GZIP = b"\x1f\x8b\x08\x00"
FAULTS = [
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


@pytest.mark.parametrize(("name", "content", "said"), FAULTS)
def test_a_fault_in_a_file_is_one_line_with_its_name_its_byte_or_row_and_the_fix(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said) as error:
        files(str(tmp_path / "*"))
    assert "\n" not in str(error.value)


DEEP, LONG = "[" * 50_000 + '{"]": "[\\""}' + "]" * 50_000, "9" * 6000


@pytest.mark.parametrize("other", [DEEP, '{"a": ' * 50_000 + "1" + "}" * 50_000, LONG, f"-{LONG}", f"[{LONG}]"])
def test_whatever_json_allows_may_stand_in_another_field(tmp_path: Path, other: str) -> None:
    path = tmp_path / "a.jsonl"
    rows = [f'{{"text": "one [", "other": {other}}}', f'{{"other": {other}, "more": {other}, "text": "two"}}']
    rows.append('{"text": "three"}')
    path.write_text("\n".join(rows))
    assert everything(files(str(path))) == ["one [", "three", "two"]


@pytest.mark.parametrize(("value", "said"), [
    (DEEP, "row 2: holds a value of type list, not text"), (LONG, "row 2: holds a value of type float, not text"),
    (DEEP[:-10], "row 2: is not JSON"), (DEEP + "]", "row 2: is not JSON"),
])
def test_a_deep_or_long_value_in_the_field_of_the_text_is_refused(tmp_path: Path, value: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "one"}}\n{{"text": {value}}}\n')
    with pytest.raises(UsageError, match=said):
        files(str(path))


def test_two_columns_of_the_name_of_the_field_are_refused(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table([["a"], ["b"]], names=["text", "text"]), path)
    with pytest.raises(UsageError, match=r"text\.field=text: .*a\.parquet has 2 columns of that name; rename"):
        files(str(path))


def test_a_parquet_file_that_is_cut_off_or_has_numbers_where_text_should_be_is_refused_by_name(tmp_path: Path) -> None:
    import pandas

    path = tmp_path / "a.parquet"
    pandas.DataFrame({"text": [1, 2], "body": ["a", "b"]}).to_parquet(path)
    with pytest.raises(UsageError, match=r"text\.field=text: .*a\.parquet has no such field of text; it has body"):
        files(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"cannot read .*a\.parquet"):
        files(str(path))


def test_a_link_to_nothing_and_a_file_that_may_not_be_read_are_refused(
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


def test_where_a_folder_is_given_the_pattern_of_its_files_is_said(tmp_path: Path, jsonl: str) -> None:
    with pytest.raises(UsageError, match=r"is a folder: write '.*\*\*/\*\.jsonl'"):
        files(str(tmp_path))


def test_no_file_is_left_of_what_was_read(jsonl: str, tmp_path: Path) -> None:
    corpus = files(jsonl)
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    assert everything(corpus) == sorted(WORDS)


# Streams


def breaking(monkeypatch: pytest.MonkeyPatch, rows: list[Any]) -> None:
    """A dataset with these rows, of which an error is raised."""
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


def test_a_stream_that_breaks_off_is_one_line_and_is_not_taken_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Exception):
        """As those of HTTP clients: no OSError."""

    breaking(monkeypatch, [*({"text": word} for word in WORDS[:30]), Broken("connection reset\nby peer")])
    documents = streamed(str(tmp_path)).documents("train")
    assert len(list(islice(documents, 20))) == 20
    with pytest.raises(UsageError, match=r"broke off at row 31: Broken: connection reset; run the same command") as error:
        next(documents)
    assert not isinstance(error.value, TextEnded)


def test_rows_of_a_stream_without_text_are_left_out_and_those_with_a_number_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"other": 1}, {"text": None}, *({"text": word} for word in WORDS)]
    breaking(monkeypatch, rows)
    assert everything(streamed(str(tmp_path))) == sorted(WORDS)
    assert "2 of 102 rows have no text" in caplog.text
    breaking(monkeypatch, [*rows, {"text": 7}])
    with pytest.raises(UsageError, match=r"text\.field=text: .*row 103 of the stream: holds a value of type int"):
        everything(streamed(str(tmp_path)))


def test_the_documents_that_a_stream_holds_out_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking(monkeypatch, [{"text": word} for word in [WORDS[0]] * 7 + WORDS])
    train, held_out = both(streamed(str(tmp_path)))
    assert held_out == WORDS[:10] and train == WORDS[10:]


def test_a_folder_that_is_streamed_is_known_by_its_content(tmp_path: Path) -> None:
    folder = stream_folder(tmp_path, WORDS)
    file = Path(folder) / "train.jsonl"
    os.utime(file, (10**9, 10**9))
    before = streamed(folder).identity["digest"]
    assert streamed(folder).identity["digest"] == before
    write_jsonl(file, [document.upper() for document in WORDS])
    os.utime(file, (10**9, 10**9))
    assert streamed(folder).identity["digest"] != before


# Passages on both sides


def made_up(seed: int, characters: int = 3000) -> str:
    draw = random.Random(seed)
    return "".join(draw.choices("etaoin shrdlu\n", k=characters))


SHARED = made_up(-1, 600)


def test_training_documents_that_share_passages_with_held_out_text_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    apart, alike = [made_up(i) for i in range(30)], [made_up(i) + SHARED for i in range(100, 130)]
    corpus = files(write_jsonl(tmp_path / "a.jsonl", apart + alike), held_out=0.3)
    with caplog.at_level("INFO"):
        train, held_out = both(files(str(tmp_path / "a.jsonl"), held_out=0.3))
    assert any(SHARED in document for document in held_out) and not any(SHARED in document for document in train)
    left_out = 60 - 18 - len(train)
    assert left_out > 10 and f"{left_out} of 42 training documents share passages" in caplog.text
    assert both(corpus) == (train, held_out)


def test_a_stream_leaves_them_out_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alike = [made_up(i) + SHARED for i in range(20)]
    breaking(monkeypatch, [{"text": text} for text in [*alike, *map(made_up, range(50, 60))]])
    train, _ = both(streamed(str(tmp_path)))
    assert train == list(map(made_up, range(50, 60)))


def test_calibration_documents_do_not_share_passages_with_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = [made_up(0) + SHARED, made_up(1) + SHARED, made_up(2), made_up(3), made_up(4), made_up(5) + SHARED]
    breaking(monkeypatch, [{"text": text} for text in [*held_out, made_up(6)]])
    assert list(streamed(str(tmp_path), held_out=6).documents("held_out")) == [held_out[0], "", *held_out[2:5], ""]


def test_a_passage_has_the_same_hash_wherever_it_stands() -> None:
    document = made_up(0, overlap.CHUNK + 5000)
    hashes = overlap.passages(document)
    sampled = overlap.passages(document[-6000:])
    assert len(sampled) > 100 and len(set(sampled) - set(hashes)) <= 1  # but for the smallest
    assert len(set(sampled) & set(overlap.passages(made_up(1, 6000)))) == 0
    assert len(overlap.passages(made_up(0, 199))) == 0 and len(overlap.passages(made_up(0, 200))) == 1


@pytest.mark.slow
def test_of_the_passages_of_the_default_evaluation_text_few_stand_in_training() -> None:
    corpus = Corpus(config("text", "python_stdlib"), 0)
    evaluation = list(corpus.one_pass("held_out"))[::2]

    def hashes(document: str) -> numpy.ndarray:
        starts, size = range(0, len(document), overlap.CHUNK), overlap.CHUNK + overlap.PASSAGE - 1
        parts = [document[start : start + size].encode("utf-32-le") for start in starts]
        codes = [numpy.frombuffer(part, "<u4") for part in parts if len(part) >= 4 * overlap.PASSAGE]
        return numpy.concatenate([numpy.empty(0, numpy.uint64), *map(overlap._hashes, codes)])

    asked = numpy.unique(numpy.concatenate([hashes(document)[:: overlap.PASSAGE] for document in evaluation]))
    seen = numpy.zeros(len(asked), bool)
    for document in corpus.one_pass("train"):
        own = hashes(document)
        at = numpy.searchsorted(asked, own).clip(max=len(asked) - 1)
        seen[at[asked[at] == own]] = True
    assert 0 < seen.mean() < 0.005  # 0.049 if all documents are kept


# Blocks


def decode(block: torch.Tensor) -> str:
    return bytes(token - 3 for token in block.tolist() if token > 2).decode()


def test_blocks_start_with_bos_pad_the_tail_and_lose_nothing(tokenizer: Tokenizer) -> None:
    found = list(blocks(["abcdefghij", "xyz"], tokenizer, 5))
    assert [decode(block) for block in found] == ["abcd", "efgh", "ij", "xyz"]
    assert all(block.shape == (5,) and block.dtype == torch.int64 and block[0] == tokenizer.bos for block in found)
    assert [(block == -1).sum().item() for block in found] == [0, 0, 2, 1]
    assert found[2].tolist() == [1, ord("i") + 3, ord("j") + 3, -1, -1]


def test_blocks_without_bos_hold_one_token_more() -> None:
    found = list(blocks(["abcdefghij"], load_tokenizer(config("model", "tiny", bos=False)), 5))
    assert [decode(block) for block in found] == ["abcde", "fghij"]


def test_a_document_that_fills_its_blocks_leaves_no_empty_one(tokenizer: Tokenizer) -> None:
    assert len(list(blocks(["abcd", "", "abcdefgh"], tokenizer, 5))) == 3


def test_blocks_do_not_depend_on_how_many_documents_are_tokenised_at_once(tokenizer: Tokenizer) -> None:
    documents = WORDS * 2
    assert len(documents) > 3 * BATCH
    apart = [block for document in documents for block in blocks([document], tokenizer, 16)]
    assert torch.equal(torch.stack(list(blocks(documents, tokenizer, 16))), torch.stack(apart))


# Enough text


def bytes_of(corpus: Corpus) -> int:
    return sum(len(document.encode()) for document in corpus.one_pass("train"))


def asking(tokens: int = 1, context: int = 16) -> dict[str, Any]:
    """Of batches of one token, of which no window leaves anything over."""
    sizes = {"tokens": tokens, "batch_tokens": 1, "context": context, "activations": {"window": 1024}}
    return sizes | {"evaluation": {"tokens": 1, "calibration_tokens": 1}, "stream_seed": 0}


def test_the_last_token_of_the_text_may_be_asked_for_and_not_one_more(jsonl: str, tokenizer: Tokenizer) -> None:
    corpus = files(jsonl)
    require_enough_tokens(corpus, tokenizer, asking(bytes_of(corpus)))
    with pytest.raises(UsageError, match=rf"{bytes_of(corpus):,} training tokens.*are asked for.*text\.repeat=true"):
        require_enough_tokens(corpus, tokenizer, asking(bytes_of(corpus) + 1))


def test_a_repeated_text_is_long_enough_and_says_how_often(
    jsonl: str, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = files(jsonl, repeat=True)
    require_enough_tokens(corpus, tokenizer, asking(3 * bytes_of(corpus)))
    assert "3.0 times" in caplog.text


def test_special_tokens_in_a_text_are_not_counted(jsonl: str, tokenizer: Tokenizer) -> None:
    corpus = files(jsonl)
    without_o = Tokenizer(tokenizer.encode, tokenizer.bos, tokenizer.special | {ord("o") + 3}, tokenizer.vocab_size)
    with pytest.raises(UsageError):
        require_enough_tokens(corpus, without_o, asking(bytes_of(corpus)))


@pytest.mark.parametrize("key", ["tokens", "calibration_tokens"])
def test_too_little_held_out_text_is_refused_of_which_evaluation_and_calibration_have_every_other_document(
    jsonl: str, tokenizer: Tokenizer, key: str
) -> None:
    corpus = files(jsonl, repeat=True)
    theirs = list(corpus.one_pass("held_out"))[key == "calibration_tokens" :: 2]
    asked = asking()
    asked["evaluation"][key] = sum(len(document.encode()) for document in theirs)
    require_enough_tokens(corpus, tokenizer, asked)
    asked["evaluation"][key] += 1
    with pytest.raises(UsageError, match=rf"evaluation\.{key}=.*text\.held_out"):
        require_enough_tokens(corpus, tokenizer, asked)


def test_a_context_that_holds_only_bos_is_refused(jsonl: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="context=1"):
        require_enough_tokens(files(jsonl), tokenizer, asking(10, context=1))


def test_of_a_stream_too_little_held_out_text_is_refused_before_the_training(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = streamed(stream_folder(tmp_path, WORDS))
    asked = asking()
    require_enough_tokens(corpus, tokenizer, asked)
    asked["evaluation"]["tokens"] = 10_000
    with pytest.raises(UsageError, match=r"evaluation\.tokens=10000"):
        require_enough_tokens(corpus, tokenizer, asked)


# Mistakes


@pytest.mark.parametrize("share", [0, 1, 1.5, -0.1])
def test_a_share_held_out_that_is_none_is_refused(jsonl: str, share: float) -> None:
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


def test_an_unknown_suffix_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(UsageError, match=r"a\.pdf.*\.txt, \.jsonl, \.parquet"):
        files(str(tmp_path / "*"))


def test_a_field_that_is_not_there_or_not_text_is_refused_with_those_that_are(jsonl: str) -> None:
    for field in ("body", "n"):
        with pytest.raises(UsageError, match=rf"text\.field={field}.*it has text"):
            files(jsonl, field=field)


def test_a_file_that_is_not_what_its_suffix_says_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": ')
    with pytest.raises(UsageError, match=r"broken\.jsonl"):
        files(str(tmp_path / "broken.jsonl"))


def test_a_field_missing_from_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"text\.field=body.*it has text"):
        streamed(stream_folder(tmp_path, WORDS), field="body")


def test_a_share_held_out_of_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"text\.held_out=0\.05.*number of documents"):
        streamed(stream_folder(tmp_path, WORDS), held_out=0.05)


@pytest.mark.parametrize("name", ["pile", "fineweb", "openwebtext"])
def test_text_of_the_hub_without_a_network_is_refused_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://localhost:9")
    with pytest.raises(UsageError, match=rf"text={name}.*cannot be reached.*text=python_stdlib"):
        Corpus(config("text", name), 0)
