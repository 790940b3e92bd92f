"""Texts with token ids: a column of ids, and conversations of which only the assistant's tokens count."""
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from omegaconf import OmegaConf
from small import tiny

from saesweep.data.harvest import harvest
from saesweep.data.micro_batches import lm_input, ordinary_positions
from saesweep.data.text import Corpus, blocks
from saesweep.errors import UsageError
from saesweep.lm.chat import chat_of
from saesweep.lm.hooks import hook_point
from saesweep.lm.models import load_tokenizer
from saesweep.lm.tokenizer import RESERVED, Tokenizer

CONF = Path(__file__).parents[1] / "conf"
MODEL = OmegaConf.to_container(OmegaConf.load(CONF / "model/tiny.yaml"))
WORDS = [f"document {i}: " + "lorem ipsum dolor " * (i % 7 + 1) for i in range(40)]
TURN = ("{% for m in messages %}{{ m.role }} {% if m.role == 'assistant' %}GEN{{ m.content }}END"
        "{% else %}{{ m.content }}{% endif %} {% endfor %}")
MARKED = TURN.replace("GEN", "{% generation %}").replace("END", "{% endgeneration %}")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(MODEL)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def corpus(kind: str, file: Path, tokenizer: Tokenizer, **changes) -> Corpus:
    text = OmegaConf.to_container(OmegaConf.load(CONF / f"text/{kind}.yaml"))
    return Corpus(text | {"glob": str(file)} | changes, 0, tokenizer)


def jsonl(file: Path, field: str, rows: list) -> Path:
    file.write_text("".join(json.dumps({field: row}) + "\n" for row in rows))
    return file


def both(corpus: Corpus, tokenizer: Tokenizer) -> list[torch.Tensor]:
    return [torch.stack(list(blocks(corpus.one_pass(split), tokenizer, 16))) for split in ("train", "held_out")]


def test_ids_give_the_blocks_of_the_text_that_they_are_of(tmp_path, tokenizer):
    import pandas

    ids = tokenizer.encode(WORDS)
    text = both(corpus("files", jsonl(tmp_path / "a.jsonl", "text", WORDS), tokenizer), tokenizer)
    with_bos = [[tokenizer.bos, *one] for one in ids]
    rows = jsonl(tmp_path / "b.jsonl", "input_ids", with_bos)
    pandas.DataFrame({"input_ids": ids}).to_parquet(tmp_path / "c.parquet")
    for file in (rows, tmp_path / "c.parquet"):
        found = both(corpus("tokens", file, tokenizer), tokenizer)
        assert all(torch.equal(a, b) for a, b in zip(found, text, strict=True))


def test_the_tokenizer_that_a_dataset_states_is_noted(tmp_path, tokenizer):
    (tmp_path / "sae_lens.json").write_text(json.dumps({"tokenizer_name": "gpt2"}))
    file = jsonl(tmp_path / "b.jsonl", "input_ids", tokenizer.encode(WORDS))
    assert corpus("tokens", file, tokenizer).identity["tokenized_by"] == ["gpt2"]


@pytest.mark.parametrize("rows, said", [
    ([[5, 6], [7, 259]], "row 2: holds the id 259, and the language model's tokenizer has 259 tokens"),
    ([[5, -1]], "row 1: holds the id -1"),
    (["text"], "row 1: holds a value of type str, not a list of token ids"),
    ([[5.0]], "row 1: holds a value of type list, not a list"),
])
def test_ids_that_the_tokenizer_does_not_have_are_refused(tmp_path, tokenizer, rows, said):
    with pytest.raises(UsageError) as error:
        corpus("tokens", jsonl(tmp_path / "b.jsonl", "input_ids", rows), tokenizer)
    assert said in str(error.value)
    with pytest.raises(UsageError, match=r"text\.field=ids: .*row 1: has no such field; it has input_ids"):
        corpus("tokens", tmp_path / "b.jsonl", tokenizer, field="ids")


def in_bytes(messages: list) -> tuple[list[int], list[int]]:
    ids, generated = [], []
    for one in messages:
        new = [byte + RESERVED for byte in f"{one['role']} {one['content']} ".encode()]
        ids += new
        generated += [int(one["role"] == "assistant")] * len(new)
    return ids, generated


def chats(count: int = 20) -> list:
    return [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i} " * (i % 5 + 9)}]
            for i in range(count)]


def test_only_what_the_assistant_generates_is_ordinary_and_the_rest_is_read(tmp_path, tokenizer):
    chatty = replace(tokenizer, chat=lambda file: (in_bytes, "a template"))
    found = corpus("chat", jsonl(tmp_path / "c.jsonl", "messages", chats()), chatty, held_out=0.2)
    assert found.identity["template"] == "a template"
    every = torch.stack(list(blocks(found.one_pass("train"), tokenizer, 32)))
    ordinary = ordinary_positions(every, tokenizer)
    letters = every[ordinary].sub(RESERVED).tolist()
    assert set(bytes(letters).decode()) <= set("assistant 0123456789")
    whole = [bytes(x - RESERVED for x in row if x >= RESERVED).decode() for row in lm_input(every).tolist()]
    assert any(text.startswith("user say") for text in whole)
    point, plain = hook_point(MODEL, "resid", 1), torch.where(every == -1, -1, lm_input(every))
    kept = ordinary[ordinary_positions(plain, tokenizer)]
    assert torch.equal(harvest(tiny(), [point], every)[point], harvest(tiny(), [point], plain)[point][kept])


@pytest.mark.parametrize("row, said", [("hello", "is no list of messages"), ([{"role": "user"}], "is no list of messages")])
def test_rows_that_are_no_conversation_are_refused(tmp_path, tokenizer, row, said):
    chatty = replace(tokenizer, chat=lambda file: (in_bytes, "a template"))
    with pytest.raises(UsageError, match=rf"c\.jsonl, row 1: {said}"):
        corpus("chat", jsonl(tmp_path / "c.jsonl", "messages", [row]), chatty)
    with pytest.raises(UsageError, match="text=chat: needs the chat template of a model"):
        corpus("chat", tmp_path / "c.jsonl", tokenizer)


def test_the_template_says_which_tokens_are_generated_or_is_refused(tmp_path):
    words = {word: i for i, word in enumerate(["user", "assistant", "hi", "hello", "there", "?"])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    with pytest.raises(UsageError, match=r"text\.template=null: the tokenizer of mine has no chat template; give a file"):
        chat_of("mine", fast, None)
    fast.chat_template = TURN
    with pytest.raises(UsageError, match=r"the chat template of mine does not say which .* lacks \{% generation %\}"):
        chat_of("mine", fast, None)
    (tmp_path / "t.jinja").write_text(MARKED)
    render, template = chat_of("mine", fast, str(tmp_path / "t.jinja"))
    ids, generated = render([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}])
    assert ids == [0, 2, 1, 3, 4] and generated == [0, 0, 0, 1, 1] and template == MARKED
