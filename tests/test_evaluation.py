"""Every metric of the evaluation against its definition, with SAEs whose metrics are known."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from small import ARCHS, job, tiny, trained, write_text
from test_activations import corpus, traced_lm

from saesweep import data
from saesweep.arch.base import SparseAutoencoder
from saesweep.data.harvest import harvest
from saesweep.data.held_out import CALIBRATION, EVALUATION, held_out_blocks
from saesweep.data.micro_batches import ordinary_positions
from saesweep.data.normalisation import Statistics
from saesweep.data.scored import scored
from saesweep.data.text import Corpus, blocks
from saesweep.errors import UsageError
from saesweep.evaluation import evaluate, splicing
from saesweep.evaluation.metrics import Fidelity, frequency_metrics, spliced
from saesweep.evaluation.subject import Subject
from saesweep.lm.hooks import HookPoint, edit
from saesweep.lm.losses import losses_at

RESID, MLP = HookPoint("model.layers.1", "output"), HookPoint("model.layers.0.post_feedforward_layernorm", "output")
AFTER_RESID = HookPoint("model.layers.2", "input")
D_IN, CONTEXT = 48, 32


class Known(SparseAutoencoder):
    """An SAE whose latents are x itself and whose reconstruction is fn(x)."""

    saved_as = "standard"

    def __init__(self, fn):
        super().__init__(D_IN, D_IN, 1)
        self.fn, self.seen = fn, []

    def activate(self, pi):
        raise AssertionError("not called")

    def step(self, x, coefficient, progress):
        raise AssertionError("not called")

    def encode(self, x):
        return x

    def decode(self, f):
        self.seen.append(f)
        return self.fn(f)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def held_out(text):
    settings = {"name": "files", "kind": "files", "glob": text, "field": "text", "held_out": 0.2, "repeat": False}
    return held_out_blocks(Corpus(settings, 0), tiny().tokenizer, EVALUATION, tokens=600, context=CONTEXT, stream_seed=0)


def rows(held_out, point=RESID):
    return harvest(tiny(), [point], held_out.tokens)[point]


def statistics(held_out, max_norm=None, point=RESID):
    return Statistics.of(rows(held_out, point), center=True, max_norm=max_norm)


def predictions(held_out, lm_tokens, lm_blocks=None, seed=0):
    numbers = {"lm_tokens": lm_tokens, "lm_blocks": lm_blocks}
    return scored(held_out, tiny().tokenizer, {"evaluation": numbers, "stream_seed": seed})


def measured(held_out, *subjects, lm_tokens=300, lm_blocks=None, forward_tokens=128):
    points = list(dict.fromkeys(s.point for s in subjects))
    read = partial(harvest, tiny(), points)
    wanted = predictions(held_out, lm_tokens, lm_blocks)
    return evaluate.evaluate(tiny, read, held_out, wanted, subjects, forward_tokens=forward_tokens)


def evaluated(held_out, *subjects, **more):
    return [found.numbers for found in measured(held_out, *subjects, **more)]


def subject(held_out, fn, **more):
    return Subject(Known(fn), RESID, statistics(held_out, **more))


# SAEs whose metrics are known


def test_an_sae_that_returns_its_input_has_no_error_and_no_delta_loss(held_out):
    (n,) = evaluated(held_out, subject(held_out, lambda x: x))
    assert n["fvu"] == n["mse"] == n["delta_loss"] == 0
    assert n["ce_sae"] == n["ce_clean"] and n["loss_recovered"] == 1
    assert n["cosine"] == pytest.approx(1) and n["relative_reconstruction_bias"] == pytest.approx(1)


def test_an_sae_that_returns_zeros_is_the_zero_ablation(held_out):
    (n,) = evaluated(held_out, subject(held_out, torch.zeros_like))
    assert n["ce_sae"] == n["ce_zero"] != n["ce_clean"]
    assert n["loss_recovered"] == 0 and n["delta_loss"] == n["ce_zero"] - n["ce_clean"]


def test_an_sae_that_returns_the_mean_has_fvu_1_and_is_the_mean_ablation(held_out):
    mean = rows(held_out).double().mean(0).float()
    (n,) = evaluated(held_out, subject(held_out, lambda x: mean.expand_as(x)))
    assert n["fvu"] == pytest.approx(1, abs=1e-6)
    assert n["ce_sae"] == pytest.approx(n["ce_mean"], abs=1e-6) and n["ce_mean"] != n["ce_zero"]


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_shrunken_reconstruction_has_its_factor_as_bias_and_cosine_1(held_out, share):
    mean = rows(held_out).mean(0)
    (n,) = evaluated(held_out, subject(held_out, lambda x: mean + share * (x - mean)))
    assert n["relative_reconstruction_bias"] == pytest.approx(share, abs=1e-4)
    assert n["cosine"] == pytest.approx(1, abs=1e-4) and n["fvu"] == pytest.approx((1 - share) ** 2, rel=1e-3)


# Against the definitions


def noise(x):
    return x + 0.3 * torch.sin(17 * x)


def test_fvu_mse_cosine_and_bias_equal_their_definitions(held_out):
    x, s = rows(held_out).double(), statistics(held_out)
    x_hat = noise(rows(held_out)).double()
    (n,) = evaluated(held_out, subject(held_out, noise))
    error = (x - x_hat).square().sum()
    assert n["fvu"] == pytest.approx(float(error / (x - x.mean(0)).square().sum()), rel=1e-5)
    assert n["mse"] == pytest.approx(float(error / len(x) / s.scale**2), rel=1e-5)
    x, x_hat = ((y - s.mean) / s.scale for y in (x, x_hat))
    assert n["cosine"] == pytest.approx(
        float(((x * x_hat).sum(1) / x.norm(dim=1) / x_hat.norm(dim=1)).mean()), rel=1e-5
    )
    bias = x_hat.square().sum(1).mean() / (x * x_hat).sum(1).mean()
    assert n["relative_reconstruction_bias"] == pytest.approx(float(bias), rel=1e-5)


def test_fvu_is_a_ratio_of_sums_and_not_a_mean_of_ratios():
    x = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 2, 1000)[:, None]
    x_hat = x + torch.randn(1000, 6, generator=torch.Generator().manual_seed(1))
    f = Fidelity(6, 1, torch.zeros(6), 1.0)
    f.add(x, torch.zeros(1000, 1), x_hat)
    ratio = float((x - x_hat).square().sum() / (x - x.mean(0)).square().sum())
    of_ratios = float(((x - x_hat).square().sum(1) / (x - x.mean(0)).square().sum(1)).mean())
    assert f.result()["fvu"] == pytest.approx(ratio, rel=1e-5) and of_ratios > 10 * ratio


def latents(rates, tokens=2000):
    return (torch.rand(tokens, len(rates), generator=torch.Generator().manual_seed(0)) < torch.tensor(rates)).float()


def test_l0_and_the_frequencies_are_counts_of_latents_above_zero():
    f = latents([0.0, 0.005, 0.05, 0.5, 0.9])
    f[:, 4] *= 1e-20  # tiny is active
    f[:, 0] -= 1.0  # negative is not
    fidelity = Fidelity(3, 5, torch.zeros(3), 1.0)
    fidelity.add(torch.randn(2000, 3), f, torch.zeros(2000, 3))
    n = fidelity.result()
    assert n["l0"] == pytest.approx(float((f > 0).sum(1).double().mean()))
    torch.testing.assert_close(fidelity.frequency, (f > 0).double().mean(0))
    assert n["frequency_over_1pct"] == 3 / 5 and n["frequency_over_10pct"] == 2 / 5


def test_the_metrics_of_frequent_latents_by_hand():
    """10 tokens on which six latents fire 5, 2, 1, 1, 1, 0 times: rates .5, .2, .1, .1, .1, 0, and .1 is not over 10%."""
    fidelity = Fidelity(3, 6, torch.zeros(3), 1.0)
    f = (torch.arange(10)[:, None] < torch.tensor([5, 2, 1, 1, 1, 0])).float()
    fidelity.add(torch.randn(10, 3), f, torch.zeros(10, 3))
    n = fidelity.result()
    assert n["frequency_over_10pct"] == pytest.approx(2 / 6) and n["frequency_max"] == 0.5
    assert n["firings_over_10pct"] == pytest.approx(0.7) and n["frequency_of_firings"] == pytest.approx(0.32)


def test_where_no_latent_fires_there_is_no_share_of_firings():
    n = frequency_metrics(torch.zeros(4, dtype=torch.float64))
    assert n["firings_over_10pct"] is None and n["frequency_of_firings"] is None and n["frequency_max"] == 0


def test_the_metrics_do_not_depend_on_how_tokens_are_batched():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 6, generator=generator) * torch.logspace(-1, 1, 1000)[:, None]
    x_hat, f = x + torch.randn(1000, 6, generator=generator), latents([0.1] * 7, 1000)
    results = []
    for sizes in ([1000], [1] * 10 + [990], [333, 333, 334], [10] * 100):
        fidelity = Fidelity(6, 7, torch.ones(6), 2.0)
        for part in zip(*(y.split(sizes) for y in (x, f, x_hat)), strict=True):
            fidelity.add(*part)
        results.append(fidelity.result())
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-12)


@pytest.mark.parametrize("lm_blocks", [None, 30])
def test_the_metrics_are_ratios_of_the_sums_by_document(held_out, lm_blocks):
    s = subject(held_out, noise)
    (found,) = measured(held_out, s, lm_tokens=60, lm_blocks=lm_blocks)
    d, n = {key: torch.tensor(values, dtype=torch.float64) for key, values in found.documents.items()}, found.numbers
    assert int((d["tokens"] > 0).sum()) == held_out.count > 5 and len(found.frequency) == D_IN
    assert float(d["active"].sum() / d["tokens"].sum()) == pytest.approx(n["l0"], rel=1e-12)
    assert float(d["error"].sum() / d["variance"].sum()) == pytest.approx(n["fvu"], rel=1e-12)
    delta_loss = float((d["nats_sae"] - d["nats_clean"]).sum() / d["scored"].sum())
    assert delta_loss == pytest.approx(n["delta_loss"], rel=1e-9)
    first = measured(held_out, subject(held_out, noise), lm_tokens=60)[0].documents["scored"]
    several, few = int((d["scored"] > 0).sum()), sum(count > 0 for count in first)
    assert 0 < few < held_out.count and (several == few if lm_blocks is None else several > few)


def test_the_sums_of_a_document_are_over_its_own_tokens(held_out):
    (found,) = measured(held_out, subject(held_out, noise))
    x = rows(held_out).double()
    number = held_out.of_tokens
    scale, mean = statistics(held_out).scale, x.mean(0)
    for document in (0, held_out.count - 1):
        own = x[number == document]
        error = (own - noise(own.float()).double()).square().sum() / scale**2
        assert found.documents["tokens"][document] == len(own)
        assert found.documents["error"][document] == pytest.approx(float(error), rel=1e-5)
        assert found.documents["variance"][document] == pytest.approx(float((own - mean).square().sum() / scale**2), rel=1e-5)


def test_a_block_is_attributed_to_its_document(tmp_path):
    text, lm = corpus(tmp_path, [40] * 40, 0), traced_lm()
    text._split._held_out, text._split._train = _cut(text._split._held_out + text._split._train, 0.5)
    found = held_out_blocks(text, lm.tokenizer, EVALUATION, tokens=300, context=CONTEXT, stream_seed=0)
    assert found.ordinary.tolist() == ordinary_positions(found.tokens, lm.tokenizer).sum(1).tolist()
    # every token occurs once
    documents = [{(token - 3) // 40 for token in block[block > 2].tolist()} for block in found.tokens]
    assert all(len(one) == 1 for one in documents)
    pairs = {(number, *one) for number, one in zip(found.documents.tolist(), documents, strict=True)}
    assert len(pairs) == len({number for number, _ in pairs}) == len({one for _, one in pairs}) > 3


@pytest.mark.slow
def test_the_language_models_loss_does_not_depend_on_the_tokens_per_forward(held_out):
    one, four = (evaluated(held_out, subject(held_out, noise), forward_tokens=tokens)[0] for tokens in (CONTEXT, 4 * CONTEXT))
    assert one == pytest.approx(four, rel=1e-4)


@pytest.mark.slow
def test_the_clean_loss_is_the_models_mean_over_ordinary_tokens(held_out):
    (n,) = evaluated(held_out, subject(held_out, noise), lm_tokens=600)
    nats, count = 0.0, 0
    for block in held_out.tokens:
        block = block[block >= 0]
        with torch.no_grad():
            logits = tiny().module(input_ids=block[None]).logits[0].double()
        for position in range(1, len(block)):  # each token after BOS, predicted from those before it
            nats -= float(logits[position - 1].log_softmax(0)[block[position]])
            count += 1
    assert n["ce_clean"] == pytest.approx(nats / count, rel=1e-5)


@pytest.mark.slow
def test_the_loss_is_measured_on_lm_tokens_tokens(held_out):
    few, all_of_them = (evaluated(held_out, subject(held_out, noise), lm_tokens=tokens)[0] for tokens in (40, 600))
    assert few["fvu"] == all_of_them["fvu"] and few["ce_clean"] != all_of_them["ce_clean"]


# Tokens that are excluded


def test_special_tokens_are_neither_measured_nor_replaced(held_out):
    tokens, padded = ordinary_positions(held_out.tokens, tiny().tokenizer), held_out.tokens < 0
    assert padded.any() and (~tokens & ~padded).sum() == len(held_out.tokens)  # BOS
    sevens = subject(held_out, lambda x: torch.full_like(x, 7.0))
    outputs = []
    with edit(tiny().module, AFTER_RESID, lambda x: outputs.append(x) or x):
        evaluated(held_out, sevens, lm_tokens=1, forward_tokens=1)
    clean, zero, mean, spliced = outputs  # the fidelity pass stops before this hook point
    assert sevens.fidelity.tokens == int(tokens.sum())
    first = tokens[:1]
    assert torch.equal(spliced[first], torch.full_like(clean[first], 7.0)) and not zero[first].any()
    for replaced in (zero, mean, spliced):
        assert torch.equal(replaced[~first], clean[~first])


def test_sinks_are_neither_measured_nor_replaced_and_are_counted(held_out):
    strict = statistics(held_out, max_norm=1.05)
    x = rows(held_out)
    ordinary = strict.ordinary(x)
    assert 0.1 < float(ordinary.double().mean()) < 0.9
    sae = Known(torch.zeros_like)
    outputs = []
    with edit(tiny().module, AFTER_RESID, lambda x: outputs.append(x) or x):
        (n,) = evaluated(held_out, Subject(sae, RESID, strict), lm_tokens=1, forward_tokens=1)
    assert n["sinks"] == int((~ordinary).sum())
    measured = torch.cat(sae.seen)[: int(ordinary.sum())]
    assert torch.equal(measured, x[ordinary])
    clean, zero, _, spliced = outputs
    replaced = ordinary_positions(held_out.tokens[:1], tiny().tokenizer) & strict.ordinary(clean)
    assert replaced.any() and not spliced[replaced].any() and torch.equal(spliced[~replaced], clean[~replaced])
    assert torch.equal(zero, spliced)


# Held-out documents


def held_out_and_training(folder, purpose, tokens, documents=40, length=40, share=0.5, seed=0):
    """Blocks and tokens of evaluation or calibration, and the tokens of training; every token occurs once in the text."""
    text = corpus(folder, [length] * documents, seed)
    text._split._held_out, text._split._train = _cut(text._split._held_out + text._split._train, share)
    lm = traced_lm()
    found = held_out_blocks(text, lm.tokenizer, purpose, tokens=tokens, context=CONTEXT, stream_seed=seed).tokens
    trained_on = torch.stack(list(blocks(text.one_pass("train"), lm.tokenizer, CONTEXT)))
    return found, set(found[ordinary_positions(found, lm.tokenizer)].tolist()), set(trained_on[trained_on > 2].tolist())


def _cut(numbers, share):
    return numbers[: round(share * len(numbers))], numbers[round(share * len(numbers)) :]


def test_evaluation_calibration_and_training_read_different_documents(tmp_path):
    _, evaluated, trained_on = held_out_and_training(tmp_path, EVALUATION, 380)
    _, calibrated, _ = held_out_and_training(tmp_path, CALIBRATION, 380)
    documents = [{(token - 3) // 40 for token in tokens} for tokens in (evaluated, calibrated, trained_on)]
    assert all(documents) and not documents[0] & documents[1] and not (documents[0] | documents[1]) & documents[2]


def test_held_out_blocks_are_few_from_many_documents_and_determined_by_the_seed(tmp_path):
    found, tokens, _ = held_out_and_training(tmp_path, EVALUATION, 200)
    assert 200 <= len(tokens) < 200 + CONTEXT and len({(token - 3) // 40 for token in tokens}) >= 5
    assert torch.equal(held_out_and_training(tmp_path, EVALUATION, 200)[0], found)
    assert not torch.equal(held_out_and_training(tmp_path, EVALUATION, 200, seed=1)[0], found)


def test_short_documents_are_read_until_there_are_enough_tokens(tmp_path):
    # more than 256 documents are needed
    _, tokens, _ = held_out_and_training(tmp_path, EVALUATION, 2000, documents=1400, length=4, share=0.9)
    assert len(tokens) >= 2000


@pytest.mark.parametrize(
    ("purpose", "key"), [(EVALUATION, "evaluation.tokens"), (CALIBRATION, "evaluation.calibration_tokens")]
)
def test_too_few_held_out_tokens_are_refused_with_the_key_and_their_number(tmp_path, purpose, key):
    with pytest.raises(UsageError, match=rf"{key}=401: there are 400 held-out tokens.*{key}=400.*text\.held_out"):
        held_out_and_training(tmp_path, purpose, 401)
    assert len(held_out_and_training(tmp_path, purpose, 400)[1]) == 400


def test_a_single_held_out_document_is_refused_because_calibration_has_none(tmp_path):
    with pytest.raises(UsageError, match=r"evaluation\.calibration_tokens=9: there are 0 held-out tokens"):
        held_out_and_training(tmp_path, CALIBRATION, 9, documents=10, share=0.1)


# Independence of other SAEs


@pytest.mark.slow
def test_the_metrics_of_an_sae_do_not_depend_on_the_other_saes(held_out, text, tmp_path):
    """Bitwise, for trained SAEs of every architecture at two hook points."""
    sites = [("site=mlp", "layer=0"), *[()] * 4]
    jobs = [job(text, f"arch={name}", "tokens=640", *at) for name, at in zip(ARCHS, sites, strict=True)]
    saes = [member.sae.requires_grad_(False) for member in trained(jobs, tmp_path).members]

    def subjects():
        points = [MLP, *[RESID] * 4]
        return [Subject(s, point, statistics(held_out, 3.0, point)) for s, point in zip(saes, points, strict=True)]

    together = evaluated(held_out, *subjects())
    for alone, wanted in zip(subjects(), together, strict=True):
        assert evaluated(held_out, alone) == [wanted]
    assert evaluated(held_out, *subjects()[::-1]) == together[::-1]
    assert len({n["ce_clean"] for n in together}) == 1 and len({n["ce_zero"] for n in together}) == 2
    assert all(math.isfinite(value) for n in together for value in n.values())


# Values that are missing or not finite


def test_activations_without_variance_have_all_metrics_but_the_fvu():
    fidelity, x = Fidelity(2, 2, torch.zeros(2), 1.0), torch.full((3, 2), 0.3)
    fidelity.add(x, torch.zeros(3, 2), x / 2)
    numbers = fidelity.result()
    assert numbers["fvu"] is None and numbers["l0"] == 0 and numbers["mse"] == pytest.approx(2 * 0.15**2)


def test_an_sae_fails_with_a_reason_if_every_held_out_token_is_a_sink(held_out):
    found = subject(held_out, lambda x: x)
    found.statistics = dataclasses.replace(found.statistics, largest=0.0)
    other = subject(held_out, lambda x: x)
    failed, fine = measured(held_out, found, other)
    assert str(failed).startswith("activations.max_norm: all ") and "are sinks by it" in str(failed)
    assert fine.numbers["fvu"] == 0


def test_activations_that_are_not_finite_fail_only_the_saes_of_their_hook_point(held_out):
    def read(tokens):
        found = harvest(tiny(), [RESID, MLP], tokens)
        found[MLP][0, 0] = float("nan")
        return found

    broken, fine = (Subject(Known(lambda x: x), at, statistics(held_out, point=at)) for at in (MLP, RESID))
    failed, found = evaluate.evaluate(tiny, read, held_out, None, [broken, fine], forward_tokens=128)
    assert isinstance(failed, UsageError) and f"the activations at {MLP} are not finite on 1 of " in str(failed)
    assert found.numbers["fvu"] == 0


def test_an_sae_fails_with_a_reason_if_its_reconstruction_is_not_finite(held_out):
    failed = measured(held_out, subject(held_out, lambda x: x * float("inf")), lm_tokens=0)[0]
    assert f"the reconstruction at {RESID} is not finite" in str(failed)


@pytest.mark.parametrize("broken", [False, True])
def test_without_a_finite_loss_the_cross_entropy_is_missing_with_a_warning(
    held_out, broken, monkeypatch, caplog
):
    if broken:
        monkeypatch.setattr(splicing, "losses_at", lambda *of: losses_at(*of) * float("nan"))
    else:
        nowhere = partial(torch.zeros_like, dtype=torch.bool)
        monkeypatch.setattr(data.scored, "ordinary_positions", lambda tokens, tokenizer: nowhere(tokens))
    (found,) = measured(held_out, subject(held_out, lambda x: x))
    assert found.numbers["fvu"] == 0
    assert all(found.numbers[key] is None for key in ("ce_clean", "ce_sae", "delta_loss", "loss_recovered"))
    assert "nats_sae" not in found.documents
    assert ("is not finite" if broken else "no prediction is of ordinary text") in caplog.text


def test_a_spliced_loss_that_is_not_finite_is_missing():
    assert spliced(2.0, None, 3.0, 2.5)["delta_loss"] is None
    assert spliced(2.0, 2.5, 2.0, 2.5)["loss_recovered"] is None
    assert spliced(2.0, 2.5, 3.0, 2.5)["loss_recovered"] == 0.5
