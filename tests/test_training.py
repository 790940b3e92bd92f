"""A group of SAEs on one stream: none notices the others, all go on where they stopped, and leave what they promise."""

import csv
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import warm
from safetensors.torch import load_file
from small import (
    ARCHS,
    RESOURCES,
    clear_text_caches,
    inputs_of,
    job,
    run_fit,
    train_group,
    trained,
    untrained,
    words,
    write_text,
)
from standin.cli import ENV, ROOT

from saesweep.arch.base import Step
from saesweep.data.stream import ActivationStream, Position
from saesweep.errors import UsageError
from saesweep.evaluation.metrics import dead_share
from saesweep.evaluation.recovery import recovery
from saesweep.loggers.identity import labels
from saesweep.runtime import distributed
from saesweep.storage.checkpoints import cohorts
from saesweep.sweep import group, group_setup
from saesweep.sweep.inputs import point_of
from saesweep.training import fit
from saesweep.training.member import Member
from saesweep.training.module import SAESweep
from saesweep.training.origin import require_same
from saesweep.training.running_sums import RunningSums, moments_of

SECTION_6 = {
    "l0", "fvu", "mse", "cosine", "relative_reconstruction_bias", "ce_clean", "ce_sae", "ce_zero", "ce_mean",
    "delta_loss", "loss_recovered", "dead", "frequency_over_1pct", "frequency_over_10pct", "coefficient",
}
SPLICED = {"ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered"}
LEFT = ("eval.json", "cfg.json", "sae_weights.safetensors")
PLACES = {
    "relu": ("resid", 1),
    "gated": ("mlp", 0),
    "jumprelu": ("resid", 1),
    "topk": ("attn", 2),
    "batchtopk": ("mlp", 1),
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def mixed(text, *more):
    """One job of each architecture, at four hook points."""
    return [
        job(text, f"arch={name}", f"site={site}", f"layer={layer}", *more) for name, (site, layer) in PLACES.items()
    ]


def curve(folder):
    """The rows of its metrics.csv."""
    return list(csv.DictReader((folder / "metrics.csv").open()))


def state(member: Member):
    """Weights, thresholds, counters, coefficient."""
    return member.state_dict()


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert torch.equal(found[key], wanted[key]), key


@pytest.fixture(scope="module")
def together(text, tmp_path_factory):
    return trained(mixed(text), tmp_path_factory.mktemp("together"))


def test_the_logs_name_the_place_of_an_sae_where_its_sweep_has_several(text, tmp_path):
    one, other = job(text, "arch=topk"), job(text, "arch=topk", "site=mlp", "layer=0", "seed=2")
    assert labels([one, one], []) == ["topk/4", "topk/4"]
    assert labels([one, other], []) == ["resid.1/topk/4", "mlp.0/topk/4.2"]
    folder = tmp_path / "sweep/tiny/resid.1/topk/4"
    for path in (folder, tmp_path / "sweep/tiny/mlp.0/topk/4"):
        (path / ".hydra").mkdir(parents=True)
    assert labels([one], [folder]) == ["resid.1/topk/4"]  # the other is of another group of its sweep
    (tmp_path / "sweep/gpt2/resid.1/topk/4/.hydra").mkdir(parents=True)
    assert labels([one], [folder]) == ["tiny/resid.1/topk/4"]


# Neighbours


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(PLACES)), ids=list(PLACES))
def test_trained_together_and_alone_the_saes_are_bitwise_the_same(index, text, together, tmp_path):
    alone = trained([mixed(text)[index]], tmp_path)
    assert_same(state(alone.members[0]), state(together.members[index]))


def test_the_same_seed_gives_the_same_sae_and_another_seed_another_one(text, tmp_path):
    jobs = [job(text, "arch=jumprelu", f"seed={seed}", "tokens=640") for seed in (0, 1, 0)]
    first, other, again = (state(member) for member in trained(jobs, tmp_path).members)
    assert_same(again, first)
    assert not torch.isclose(first["sae.W_dec"], other["sae.W_dec"]).any(1).all()
    starts = [state(member)["sae.W_dec"] for member in untrained(jobs)[0].members]
    assert torch.equal(starts[0], starts[2]) and not torch.allclose(starts[0], starts[1])


def test_making_an_sae_leaves_the_global_random_state_alone(text):
    before = torch.get_rng_state()
    untrained(mixed(text))
    assert torch.equal(torch.get_rng_state(), before)


