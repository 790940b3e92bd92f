"""SAEBench's core evaluation, by its formulas and by itself, gives our numbers where docs/saebench.md says so."""
import json
import warnings
from dataclasses import replace

import pytest
import torch
from studied import trained  # noqa: F401 a fixture
from torch import Tensor

import saesweep
from saesweep.data.harvest import harvest
from saesweep.evaluation.metrics import CrossEntropy
from saesweep.evaluation.splicing import Batch, SplicedPasses
from saesweep.evaluation.subject import Subject
from saesweep.lm.hooks import edit, read

ARCHS = ("jumprelu", "topk")


@pytest.fixture(scope="module")
def tokens(trained):  # noqa: F811
    """[blocks, context]: each begins with BOS."""
    lm = saesweep.language_model(saesweep.load(trained / "tiny/resid.1/topk/4"))
    random = torch.Generator().manual_seed(0)
    found = torch.randint(100, 120, (6, 24), generator=random)
    found[:, 0] = lm.tokenizer.bos
    return found


@pytest.fixture(params=ARCHS)
def sae(request, trained):  # noqa: F811
    """With SAEBench's normalisation, which is none: no mean, no scale, no sinks."""
    loaded = saesweep.load(trained / "tiny/resid.1" / request.param / "4")
    loaded.statistics = replace(loaded.statistics, mean=torch.zeros(loaded.d_in), scale=1.0, largest=float("inf"))
    return loaded


def ours(sae, tokens) -> dict[str, float]:
    """By our definitions, but of the predictions that SAEBench scores: those from ordinary tokens."""
    lm = saesweep.language_model(sae)
    subject = Subject(sae, sae.point, sae.statistics)
    subject.start(1)
    x = harvest(lm, [sae.point], tokens)[sae.point]
    subject.measure(x, torch.zeros(len(x), dtype=torch.long))
    passes, at = SplicedPasses(lm, [subject]), torch.ones_like(tokens, dtype=torch.bool)
    at[:, :2] = False
    passes.add(tokens, at)
    return {**subject.fidelity.result(), **passes.result(subject), "frequency": subject.fidelity.frequency}


def everywhere_zero(sae, tokens) -> float:
    """The cross-entropy with zeros in place of all activations, BOS's too."""
    lm, loss = saesweep.language_model(sae), CrossEntropy()
    at = torch.ones_like(tokens, dtype=torch.bool)
    at[:, :2] = False
    with edit(lm.module, sae.point, torch.zeros_like):
        Batch.of(tokens, at, lm).score(lm, loss)
    return loss.result()


def by_formula(x: Tensor, f: Tensor, x_hat: Tensor) -> dict[str, float]:
    """SAEBench's formulas, token by token: of ordinary tokens [tokens, ...]."""
    x, x_hat = x.double(), x_hat.double()
    error, mean = (x - x_hat).square().sum(1), x.mean(0)
    return {
        "l0": float((f != 0).sum(1).double().mean()),
        "mse": float(error.mean()) / len(x),
        "cossim": float(torch.stack([a @ b / (a.norm() * b.norm()) for a, b in zip(x, x_hat, strict=True)]).mean()),
        "relative_reconstruction_bias": float(x_hat.square().sum(1).mean() / (x * x_hat).sum(1).mean()),
        "explained_variance_legacy": float((1 - error / (x - mean).square().sum(1)).mean()),
        "explained_variance": float(1 - error.mean() / (x.square().sum(1).mean() - x.square().mean() ** 2)),
    }


def test_the_formulas_agree_with_our_metrics_as_the_documentation_says(sae, tokens):
    found = ours(sae, tokens)
    x = harvest(saesweep.language_model(sae), [sae.point], tokens)[sae.point].float()
    f = sae.encode(x)
    theirs = by_formula(x, f, sae.decode(f))
    assert found["l0"] == pytest.approx(theirs["l0"], rel=1e-5)
    assert found["cosine"] == pytest.approx(theirs["cossim"], rel=1e-5)
    assert found["mse"] == pytest.approx(theirs["mse"] * len(x), rel=1e-5)
    key = "relative_reconstruction_bias"
    assert found[key] == pytest.approx(theirs[key], rel=1e-5)
    for other in ("explained_variance", "explained_variance_legacy"):
        assert abs(1 - found["fvu"] - theirs[other]) > 1e-3, "docs/saebench.md says that it differs"


