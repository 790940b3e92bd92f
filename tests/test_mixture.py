"""Mixtures of texts: shares in tokens, one order, and held-out documents that no part trains on."""
import json
import random
from itertools import islice
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from small import job, tiny

from saesweep.config.check import check
from saesweep.data.harvest import LanguageModelSource
from saesweep.data.micro_batches import ordinary_positions
from saesweep.data.mixture import Mixture, evenly
from saesweep.data.text import TextEnded
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.lm.models import load_tokenizer
from saesweep.lm.tokenizer import RESERVED, Tokenizer

CONF = Path(__file__).parents[1] / "conf"
LETTERS = {"a": "abcdefghijklm", "b": "nopqrstuvwxyz"}
SHARES = {"a": 3, "b": 1}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(OmegaConf.to_container(OmegaConf.load(CONF / "model/tiny.yaml")))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def documents(part: str, count: int = 300) -> list[str]:
    """Of letters that the other part has not, long and short ones."""
    draw = random.Random(part)
    return ["".join(draw.choices(LETTERS[part], k=draw.randint(20, 900))) for _ in range(count)]


def settings(folder: Path, texts: dict[str, list[str]], shares: dict = SHARES, **changes) -> dict:
    of = {}
    for name, documents in texts.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
        of[name] = {"name": "files", "kind": "files", "glob": str(file), "field": "text", "held_out": 0.1, "repeat": False}
        of[name] |= changes
    return {"name": "mix", "kind": "mix", "of": of, "shares": shares}


def mixture(folder: Path, tokenizer: Tokenizer, seed: int = 0, **changes) -> Mixture:
    return Mixture(settings(folder, {part: documents(part) for part in LETTERS}, **changes), seed, tokenizer)


def share_of_a(ids: torch.Tensor) -> float:
    letters = [ord(letter) + RESERVED for letter in LETTERS["a"]]
    return float(torch.isin(ids, torch.tensor(letters)).double().mean())


def source(corpus: Mixture) -> LanguageModelSource:
    return LanguageModelSource(tiny(), corpus, [HookPoint("x", "output")], context=32, window=4096, forward_tokens=256,
                               documents_per_pool=64, stream_seed=0)


def read(source: LanguageModelSource, tokens: int) -> torch.Tensor:
    """Ids of the next ordinary tokens."""
    blocks, _ = source.next_blocks(tokens)
    return blocks[ordinary_positions(blocks, source.lm.tokenizer)]


def test_shares_are_met_within_a_hundredth_at_every_point_of_the_stream(tmp_path, tokenizer):
    reads, ids = source(mixture(tmp_path, tokenizer)), torch.empty(0, dtype=torch.long)
    for _ in range(20):
        ids = torch.cat([ids, read(reads, 5000)])
        assert len(ids) < 20_000 or abs(share_of_a(ids) - 0.75) < 0.0075, len(ids)


@pytest.mark.slow
def test_a_stream_continues_from_a_saved_state_and_is_determined_by_the_stream_seed(tmp_path, tokenizer):
    whole = source(mixture(tmp_path, tokenizer))
    parts, states = [], []
    for _ in range(6):
        states.append(whole.state_dict())
        parts.append(read(whole, 7000))
    for number in (5, 2):
        again = source(mixture(tmp_path, tokenizer))
        again.load_state_dict(states[number])
        assert torch.equal(read(again, 7000), parts[number])
    first = [list(islice(mixture(tmp_path, tokenizer, seed).one_pass("train"), 50)) for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]


@pytest.mark.slow
def test_no_document_of_training_is_held_out_by_any_part_or_shares_passages_with_what_is(tmp_path, tokenizer):
    alone = mixture(tmp_path, tokenizer)
    held_out = [one for one in alone.parts["a"].one_pass("held_out") if one]
    long = next(one for one in held_out if len(one) > 400)
    short = "a short document"
    texts = {"a": [*documents("a"), short], "b": [*documents("b"), *held_out, "nnn" + long]}
    for seed in range(4):
        both = Mixture(settings(tmp_path, texts, SHARES), seed, tokenizer)
        kept, left = list(both.one_pass("held_out")), set(both.one_pass("train"))
        evaluation, calibration = kept[::2], set(kept[1::2]) - {""}
        of_each = {one for part in both.parts.values() for one in part.one_pass("held_out") if one}
        assert not left & of_each and not set(evaluation) & calibration and len(kept) % 2 == 0
        if long in of_each:
            assert "nnn" + long not in left
    with pytest.raises(UsageError, match=r"text\.of\.b: all of its training documents"):
        Mixture(settings(tmp_path, {"a": documents("a"), "b": held_out}), 0, tokenizer)


@pytest.mark.slow
def test_the_end_of_a_part_ends_the_mixture_unless_it_repeats(tmp_path, tokenizer):
    with pytest.raises(TextEnded, match=r"set text\.of\.a\.repeat=true"):
        for _ in mixture(tmp_path, tokenizer).documents("train"):
            pass
    again = list(islice(mixture(tmp_path, tokenizer, repeat=True).documents("train"), 1300))
    assert len(set(again)) == sum(1 for part in mixture(tmp_path, tokenizer).parts.values() for _ in part.one_pass("train"))


def test_the_parts_are_spread_evenly_over_a_pool():
    parts = torch.tensor([0] * 30 + [1] * 10)
    order = evenly(torch.randperm(40, generator=torch.Generator().manual_seed(0)), parts, torch.full((40,), 31))
    assert sorted(order.tolist()) == list(range(40)) and order.tolist() != list(range(40))
    assert all(abs(int(parts[order[:n]].sum()) - n / 4) <= 1 for n in range(1, 41))


@pytest.mark.slow
def test_the_parts_are_other_files_of_conf_text(tmp_path):
    words = ("text=mix", "text@text.of.b=files", "text.of.b.glob=notes.txt", "text.shares={a: 2, b: 1}")
    found = job(None, *words)
    assert check(found) is None and [part["kind"] for part in found["text"]["of"].values()] == ["stdlib", "files"]
    for more, said in (
        ("+text.shares.c=1", r"text.shares=.*must have a share for each text of text.of: a, b"),
        ("text.shares.a=0", r"text.shares.a=0: must be above 0"),
        ("text.of.b.kind=mix", r"text.of.b.kind=mix: must be stdlib or files"),
        ("text.of.a.held_out=x", r"text.of.a.held_out=x: must be a number"),
    ):
        with pytest.raises(UsageError, match=said):
            check(job(None, *words, more))