class Spoiled:
    """Turns one number of a member to NaN once it has seen so many tokens, as a diverging training would."""

    def __init__(self, index, tokens, parameter="b_dec"):
        self.index, self.tokens, self.parameter = index, tokens, parameter

    def __call__(self, module: SAESweep):
        if module.tokens == self.tokens:
            getattr(module.members[self.index].sae, self.parameter).data[3] = float("nan")


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(PLACES)), ids=list(PLACES))
def test_a_member_that_turns_nan_is_stopped_with_its_token_count_and_the_others_do_not_notice(
    index, text, together, tmp_path
):
    module = trained(mixed(text), tmp_path, progress=Spoiled(index, 1280))
    failed = module.members[index].failed
    site, layer = PLACES[ARCHS[index]]
    assert failed.startswith(f"{site}.{layer}/{ARCHS[index]}/4: ") and "fvu" in failed
    assert failed.endswith("not finite after 1,920 tokens")
    for i, (found, wanted) in enumerate(zip(module.members, together.members, strict=True)):
        if i != index:
            assert not found.failed
            assert_same(state(found), state(wanted))
    rows = curve(tmp_path / f"{index}")
    assert rows[-1]["tokens"] == "1920" and rows[-1]["fvu"] == "nan"


def test_a_single_latent_that_turns_nan_is_noticed_though_it_is_merely_never_active(text, tmp_path):
    module = trained([job(text, "arch=relu")], tmp_path, progress=Spoiled(0, 1280, "b_enc"))
    assert "b_enc not finite" in module.members[0].failed


def test_a_group_whose_members_have_all_failed_ends(text, tmp_path):
    module = trained([job(text, "arch=topk")], tmp_path, progress=Spoiled(0, 640))
    assert module.members[0].failed and module.tokens < 3200


# Resuming


class Killed(RuntimeError):
    pass


class KillAfter:
    def __init__(self, tokens):
        self.tokens = tokens

    def __call__(self, module):
        if module.tokens >= self.tokens:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("save_tokens", [512, 1088])
def test_a_killed_training_goes_on_as_if_it_had_never_stopped(save_tokens, text, together, tmp_path):
    """Windows of 1,024 tokens, saved somewhere within one, killed some steps later."""
    jobs = mixed(text, f"save_tokens={save_tokens}")
    with pytest.raises(Killed):
        trained(jobs, tmp_path, progress=KillAfter(1920))
    assert [c.step * 64 for c in cohorts([tmp_path / "0"])] == [1920 // save_tokens * save_tokens]
    resumed = trained(jobs, tmp_path)
    for found, wanted in zip(resumed.members, together.members, strict=True):
        assert_same(state(found), state(wanted))
    for i in range(len(jobs)):
        tokens = [int(row["tokens"]) for row in curve(tmp_path / f"{i}")]
        assert tokens == [640, 1280, 1920, 2560, 3200]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["from the disk cache", "neither centred nor rid of sinks", "the papers' recipes"])