class Hooked:
    """Our language model with the calls of TransformerLens that SAEBench makes; its hook point is the SAE's."""

    def __init__(self, sae):
        self.module, self.point = saesweep.language_model(sae).module, sae.point

    def run_with_cache(self, tokens, names_filter, **_):
        return None, {names_filter[0]: read(self.module, [self.point], tokens)[self.point]}

    def __call__(self, tokens, **_):
        logits = self.module(input_ids=tokens).logits
        return logits, -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]

    def run_with_hooks(self, tokens, fwd_hooks, **_):
        ((_, fn),) = fwd_hooks
        with edit(self.module, self.point, lambda x: fn(x, hook=None)):
            return self(tokens)


class Store:
    """Gives the same batch each time."""

    def __init__(self, tokens):
        self.tokens, self.context_size, self.store_batch_size_prompts = tokens, tokens.shape[1], len(tokens)

    def get_batch_tokens(self, _):
        return self.tokens

    def reset_input_dataset(self):
        pass


def test_its_own_core_evaluation_of_a_saved_sae_agrees(sae, tokens):
    core = pytest.importorskip("sae_bench.evals.core.main", reason="pip install sae-bench to compare with it")
    import sae_lens
    from sae_bench.evals.core.eval_config import CoreEvalConfig
    from sae_bench.sae_bench_utils import general_utils

    saved = sae_lens.SAE.load_from_disk(str(sae.folder / "sae"), device="cpu")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Decoder weights")
        _, theirs, _ = general_utils.load_and_format_sae("ours", saved, "cpu")
    config = CoreEvalConfig(
        batch_size_prompts=len(tokens), n_eval_reconstruction_batches=1, compute_kl=True, compute_ce_loss=True,
        compute_l2_norms=True, compute_sparsity_metrics=True, compute_variance_metrics=True,
        compute_featurewise_density_statistics=True, compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True)
    special = {int(tokens[0, 0])}
    groups, features = core.run_evals(theirs, Store(tokens), Hooked(sae), config, ignore_tokens=special)
    numbers = {key: value for group in groups.values() for key, value in group.items()}
    found = ours(sae, tokens)
    same = {"l0": "l0", "cossim": "cosine", "relative_reconstruction_bias": "relative_reconstruction_bias",
            "ce_loss_without_sae": "ce_clean", "ce_loss_with_sae": "ce_sae"}
    assert {key: numbers[key] for key in same} == {key: pytest.approx(found[name], rel=1e-5) for key, name in same.items()}
    torch.testing.assert_close(torch.tensor(features["feature_density"]).double(), found["frequency"], rtol=1e-5, atol=0)
    x = read(saesweep.language_model(sae).module, [sae.point], tokens)[sae.point][:, 1:].flatten(0, 1)
    by_hand = by_formula(x, sae.encode(x), sae(x))
    assert {key: numbers[key] for key in by_hand} == {key: pytest.approx(value, rel=1e-4) for key, value in by_hand.items()}
    zero = everywhere_zero(sae, tokens)
    assert numbers["ce_loss_with_ablation"] == pytest.approx(zero, rel=1e-5)
    clean, spliced = found["ce_clean"], found["ce_sae"]
    assert numbers["ce_loss_score"] == pytest.approx((zero - spliced) / (zero - clean), rel=1e-4)
    assert len(features["max_decoder_cosine_sim"]) == sae.d_sae


def test_the_settings_that_it_reads_are_in_the_saved_file(sae):
    metadata = json.loads((sae.folder / "sae/cfg.json").read_text())["metadata"]
    assert {"model_name", "hook_name", "hook_head_index", "context_size", "prepend_bos"} <= {*metadata}
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(sae.d_sae), atol=1e-5)
