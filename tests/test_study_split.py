"""Which documents a study reads, in which half, and how they become tokens, blocks, portions and a pool."""
import random

import numpy as np
import pytest
import torch
from small import job, write_text

from saesweep.data.text import Corpus, pieces
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import byte_tokenizer
from saesweep.study import duplicates, text
from saesweep.study.keys import keys
from saesweep.study.split import half_of, split
from saesweep.study.text import Portion, blocks_of, portions, text_half


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    config = job(write_text(tmp_path_factory.mktemp("text"), documents=150))
    return Corpus(config["text"], config["stream_seed"])


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(bos=True, positions=512)


@pytest.fixture(scope="module")
def halves(corpus, tokenizer):
    return split(corpus, tokenizer, tokens=3000, seed=0)


@pytest.fixture(scope="module")
def whole(halves, tokenizer):
    return {half: text_half(documents, tokenizer, 32, 0) for half, documents in halves.items()}


def test_no_document_is_in_both_halves_and_none_changes_its_half_when_more_are_read(corpus, tokenizer, halves):
    texts = {half: [document.text for document in documents] for half, documents in halves.items()}
    assert texts["fit"] and texts["test"] and not set(texts["fit"]) & set(texts["test"])
    more = split(corpus, tokenizer, tokens=4000, seed=0)
    for half, documents in texts.items():
        assert [document.text for document in more[half]][: len(documents)] == documents
    other = split(corpus, tokenizer, tokens=3000, seed=1)
    assert {document.text for document in other["fit"]} != set(texts["fit"])


def test_as_many_tokens_are_read_as_are_asked_for_up_to_the_end_of_a_document(halves):
    """SAEBench read 156,000 where 10,000,000 were asked for."""
    counts = [document.ordinary for documents in halves.values() for document in documents]
    assert 3000 <= sum(counts) < 3000 + max(counts)


def test_too_little_text_is_refused_with_the_number_that_there_is(corpus, tokenizer):
    with pytest.raises(UsageError, match=r"^tokens=100000: the held-out text has ([\d,]+) ordinary tokens for a study; write "
                                         r"tokens=(\d+), or hold out more documents") as refused:
        split(corpus, tokenizer, tokens=100_000, seed=0)
    available = int(str(refused.value).split("write tokens=")[1].split(",")[0])
    found = split(corpus, tokenizer, tokens=available, seed=0)
    assert sum(document.ordinary for documents in found.values() for document in documents) == available


def test_a_half_without_documents_is_refused(corpus, tokenizer):
    with pytest.raises(UsageError, match=r"^tokens=1: no document is in the half "):
        split(corpus, tokenizer, tokens=1, seed=0)


def test_test_documents_that_repeat_more_than_half_of_a_fit_document_are_left_out(tokenizer):
    draw = random.Random(0)
    texts = ["the same licence header stands in each of these files " * 2 + "".join(draw.choices("abcdefgh", k=length))
             for length in [400, 20] * 20]

    class Held(Corpus):
        def __init__(self):
            pass

        def documents(self, split, start=0):
            return iter(texts)

    found = split(Held(), tokenizer, tokens=9000, seed=0)
    assert found["fit"] and {half_of(document.text, 0) for document in found["fit"]} == {"fit"}
    known = duplicates.union(document.ngrams for document in found["fit"])
    for document in found["test"]:
        grams = [tuple(document.tokens[i : i + 13]) for i in range(len(document.tokens) - 12)]
        fit = {tuple(other.tokens[i : i + 13]) for other in found["fit"] for i in range(len(other.tokens) - 12)}
        assert np.mean([gram in fit for gram in set(grams)]) <= 0.5
        assert not duplicates.repeats(document.ngrams, known)
    left_out = [text for text in texts if half_of(text, 0) == "test" and text not in {d.text for d in found["test"]}]
    assert left_out


def test_ngrams_are_those_of_13_tokens():
    tokens = np.arange(20, dtype=np.int32)
    assert len(duplicates.ngrams(tokens)) == 8 and len(duplicates.ngrams(tokens[:12])) == 0
    assert not duplicates.repeats(duplicates.ngrams(tokens[:12]), duplicates.ngrams(tokens))
    half = np.concatenate([tokens[:16], 100 + tokens[:16]]).astype(np.int32)  # 4 of its 20 n-grams
    assert np.isin(duplicates.ngrams(half), duplicates.ngrams(tokens)).sum() == 4
    assert duplicates.repeats(duplicates.ngrams(tokens[:15]), duplicates.ngrams(tokens))


def test_blocks_are_those_of_the_training(halves, whole, tokenizer):
    for half, documents in halves.items():
        wanted = [block for document in documents for block in pieces(document.tokens.tolist(), tokenizer, 32)]
        found = blocks_of(whole[half], Portion(half, 0, len(whole[half].tokens)), 32)
        assert torch.equal(found, torch.stack(wanted))