def test_a_killed_training_goes_on_bitwise_from_the_disk_cache_uncentred_and_with_the_papers_recipes(way, text, tmp_path):
    more, archs = {
        "from the disk cache": (["cache=disk", f"cache.folder={tmp_path / 'kept'}"], ("jumprelu", "topk")),
        "neither centred nor rid of sinks": (["activations.center=false", "activations.max_norm=null"], ("gated", "batchtopk")),
        "the papers' recipes": (["activations.center=false"], ("paper_jumprelu", "paper_gated", "paper_topk")),
    }[way]
    jobs = [job(text, f"arch={arch}", "save_tokens=1088", *more) for arch in archs]
    whole = trained(jobs, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(jobs, tmp_path / "broken", progress=KillAfter(1920))
    resumed = trained(jobs, tmp_path / "broken")
    for found, wanted in zip(resumed.members, whole.members, strict=True):
        assert_same(state(found), state(wanted))
        assert all(bool(p.isfinite().all()) for p in found.sae.parameters())


@pytest.mark.slow
def test_a_training_in_float64_goes_on_exactly(text, tmp_path):
    jobs = [job(text, "arch=batchtopk", "trainer.precision=64-true", "save_tokens=1088")]
    whole = trained(jobs, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(jobs, tmp_path / "killed", progress=KillAfter(1920))
    again = trained(jobs, tmp_path / "killed")
    assert whole.members[0].sae.W_dec.dtype == torch.float64
    assert_same(state(again), state(whole))


def test_nothing_goes_on_on_a_text_that_has_changed_and_another_dtype_is_said(tmp_path, caplog):
    text = write_text(tmp_path)
    jobs = [job(text, f"arch={arch}", "save_tokens=1088") for arch in ("relu", "topk")]
    folders = [tmp_path / "0", tmp_path / "1"]
    with pytest.raises(Killed):
        trained(jobs[1:], folders[1].parent / "topk", progress=KillAfter(1920))
    (tmp_path / "topk/0").rename(folders[1])
    before = Path(text).read_text()
    Path(text).write_text(before + json.dumps({"text": "one more document"}) + "\n")
    clear_text_caches()
    with pytest.raises(UsageError, match=r"1 was trained on other text.*\n.*text\.digest: \w+ there, \w+ now"):
        train_group(jobs, folders)
    assert not folders[0].exists()  # nothing was trained before that was noticed
    Path(text).write_text(before)
    clear_text_caches()
    require_same(jobs[1], folders[1:], RESOURCES)
    assert "not exactly" not in caplog.text
    jobs[1]["model"]["dtype"] = "bfloat16"
    require_same(jobs[1], folders[1:], RESOURCES)
    assert "model.dtype: torch.float32 there, torch.bfloat16 now" in caplog.text


def test_the_losses_do_not_repeat_a_batch_after_a_resume(text, tmp_path):
    """The curve behind the resume is the curve of a run that never stopped."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    jobs = [job(text, "arch=topk", "save_tokens=1280")]
    trained(jobs, whole)
    with pytest.raises(Killed):
        trained(jobs, broken, progress=KillAfter(1920))
    trained(jobs, broken)
    keys = ("tokens", "l0", "fvu", "loss_reconstruction", "dead", "lr")
    one, other = ([[row[key] for key in keys] for row in curve(at / "0")] for at in (whole, broken))
    assert one == other


@pytest.mark.slow
def test_a_member_that_failed_is_tried_again_from_its_last_save_and_the_others_do_not_notice(text, together, tmp_path):
    jobs, folders = mixed(text, "save_tokens=640"), [tmp_path / str(i) for i in range(len(PLACES))]
    module = trained(jobs, tmp_path, progress=Spoiled(3, 1280))
    assert module.members[3].failed.endswith("after 1,280 tokens")  # looked at before it is saved
    first, second = cohorts(folders)
    assert (first.step, first.members) == (50, [0, 1, 2, 4]) and (second.step, second.members) == (10, [3])
    train_group(jobs, folders)
    alone = tmp_path / "alone"
    train_group([jobs[3]], [alone])
    for name in LEFT[:1]:
        assert (folders[3] / name).read_bytes() == (alone / name).read_bytes()


# One step


def one_step(text, tmp_path, *more):
    """Two jumprelus with different clip after one step: the module, and the weights before it."""
    jobs = [job(text, "arch=jumprelu", "tokens=64", f"arch.optimizer.clip={clip}", *more) for clip in ("1e-3", "null")]
    module, stream, _ = untrained(jobs)
    before = {key: value.clone() for key, value in module.members.state_dict().items()}
    folders = [tmp_path / "0", tmp_path / "1"]
    run_fit(module, stream, jobs, folders)
    return module, before


def test_clipping_is_each_members_own_and_leaves_thresholds_out(text, tmp_path):
    """Adam's first moment after one step is (1 - beta1) times the gradient that it was given."""
    module, before = one_step(text, tmp_path, "arch.warm_start=0", "arch.coefficient=0.01", "arch.control.warmup=0")
    optimizer = module.trainer.optimizers[0]
    seen = [{name: optimizer.state[p]["exp_avg"] / 0.1 for name, p in m.sae.named_parameters()} for m in module.members]
    raw = seen[1]
    along = (raw["W_dec"] * before["0.sae.W_dec"]).sum(1)
    assert raw["W_dec"].any() and along.abs().max() < 1e-6
    clipped = [name for name in raw if name != "threshold"]
    size = torch.stack([raw[name].norm() for name in clipped]).norm()
    assert raw["threshold"].any() and size > 1e-3
    for name, gradient in raw.items():
        wanted = gradient if name == "threshold" else gradient * 1e-3 / size
        torch.testing.assert_close(seen[0][name], wanted, rtol=1e-4, atol=1e-8)


def test_decoders_keep_unit_norm(together):
    for member in together.members:
        torch.testing.assert_close(member.sae.W_dec.norm(dim=1), torch.ones(96))


def test_the_loss_that_backward_sees_is_the_sum_of_the_terms_that_are_logged(text, tmp_path):
    seen = []

    class Watched(SAESweep):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            seen.append(float(loss))
            return loss

    jobs = mixed(text, "tokens=1280")
    module, stream, _ = untrained(jobs)
    module.__class__ = Watched
    folders = [tmp_path / str(i) for i in range(len(jobs))]
    run_fit(module, stream, jobs, folders)
    logged = [0.0, 0.0]
    for folder in folders:
        for i, row in enumerate(curve(folder)):
            terms = {key: float(value) for key, value in row.items() if key.startswith("loss_")}
            assert terms["loss_reconstruction"] > 0
            logged[i] += sum(terms.values())
    assert [sum(seen[:10]) / 10, sum(seen[10:]) / 10] == pytest.approx(logged, rel=1e-5)


def test_the_learning_rate_rises_over_its_warm_up_and_falls_to_nothing_over_its_decay(text):
    member = untrained([job(text, "arch.optimizer={lr: 0.002, warmup: 0.1, decay: 0.2}")])[0].members[0]
    points = {0.0: 0.0, 0.05: 1e-3, 0.1: 2e-3, 0.5: 2e-3, 0.8: 2e-3, 0.9: 1e-3, 1.0: 0.0}
    assert [member.learning_rate(at) for at in points] == pytest.approx(list(points.values()))
    constant = untrained([job(text, "arch.optimizer={lr: 0.002, warmup: 0.0, decay: 0.0}")])[0].members[0]
    assert {constant.learning_rate(at) for at in points} == {0.002}


def test_every_member_has_its_own_learning_rate_and_no_step_is_of_size_zero(text, tmp_path):
    jobs = [job(text, "arch=topk", "log_tokens=64", f"arch.optimizer.lr={lr}") for lr in (1e-3, 4e-3)]
    trained(jobs, tmp_path)
    one, four = ([float(row["lr"]) for row in curve(tmp_path / f"{i}")] for i in range(2))
    assert four == pytest.approx([4 * lr for lr in one]) and min(one) > 0 and max(one) == pytest.approx(1e-3)
    assert one[:2] == pytest.approx([1e-3 / 51 / 0.03, 1e-3]) and one[-1] == pytest.approx(1e-3 / 51 / 0.2)


@pytest.mark.parametrize("name", ARCHS)
def test_the_fast_step_and_the_dense_definition_train_to_the_same_sae(name, text, tmp_path):
    jobs = [job(text, f"arch={name}", "width=400", f"dense={dense}") for dense in ("false", "true")]
    trained(jobs, tmp_path)
    fast, dense = ([(float(row["l0"]), float(row["fvu"])) for row in curve(tmp_path / f"{i}")] for i in range(2))
    assert fast[-1] == pytest.approx(dense[-1], rel=0.01)


# Counting


def test_dead_is_counted_in_tokens_so_the_batch_size_does_not_change_what_it_means(text, tmp_path):
    """Latents that can never fire are dead after dead_after tokens, in 10 steps of 64 as in 40 of 16."""
    for batch in (16, 64):
        words = ("arch=relu", f"batch_tokens={batch}", "tokens=1920", "log_tokens=320", "evaluation.dead_after=640")
        jobs = [job(text, *words)]
        module, stream, _ = untrained(jobs)
        module.members[0].sae.b_enc.data[:24] = -1e6
        folder = tmp_path / str(batch)
        run_fit(module, stream, jobs, [folder])
        since = module.members[0].sae.tokens_since_fired
        assert (since[:24] == 1920).all()
        rows = curve(folder)
        assert [int(row["tokens"]) for row in rows] == list(range(320, 1921, 320))
        dead = [float(row["dead"]) for row in rows]
        assert min(dead) >= 0.25 and dead[-1] == pytest.approx(dead_share(since, torch.tensor(1920), 640))


def test_a_latent_that_never_fires_is_dead_also_where_sinks_are_left_out_of_the_batches(text, tmp_path):
    jobs = [job(text, "arch=topk", "activations={max_norm: 1.05, window: 1024, statistics: 512, documents_per_pool: 8}")]
    module, stream, _ = untrained(jobs)
    sae = module.members[0].sae
    sae.b_enc.data[:24] = -1e6
    run_fit(module, stream, jobs, [tmp_path])
    assert 0 < sae.tokens_seen < module.tokens and (sae.tokens_since_fired[:24] == sae.tokens_seen).all()
    assert all(float(row["dead"]) >= 0.25 for row in curve(tmp_path))


def test_a_latent_is_dead_once_its_last_firing_is_as_long_ago_as_the_window():
    since = torch.tensor([0, 99, 100, 5000])
    assert dead_share(since, torch.tensor(10_000), 100) == 0.5
    assert dead_share(since, torch.tensor(10_000), 5001) == 0
    assert dead_share(torch.tensor([0, 299, 300, 300]), torch.tensor(300), 10_000) == 0.5  # never fired in a shorter run


def test_the_time_left_counts_what_is_still_to_be_read_and_what_is_still_to_be_trained_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(fit.time, "monotonic", lambda: now[0])
    stream = ActivationStream.__new__(ActivationStream)
    stream.position, stream.seconds_reading, stream.rows_read, stream.ahead = Position(10, 0, 0, {}), 0.0, 0, None
    progress, module = fit.Progress(stream), SAESweep([], steps=110, batch_tokens=64, log_tokens=64, dead_after=1)
    stream.seconds_reading, stream.rows_read, now[0] = 60.0, 3200, 60.0  # the first of two windows, and then 2 s a step
    for steps, left in ((11, 3136), (30, 1920), (60, 0)):
        now[0], module.steps_done = 60.0 + 2 * (steps - 10), steps
        stream.position = Position(steps, 0, 3200 - left, {})
        stream._rows = {point_of(job(None)): torch.empty(3200, 1)} if left else {}
        assert progress.seconds_left(module) == pytest.approx(2 * (110 - steps) + 60)


# What is left


@pytest.fixture(scope="module")
def sweep(text, tmp_path_factory):
    """A group through train_group: where it was trained, and what it returned."""
    folders = [tmp_path_factory.mktemp(name) for name in ARCHS]
    return folders, train_group([job(text, f"arch={name}") for name in ARCHS], folders)


def test_a_training_leaves_its_curve_its_numbers_and_the_sae(sweep):
    folders, results = sweep
    for folder, result in zip(folders, results, strict=True):
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert found == {
            "determined_by.json", "metrics.csv", "eval.json", "documents.csv", "frequency.csv", "statistics.safetensors",
            "sae/cfg.json", "sae/sae_weights.safetensors",
        }
        numbers = json.loads((folder / "eval.json").read_text())
        assert numbers == result and numbers.keys() >= SECTION_6 | {"sinks", "d_in", "d_sae", "tokens"}
        assert numbers["d_in"] == 48 and numbers["d_sae"] == 96 and numbers["tokens"] == 3200


def test_in_training_thresholds_stay_at_half_the_bandwidth_or_more(text, tmp_path):
    words = ("arch=jumprelu_cold", "arch.init_threshold=0", "arch.coefficient=1e-9", "tokens=640")
    sae = trained([job(text, *words)], tmp_path).members[0].sae
    assert float(sae.threshold.min()) == pytest.approx(sae.bandwidth / 2)


def test_l0_is_calibrated_without_the_sinks(text, tmp_path):
    """Most of the tokens are sinks here, which evaluation leaves out."""
    numbers = "activations={max_norm: 0.95, window: 1024, statistics: 512, documents_per_pool: 8}"
    (found,) = train_group([job(text, "arch=relu", numbers)], [tmp_path])
    assert found["sinks"] > 300 and found["l0"] == pytest.approx(4, rel=0.15)


def test_every_sae_meets_its_sparsity_and_only_those_with_a_penalty_have_a_coefficient(sweep):
    for name, numbers in zip(ARCHS, sweep[1], strict=True):
        assert numbers["l0"] <= 4 if name == "topk" else numbers["l0"] == pytest.approx(4, rel=0.15)
        assert (numbers["coefficient"] is None) == (name in ("topk", "batchtopk"))
        assert 0 < numbers["fvu"] < 1.2 and 0 <= numbers["dead"] <= 1  # 50 steps


def test_the_curve_has_a_row_every_log_tokens_and_one_at_the_end(text, tmp_path):
    trained([job(text, "arch=gated", "tokens=3200", "log_tokens=1000")], tmp_path)
    rows = curve(tmp_path / "0")
    assert [int(row["tokens"]) for row in rows] == [960, 1920, 2880, 3200]
    assert list(rows[0]) == [
        "tokens", "l0", "fvu", "loss_reconstruction", "loss_sparsity", "loss_auxiliary", "coefficient", "dead", "lr",
        "tokens_per_second",
    ]
    assert all(float(value) >= 0 for row in rows for value in row.values())


def test_a_saved_sae_reconstructs_raw_activations_as_the_eval_says(sweep, text):
    """From the file alone, by the equations of each format."""
    inputs = inputs_of(job(text), [point_of(job(text))])
    x = next(iter(inputs.calibration_rows().values()))
    for name, folder, numbers in zip(ARCHS, *sweep, strict=True):
        w = load_file(folder / "sae/sae_weights.safetensors")
        pi = (x - w["b_dec"]) @ w["W_enc"] + w.get("b_enc", torch.tensor(0.0))
        if name == "gated":
            f = (pi + w["b_gate"] > 0) * torch.relu(w["r_mag"].exp() * pi + w["b_mag"])
        elif name == "topk":
            f = torch.relu(pi) * (pi >= pi.topk(4).values[:, -1:])
        else:
            f = pi * (pi > w.get("threshold", 0.0))
        fvu = (x - f @ w["W_dec"] - w["b_dec"]).square().sum() / (x - x.mean(0)).square().sum()
        assert float(fvu) == pytest.approx(numbers["fvu"], rel=0.2)
        assert float((f > 0).sum(1).float().mean()) == pytest.approx(4, rel=0.01)  # the rows that it was calibrated on


def test_a_member_that_failed_is_returned_as_an_error_and_the_others_as_numbers(text, tmp_path, monkeypatch):
    monkeypatch.setattr(group_setup, "Progress", lambda stream: Spoiled(0, 640))
    cfgs = [job(text, f"arch={name}") for name in ("topk", "relu")]
    failed, numbers = train_group(cfgs, [tmp_path / "0", tmp_path / "1"])
    assert isinstance(failed, RuntimeError) and "topk/4" in str(failed) and "1,280 tokens" in str(failed)
    assert numbers["fvu"] < 1.2 and (tmp_path / "1/eval.json").exists()
    assert not (tmp_path / "0/eval.json").exists() and not (tmp_path / "0/sae").exists()


def test_a_training_killed_in_its_evaluation_is_not_trained_again(text, tmp_path, monkeypatch, sweep):
    def killed(*_):
        raise Killed

    (tmp_path / "topk").mkdir()
    job_of_it = job(text, "arch=topk", "save_tokens=1280")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(group, "finish", killed)
        train_group([job_of_it], [tmp_path / "topk"])
    steps = []
    monkeypatch.setattr(group_setup, "Progress", lambda stream: lambda module: steps.append(module.tokens))
    assert train_group([job_of_it], [tmp_path / "topk"]) == [sweep[1][ARCHS.index("topk")]]
    assert not steps and not (tmp_path / "topk/checkpoint").exists()


def test_a_fixed_coefficient_is_kept_and_l0_is_left_where_it_falls(text, tmp_path):
    words = ("arch=relu", "arch.coefficient=0.05")
    (numbers,) = train_group([job(text, *words)], [tmp_path])
    assert numbers["coefficient"] == pytest.approx(0.05)
    assert numbers["l0"] > 6  # far from sparsity=4


@pytest.mark.slow
def test_on_synthetic_the_dictionary_is_recovered_better_than_by_chance_and_there_is_no_language_models_loss(tmp_path):
    settings = ("arch=topk", "tokens=25_600", "width=400", "sparsity=10")
    (numbers,) = train_group([job(None, *settings)], [tmp_path])
    module, _, inputs = untrained([job(None, *settings)])
    assert numbers["recovery"] > recovery(inputs.source.dictionary, module.members[0].sae.W_dec) + 0.03
    assert {key for key in SECTION_6 if numbers[key] is None} == {*SPLICED, "coefficient"}


# Through the command line


def swept(text, folder, launcher):
    """What six SAEs leave, by path."""
    settings = [word for word in words(text) if not word.startswith("sparsity=")]
    swept = ("arch=jumprelu,gated,topk", "sparsity=4,8", "tokens=1280", f"hydra/launcher={launcher}")
    command = [sys.executable, str(ROOT / "train.py"), "-m", *settings, *swept]
    ended = warm.run(command, folder, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    place = folder / "outputs/default/tiny/resid.1"
    return {str(file.relative_to(place)): file for file in place.rglob("*") if file.name in LEFT}


@pytest.mark.slow
@pytest.mark.process
def test_the_basic_launcher_and_the_grouping_one_make_bitwise_the_same_saes(text, tmp_path):
    found = {}
    for launcher in ("basic", "grouped"):
        (tmp_path / launcher).mkdir()
        found[launcher] = swept(text, tmp_path / launcher, launcher)
    basic, grouped = found.values()
    assert basic.keys() == grouped.keys() and len(basic) == 18
    for name in basic:
        assert basic[name].read_bytes() == grouped[name].read_bytes(), name
    assert (tmp_path / "basic/outputs/default/pareto.csv").read_text().count("\n") == 7


def logged(batches, errors):
    """fvu of one row of metrics.csv over these batches."""
    sums = RunningSums()
    for batch, error in zip(batches, errors, strict=True):
        step = Step(None, None, {"reconstruction": torch.tensor(error)})
        sums.add(len(batch), moments_of(batch), torch.tensor(4.0), step, 1.0)
    return sums.means()["fvu"]


@pytest.mark.parametrize("size", [1, 3, 512])
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_the_logged_fvu_is_a_share_of_the_variance_about_the_mean_of_the_whole_row_for_any_batch_size(size, mean):
    x = torch.randn(1536, 64, generator=torch.Generator().manual_seed(0)) + mean
    wanted = (x.double() - x.double().mean(0)).square().sum() / len(x)
    batches = x.split(size)
    assert logged(batches, [0.5] * len(batches)) == pytest.approx(0.5 / float(wanted), rel=1e-12)


def test_two_ranks_that_have_half_of_each_batch_log_the_fvu_of_one(monkeypatch):
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 5
    wanted = logged(x.split(16), [0.5] * 4)
    ranks = [RunningSums(), RunningSums()]
    for batch in x.split(16):
        for rank, sums in enumerate(ranks):
            monkeypatch.setattr(distributed, "shard", lambda batch, rank=rank: batch.tensor_split(2)[rank])
            step = Step(None, None, {"reconstruction": torch.tensor(0.5)})
            sums.add(len(batch), moments_of(batch), torch.tensor(4.0), step, 0.5)

    def sum_(tensors):
        other = torch.stack([ranks[1].error, ranks[1].squares, *ranks[1].losses.values()]), ranks[1].x
        for tensor, more in zip(tensors, other, strict=True):
            tensor += more

    monkeypatch.setattr(distributed, "ranks_per_sae", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce_", sum_)
    assert ranks[0].means()["fvu"] == pytest.approx(wanted, rel=1e-12)


def test_a_row_of_tokens_that_do_not_vary_has_no_fvu():
    assert math.isnan(logged([torch.full((1, 64), 0.3)], [0.5]))


def test_a_training_on_batches_of_one_token_with_a_row_each_goes_on(text, tmp_path):
    module = trained([job(text, "arch=topk", "batch_tokens=1", "log_tokens=1", "tokens=5")], tmp_path)
    assert not module.members[0].failed
    assert [row["fvu"] for row in curve(tmp_path / "0")] == ["nan"] * 5


def test_activations_that_turn_out_not_finite_end_the_saes_of_that_place_alone_and_name_it(text, tmp_path):
    jobs = [job(text, "arch=topk", "site=resid"), job(text, "arch=topk", "site=mlp", "layer=0")]
    folders = [tmp_path / str(i) for i in range(2)]
    module, stream, inputs = untrained(jobs, folders)
    read = inputs.source.window

    def window(rows):
        found = read(rows)
        found[module.members[1].point][7] = float("nan")
        return found

    inputs.source.window = window
    run_fit(module, stream, jobs, folders)
    assert not module.members[0].failed
    assert "the activations at model.layers.0.post_feedforward_layernorm.output are not finite" in module.members[1].failed


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_a_known_dictionary_is_trained_on_and_evaluated_in_every_precision(precision, tmp_path):
    (numbers,) = train_group([job(None, "arch=gated", f"trainer.precision={precision}", "tokens=640")], [tmp_path])
    assert not isinstance(numbers, Exception) and 0 < numbers["recovery"] < 1 and numbers["fvu"] > 0
