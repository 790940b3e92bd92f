"""The order of documents, the held-out split, blocks of tokens, and what a user can get wrong about a text."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from saesweep.enough import require
from saesweep.errors import UsageError
from saesweep.models import Tokenizer, load_tokenizer
from saesweep.text import BATCH, Corpus, blocks

CONF = Path(__file__).parents[1] / "conf"
WORDS = [f"document {i}: " + "lorem ipsum dolor " * (i % 7 + 1) for i in range(100)]


def config(group: str, name: str, **changes: Any) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml")) | changes


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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


def test_the_order_is_the_same_in_another_process(jsonl: str) -> None:
    code = (
        "import sys; from omegaconf import OmegaConf; from saesweep.text import Corpus\n"
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
    require(corpus, tokenizer, asking(bytes_of(corpus)))
    with pytest.raises(UsageError, match=rf"{bytes_of(corpus):,} training tokens.*are asked for.*text\.repeat=true"):
        require(corpus, tokenizer, asking(bytes_of(corpus) + 1))


def test_a_repeated_text_is_long_enough_and_says_how_often(
    jsonl: str, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = files(jsonl, repeat=True)
    require(corpus, tokenizer, asking(3 * bytes_of(corpus)))
    assert "3.0 times" in caplog.text


def test_special_tokens_in_a_text_are_not_counted(jsonl: str, tokenizer: Tokenizer) -> None:
    corpus = files(jsonl)
    without_o = Tokenizer(tokenizer.encode, tokenizer.bos, tokenizer.special | {ord("o") + 3}, tokenizer.vocab_size)
    with pytest.raises(UsageError):
        require(corpus, without_o, asking(bytes_of(corpus)))


@pytest.mark.parametrize("key", ["tokens", "calibration_tokens"])
def test_too_little_held_out_text_is_refused_of_which_evaluation_and_calibration_have_every_other_document(
    jsonl: str, tokenizer: Tokenizer, key: str
) -> None:
    corpus = files(jsonl, repeat=True)
    theirs = list(corpus.one_pass("held_out"))[key == "calibration_tokens" :: 2]
    asked = asking()
    asked["evaluation"][key] = sum(len(document.encode()) for document in theirs)
    require(corpus, tokenizer, asked)
    asked["evaluation"][key] += 1
    with pytest.raises(UsageError, match=rf"evaluation\.{key}=.*text\.held_out"):
        require(corpus, tokenizer, asked)


def test_a_context_that_holds_only_bos_is_refused(jsonl: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="context=1"):
        require(files(jsonl), tokenizer, asking(10, context=1))


def test_of_a_stream_too_little_held_out_text_is_refused_before_the_training(tmp_path: Path, tokenizer: Tokenizer) -> None:
    corpus = streamed(stream_folder(tmp_path, WORDS))
    asked = asking()
    require(corpus, tokenizer, asked)
    asked["evaluation"]["tokens"] = 10_000
    with pytest.raises(UsageError, match=r"evaluation\.tokens=10000"):
        require(corpus, tokenizer, asked)


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