def test_a_token_is_found_again_in_its_document(halves, whole, tokenizer):
    for half, documents in halves.items():
        of = whole[half]
        assert of.ordinary.sum() == sum(document.ordinary for document in documents)
        inside = of.index >= 0
        assert ((of.tokens == tokenizer.bos) == ~inside).all() and not of.ordinary[~inside].any()
        for number, document in enumerate(documents):
            mine = inside & (of.document == number)
            assert (of.tokens[mine] == document.tokens[of.index[mine]]).all() and mine.sum() == len(document.tokens)


def test_without_bos_blocks_are_one_token_longer(halves):
    of = text_half(halves["fit"], byte_tokenizer(bos=False, positions=512), 32, 0)
    assert of.ordinary.all() and np.bincount(of.block).max() == 32 and (of.index >= 0).all()


def test_windows_stay_in_their_block(whole):
    of = whole["fit"]
    for position in (0, 5, 31, 32, 40, len(of.tokens) - 1):
        window = of.window(position)
        assert window.start <= position < window.stop and len(set(of.block[window])) == 1
        assert window.stop - window.start <= 32


def test_the_pool_has_the_position_of_smallest_key_of_each_block_in_the_order_of_the_keys(whole, monkeypatch):
    of = whole["fit"]
    key = dict(zip(range(len(of.tokens)), keys(0, text.POOL_LATENT, np.arange(len(of.tokens))).tolist(), strict=True))
    able = [p for p in range(len(of.tokens)) if of.ordinary[p] and p >= 8 and of.block[p - 8] == of.block[p]]
    best = {}
    for p in sorted(able, key=key.get):
        best.setdefault(of.block[p], p)
    assert of.pool.tolist() == sorted(best.values(), key=key.get)
    monkeypatch.setattr(text, "POOL", 5)
    assert text.pool_of(of.block, of.ordinary, 0).tolist() == of.pool[:5].tolist()


def test_portions_are_whole_documents_and_cover_both_halves(whole, monkeypatch):
    monkeypatch.setattr(text, "PORTION", 300)
    found = portions(whole)
    for half in ("fit", "test"):
        mine = [portion for portion in found if portion.half == half]
        assert [portion.start for portion in mine] == [0, *(portion.stop for portion in mine[:-1])]
        assert mine[-1].stop == len(whole[half].tokens) and len(mine) > 1
        for portion in mine:
            assert portion.start == 0 or whole[half].document[portion.start] != whole[half].document[portion.start - 1]


def test_controls_are_measured_on_blocks_from_all_over_the_fit_half(whole):
    of, count = whole["fit"], int(whole["fit"].block.max()) + 1
    every = text.some_blocks({"fit": of}, "fit", 10**9)
    assert [(portion.start, portion.stop) for portion in every] == [
        (int(at[0]), int(at[-1]) + 1) for at in (np.flatnonzero(of.block == block) for block in range(count))]
    some = text.some_blocks({"fit": of}, "fit", len(of.tokens) // 4)
    assert len(some) == -(-count // 4) and set(some) <= set(every)
    gaps = np.diff([of.block[portion.start] for portion in some])
    assert gaps.min() >= 3 and gaps.max() <= 4


def test_a_text_is_read_back_as_it_was_written_and_its_digest_says_what_it_is(whole, tmp_path):
    from saesweep.study import arrays

    content = text.content(whole)
    arrays.write(tmp_path / "text.safetensors", content, {})
    back = text.read(tmp_path / "text.safetensors")
    for half in ("fit", "test"):
        assert list(back[half].documents) == whole[half].documents and back[half].documents[-1] == whole[half].documents[-1]
        for column in text.COLUMNS:
            assert np.array_equal(getattr(back[half], column), getattr(whole[half], column))
    assert text.digest(text.content(back)) == text.digest(content)
    changed = {**content, "fit.tokens": content["fit.tokens"] + np.int32(1)}
    assert text.digest(changed) != text.digest(content)


def test_a_file_that_is_half_written_is_not_there(tmp_path):
    from saesweep.study import arrays

    file = tmp_path / "hits.safetensors"
    with pytest.raises(KeyboardInterrupt), arrays.create(file, {"a": (np.int64, (5,)), "b": (np.uint8, (3,))}, {}) as out:
        out["a"][:2] = 7
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_safetensors_reads_the_file_too_and_a_damaged_one_is_refused(whole, tmp_path):
    from safetensors.numpy import load_file

    from saesweep.study import arrays

    file = tmp_path / "text.safetensors"
    arrays.write(file, text.content(whole), {"one": "two"})
    assert np.array_equal(load_file(file)["fit.tokens"], whole["fit"].tokens) and arrays.metadata(file) == {"one": "two"}
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"text\.safetensors is damaged: delete it"):
        arrays.read(file)
    file.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="is damaged"):
        arrays.read(file)
