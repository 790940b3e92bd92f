"""The loss of some predictions is the cross-entropy of all logits at them, whatever the model does with its logits."""
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import transformers
from model_folders import LLAMA, TOKENS
from test_model_classes import GEMMA2, GEMMA3, NEOX

from saesweep.lm import losses
from saesweep.lm.losses import logits_at, losses_at

KINDS = {
    "gemma2": GEMMA2[1] | {"final_logit_softcapping": 0.5}, "gemma3_text": GEMMA3[1], "gpt_neox": NEOX[1], "llama": LLAMA,
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gptj": {"n_embd": 48, "n_layer": 2, "n_head": 4, "rotary_dim": 8}, "mamba": {"hidden_size": 32, "num_hidden_layers": 2},
    "cohere": LLAMA | {"logit_scale": 0.5}, "opt": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
                                                    "word_embed_proj_dim": 16, "ffn_dim": 32},
    "bloom": {"hidden_size": 48, "n_layer": 2, "n_head": 4}, "qwen2": LLAMA, "granite": LLAMA | {"logits_scaling": 3.0},
}


def made(kind):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{"vocab_size": TOKENS, **KINDS[kind]})
    module = transformers.AutoModelForCausalLM.from_config(config).eval()
    for bias in (p for name, p in module.named_parameters() if name == "lm_head.bias"):
        torch.nn.init.normal_(bias)
    return module


@pytest.fixture(scope="module", params=KINDS)
def module(request):
    return made(request.param)


@pytest.fixture
def pieces(monkeypatch):
    """Words are taken 100 at a time, so that the last piece is smaller."""
    monkeypatch.setattr(losses, "PIECE_ON_CPU", 1)
    monkeypatch.setattr(losses, "LEAST", 100)


IDS = torch.randint(2, TOKENS, (3, 24), generator=torch.Generator().manual_seed(0))
SOME = torch.rand(3, 24, generator=torch.Generator().manual_seed(1)) < 0.3
SOME[:, 0] = False
EACH = torch.arange(24).expand(3, 24) > 0


@torch.no_grad()
def by_definition(module, at):
    logits = module(input_ids=IDS, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits[at[:, 1:]], IDS[:, 1:][at[:, 1:]], reduction="none")


@pytest.mark.parametrize("at", [SOME, EACH, torch.zeros_like(SOME), SOME & (torch.arange(3) == 1)[:, None]])
def test_losses_are_those_of_all_logits_and_the_model_is_left_as_it_was(module, at, pieces):
    wanted = by_definition(module, at)
    torch.testing.assert_close(losses_at(module, IDS, at), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(by_definition(module, at), wanted) and "forward" not in vars(module.get_output_embeddings())


def test_the_output_embedding_is_never_called_with_its_words(module, pieces, monkeypatch):
    monkeypatch.setattr(losses, "logits_at", None)
    seen = []
    handle = module.get_output_embeddings().register_forward_hook(lambda head, args, out: seen.append(out.shape))
    losses_at(module, IDS, SOME)
    handle.remove()
    assert seen == [(1, 1, TOKENS)]


def test_in_bfloat16_the_losses_are_those_of_its_logits(pieces):
    module = made("gemma2").to(torch.bfloat16)
    torch.testing.assert_close(losses_at(module, IDS, SOME), by_definition(module, SOME), rtol=1e-2, atol=1e-2)


def test_a_forward_of_the_output_embedding_that_a_library_has_wrapped_is_put_back(pieces):
    module = made("llama")
    head = module.get_output_embeddings()
    head.forward = wrapped = lambda x: torch.nn.Linear.forward(head, x)
    torch.testing.assert_close(losses_at(module, IDS, SOME), by_definition(module, SOME), rtol=1e-5, atol=1e-5)
    assert head.forward is wrapped


class Changed(torch.nn.Module):
    """A model that changes its logits."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = made("llama"), change
        self.config, self.get_output_embeddings = self.inner.config, self.inner.get_output_embeddings

    def forward(self, **inputs):
        out = self.inner(**inputs)
        out.logits = self.change(out.logits)
        return out


def first_words_masked(logits):
    logits[..., :100] = -1e4
    return logits


CHANGES = {
    "squared": lambda logits: logits**2, "fewer words": lambda logits: logits[..., :-1], "masked in place": first_words_masked,
    "biased": lambda logits: logits + torch.arange(logits.shape[-1]) / 100,
}


class Quantised(torch.nn.Linear):
    """A matrix whose weight is not what multiplies."""

    def forward(self, x):
        return F.linear(x, self.weight.round(decimals=1))


def with_quantised_head():
    module = made("llama")
    module.set_output_embeddings(Quantised(module.config.hidden_size, TOKENS))
    return module


def without_head():
    module = made("llama")
    module.get_output_embeddings = lambda: None
    return module


def with_another_head():
    module = made("llama")
    module.get_output_embeddings = lambda: torch.nn.Linear(2, 2)
    return module


@pytest.mark.parametrize(
    "make", [*(partial(Changed, change) for change in CHANGES.values()), with_quantised_head, without_head, with_another_head],
    ids=[*CHANGES, "quantised", "no head", "another head"],
)
def test_what_cannot_be_taken_in_pieces_is_computed_from_all_logits(make, pieces):
    module = make()
    wanted = by_definition(module, SOME)
    assert losses._states(module, IDS, SOME.roll(-1, 1)) is None
    torch.testing.assert_close(losses_at(module, IDS, SOME), wanted)
    passes = []
    module.register_forward_pre_hook(lambda *_: passes.append(0))
    torch.testing.assert_close(losses_at(module, IDS, SOME), wanted)
    assert len(passes) == 1  # none in vain after the first time


def test_logits_that_are_changed_in_place_are_taken_in_pieces_too(pieces, monkeypatch):
    module = Changed(lambda logits: logits.mul_(0.5))
    monkeypatch.setattr(losses, "logits_at", None)
    torch.testing.assert_close(losses_at(module, IDS, SOME), by_definition(module, SOME), rtol=1e-5, atol=1e-5)


def test_words_that_are_never_predicted_count_for_nothing(pieces):
    module = made("gpt2")
    head = torch.nn.Linear(48, TOKENS)
    with torch.no_grad():
        head.bias[:120] = -torch.inf  # more than a piece
    module.set_output_embeddings(head)
    found, wanted = losses_at(module, IDS, SOME), by_definition(module, SOME)
    likely = IDS[SOME] >= 120
    torch.testing.assert_close(found[likely], wanted[likely], rtol=1e-5, atol=1e-5)
    assert likely.any() and (found[~likely] == torch.inf).all()


def test_a_large_vocabulary_costs_no_precision():
    """One likely word among 262,144: F.cross_entropy in fp32, which adds up the others at once, is off by 5e-5 here."""
    torch.manual_seed(0)
    states, head, wanted = torch.randn(8, 16), torch.nn.Linear(16, 2**18), torch.arange(8) * 30_000
    torch.nn.init.normal_(head.weight, std=0.3)
    with torch.no_grad():
        head.bias[5] += 15
        exact = F.cross_entropy(head(states).double(), wanted, reduction="none")
        found = losses._in_pieces(states, head, lambda logits: logits, wanted)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=5e-6)


# Logits at some positions

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
