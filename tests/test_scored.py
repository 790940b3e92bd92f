"""Which held-out predictions are scored, and that their logits are those of the whole forward pass."""
import pytest
import torch
import transformers
from model_folders import LLAMA, TOKENS
from test_model_classes import GEMMA2, GEMMA3, NEOX

from saesweep.data.held_out import HeldOut, Read
from saesweep.data.scored import scored
from saesweep.lm.tokenizer import byte_tokenizer
from saesweep.lm.unembedding import logits_at
from saesweep.old_names import renewed

CONTEXT = 32
TOKENIZER = byte_tokenizer(True, None)


def held_out(sizes, context=CONTEXT):
    """Documents of so many tokens; the first block alone is for FVU."""
    blocks, documents = [], []
    for number, size in enumerate(sizes):
        for start in range(0, size, context - 1):
            ids = [1] + [3 + number % 250] * min(context - 1, size - start)
            blocks.append(torch.tensor(ids + [-1] * (context - len(ids))))
            documents.append(number)
    read = Read(torch.stack(blocks), torch.tensor(documents))
    return HeldOut(read.tokens[-1:], torch.zeros(1, dtype=torch.long), torch.tensor([sizes[-1]]), read, read.documents[-1:])


def drawn(of, tokens, blocks, seed=0):
    return scored(of, TOKENIZER, {"evaluation": {"lm_tokens": tokens, "lm_blocks": blocks}, "stream_seed": seed})


MANY = [4000, 1000, *[300] * 10, *[40] * 40, *[5] * 20]


@pytest.mark.slow
def test_every_token_has_the_same_chance_and_so_many_are_drawn_from_many_documents():
    of, times = held_out(MANY), 200
    by_document, by_position = torch.zeros(len(MANY)), torch.zeros(CONTEXT)
    for seed in range(times):
        found = drawn(of, 150, 40, seed)
        documents = found.tokens[found.at].sub(3).bincount(minlength=len(MANY))
        assert 100 < int(documents.sum()) < 200 and 30 < len(found.tokens) <= 40 and int((documents > 0).sum()) > 25
        by_document, by_position = by_document + documents, by_position + found.at.sum(0)
    rate = by_document / torch.tensor(MANY) / times / (150 / sum(MANY))
    groups = [rate[0], rate[1], rate[2:12].mean(), rate[12:52].mean(), rate[52:].mean()]
    assert groups == pytest.approx([1] * 5, abs=0.2)
    full = by_position[1:] / (of.read.tokens[:, 1:] > 0).sum(0)
    assert float(full.max() / full.min()) < 1.5 and by_position[0] == 0


def test_the_draw_is_of_the_seed_of_the_data_and_of_nothing_else():
    of = held_out(MANY)
    first, again, other = drawn(of, 300, 40), drawn(of, 300, 40), drawn(of, 300, 40, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert first.at.shape != other.at.shape or not torch.equal(first.at, other.at)
    assert torch.equal(torch.cat([at.sum(1) for _, at in first.parts(64)]), first.at.sum(1))


def test_blocks_end_with_their_last_scored_token_and_keep_the_document_numbers_of_the_others():
    of = held_out(MANY)
    found = drawn(of, 300, 40)
    for tokens, at, number in zip(*found, strict=True):
        last = int(at.nonzero().max())
        document = int(tokens[1]) - 3
        assert (tokens[: last + 1] >= 0).all() and (tokens[last + 1 :] == -1).all()
        assert number == 0 if document == len(MANY) - 1 else number > 0
    assert len(found.documents.unique()) == len({int(block[1]) for block in found.tokens})


def test_more_blocks_are_drawn_where_these_have_too_few_tokens():
    found = drawn(held_out([3100, 310]), 620, 2)
    assert len(found.tokens) > 20 and 500 < int(found.at.sum()) < 700


def test_without_a_number_of_blocks_all_tokens_of_the_first_ones_are_scored():
    of = held_out([20, 70])
    of = of._replace(tokens=of.read.tokens[[3, 0]], documents=torch.tensor([1, 0]), ordinary=torch.tensor([8, 20]))
    found = drawn(of, 8, None)
    assert torch.equal(found.tokens, of.tokens[:1]) and found.documents.tolist() == [1] and int(found.at.sum()) == 8
    assert len(drawn(of, 9, None).tokens) == 2 and drawn(of, 0, None) is None


def test_an_older_config_is_one_that_scores_whole_blocks():
    older = {"evaluation": {"lm_tokens": 8}}
    assert renewed({"evaluation": {"lm_tokens": 8, "lm_blocks": None}}) == older == renewed(older)
    assert renewed({"evaluation": {"lm_tokens": 8, "lm_blocks": 4}}) != older
    assert len(scored(held_out([20, 70]), TOKENIZER, older | {"stream_seed": 0}).tokens) == 1


# Logits at some positions

KINDS = {
    "gemma2": GEMMA2[1], "gemma3_text": GEMMA3[1], "gpt_neox": NEOX[1], "llama": LLAMA,
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gptj": {"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8}, "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
    "cohere": LLAMA | {"logit_scale": 0.5}, "opt": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                                                    "word_embed_proj_dim": 16, "ffn_dim": 32},
    "bloom": {"hidden_size": 48, "n_layer": 2, "n_head": 4}, "qwen2": LLAMA, "granite": LLAMA | {"logits_scaling": 3.0},
}


@pytest.fixture(scope="module", params=KINDS)
def module(request):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(request.param, **{"vocab_size": TOKENS, **KINDS[request.param]})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


IDS = torch.randint(2, TOKENS, (3, 24), generator=torch.Generator().manual_seed(0))
SOME = torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) < 0.3


@pytest.mark.parametrize("at", [SOME, torch.ones_like(SOME), torch.zeros_like(SOME), SOME & (torch.arange(3) == 1)[:, None]])
def test_logits_at_some_positions_are_those_of_the_whole_pass(module, at):
    with torch.no_grad():
        whole = module(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(logits_at(module, IDS, at), whole[at])
    with torch.no_grad():
        assert torch.equal(module(input_ids=IDS, use_cache=False).logits, whole)  # the hook is gone


def test_the_output_embedding_is_given_the_positions_alone(module):
    seen = []
    handle = module.get_output_embeddings().register_forward_hook(lambda head, args, out: seen.append(args[0].shape[:2]))
    logits_at(module, IDS, SOME)
    handle.remove()
    assert seen == [(1, int(SOME.sum()))]


@pytest.mark.parametrize("head", [None, "other"])
def test_without_an_output_embedding_that_is_called_all_logits_are_computed(module, head, monkeypatch):
    wanted = logits_at(module, IDS, SOME)
    monkeypatch.setattr(module, "get_output_embeddings", lambda: head and torch.nn.Linear(2, 2), raising=False)
    torch.testing.assert_close(logits_at(module, IDS, SOME), wanted)
