"""Training a group of SAEs on one stream: the SAEs are independent, resume exactly, and write their files."""

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
    KillAfter,
    Killed,
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

METRICS = {
    "l0", "fvu", "mse", "cosine", "relative_reconstruction_bias", "ce_clean", "ce_sae", "ce_zero", "ce_mean",
    "delta_loss", "loss_recovered", "dead", "frequency_over_1pct", "frequency_over_10pct",
    "firings_over_10pct", "frequency_max", "frequency_of_firings", "coefficient",
}
SPLICED = {"ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered"}
RESULT_FILES = ("eval.json", "cfg.json", "sae_weights.safetensors")
HOOK_POINTS = {
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
        job(text, f"arch={name}", f"site={site}", f"layer={layer}", *more) for name, (site, layer) in HOOK_POINTS.items()
    ]


def curve(folder):
    """The rows of metrics.csv."""
    return list(csv.DictReader((folder / "metrics.csv").open()))


def state(member: Member):
    """Weights, thresholds, counters and coefficient of a member."""
    return member.state_dict()


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for key in wanted:
        assert torch.equal(found[key], wanted[key]), key


@pytest.fixture(scope="module")
def trained_group(text, tmp_path_factory):
    return trained(mixed(text), tmp_path_factory.mktemp("trained_group"))


def test_the_logs_name_the_hook_point_of_an_sae_if_its_sweep_has_several(text, tmp_path):
    one, other = job(text, "arch=topk"), job(text, "arch=topk", "site=mlp", "layer=0", "seed=2")
    assert labels([one, one], []) == ["topk/4", "topk/4"]
    assert labels([one, other], []) == ["resid.1/topk/4", "mlp.0/topk/4.2"]
    folder = tmp_path / "sweep/tiny/resid.1/topk/4"
    for path in (folder, tmp_path / "sweep/tiny/mlp.0/topk/4"):
        (path / ".hydra").mkdir(parents=True)
    assert labels([one], [folder]) == ["resid.1/topk/4"]  # its sweep has another hook point, in another group
    (tmp_path / "sweep/gpt2/resid.1/topk/4/.hydra").mkdir(parents=True)
    assert labels([one], [folder]) == ["tiny/resid.1/topk/4"]


# Independence of the members


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(HOOK_POINTS)), ids=list(HOOK_POINTS))
@pytest.mark.usefixtures("without_type_checks")
def test_saes_trained_in_a_group_and_alone_are_bitwise_the_same(index, text, trained_group, tmp_path):
    alone = trained([mixed(text)[index]], tmp_path)
    assert_same(state(alone.members[0]), state(trained_group.members[index]))


@pytest.mark.slow
def test_the_seed_determines_the_sae(text, tmp_path):
    jobs = [job(text, "arch=jumprelu", f"seed={seed}", "tokens=640") for seed in (0, 1, 0)]
    first, other, again = (state(member) for member in trained(jobs, tmp_path).members)
    assert_same(again, first)
    assert not torch.isclose(first["sae.W_dec"], other["sae.W_dec"]).any(1).all()
    starts = [state(member)["sae.W_dec"] for member in untrained(jobs)[0].members]
    assert torch.equal(starts[0], starts[2]) and not torch.allclose(starts[0], starts[1])


@pytest.mark.slow
def test_building_an_sae_keeps_the_global_random_state(text):
    before = torch.get_rng_state()
    untrained(mixed(text))
    assert torch.equal(torch.get_rng_state(), before)


class SetNaN:
    """Sets one weight of a member to NaN after `tokens` tokens, like a diverging training."""

    def __init__(self, index, tokens, parameter="b_dec"):
        self.index, self.tokens, self.parameter = index, tokens, parameter

    def __call__(self, module: SAESweep):
        if module.tokens == self.tokens:
            getattr(module.members[self.index].sae, self.parameter).data[3] = float("nan")


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(HOOK_POINTS)), ids=list(HOOK_POINTS))
@pytest.mark.usefixtures("without_type_checks")
def test_a_member_that_becomes_nan_fails_alone_with_its_token_count(
    index, text, trained_group, tmp_path
):
    module = trained(mixed(text), tmp_path, progress=SetNaN(index, 1280))
    failed = module.members[index].failed
    site, layer = HOOK_POINTS[ARCHS[index]]
    assert failed.startswith(f"{site}.{layer}/{ARCHS[index]}/4: ") and "fvu" in failed
    assert failed.endswith("not finite after 1,920 tokens")
    for i, (found, wanted) in enumerate(zip(module.members, trained_group.members, strict=True)):
        if i != index:
            assert not found.failed
            assert_same(state(found), state(wanted))
    rows = curve(tmp_path / f"{index}")
    assert rows[-1]["tokens"] == "1920" and rows[-1]["fvu"] == "nan"


@pytest.mark.slow
def test_a_nan_in_a_latent_that_is_never_active_is_detected(text, tmp_path):
    module = trained([job(text, "arch=relu")], tmp_path, progress=SetNaN(0, 1280, "b_enc"))
    assert "b_enc not finite" in module.members[0].failed


def test_a_group_whose_members_have_all_failed_stops(text, tmp_path):
    module = trained([job(text, "arch=topk")], tmp_path, progress=SetNaN(0, 640))
    assert module.members[0].failed and module.tokens < 3200


# Resuming


@pytest.mark.slow
@pytest.mark.parametrize("save_tokens", [512, 1088])
@pytest.mark.usefixtures("without_type_checks")
def test_a_killed_training_resumes_bitwise(save_tokens, text, trained_group, tmp_path):
    """With windows of 1,024 tokens, checkpoints within one, and a kill some steps later."""
    jobs = mixed(text, f"save_tokens={save_tokens}")
    with pytest.raises(Killed):
        trained(jobs, tmp_path, progress=KillAfter(1920))
    assert [c.step * 64 for c in cohorts([tmp_path / "0"])] == [1920 // save_tokens * save_tokens]
    resumed = trained(jobs, tmp_path)
    for found, wanted in zip(resumed.members, trained_group.members, strict=True):
        assert_same(state(found), state(wanted))
    for i in range(len(jobs)):
        tokens = [int(row["tokens"]) for row in curve(tmp_path / f"{i}")]
        assert tokens == [640, 1280, 1920, 2560, 3200]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["from the disk cache", "without center and max_norm", "the papers' recipes"])
def test_a_killed_training_with_other_settings_resumes_bitwise(case, text, tmp_path):
    more, archs = {
        "from the disk cache": (["cache=disk", f"cache.folder={tmp_path / 'kept'}"], ("jumprelu", "topk")),
        "without center and max_norm": (["activations.center=false", "activations.max_norm=null"], ("gated", "batchtopk")),
        "the papers' recipes": (["activations.center=false"], ("paper_jumprelu", "paper_gated", "paper_topk")),
    }[case]
    jobs = [job(text, f"arch={arch}", "save_tokens=1088", *more) for arch in archs]
    whole = trained(jobs, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(jobs, tmp_path / "interrupted", progress=KillAfter(1920))
    resumed = trained(jobs, tmp_path / "interrupted")
    for found, wanted in zip(resumed.members, whole.members, strict=True):
        assert_same(state(found), state(wanted))
        assert all(bool(p.isfinite().all()) for p in found.sae.parameters())


@pytest.mark.slow
def test_a_clip_by_the_step_before_resumes_bitwise_and_is_each_saes_own(text, tmp_path):
    few = ("tokens=1280", "save_tokens=512", "arch.optimizer.clip=0.01")
    jobs = [job(text, f"arch={arch}", *few, "arch.optimizer.clip_by_previous=true") for arch in ("jumprelu", "topk")]
    whole = trained(jobs, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(jobs, tmp_path / "killed", progress=KillAfter(640))
    assert_same(state(trained(jobs, tmp_path / "killed")), state(whole))
    assert_same(state(trained(jobs[1:], tmp_path / "alone").members[0]), state(whole.members[1]))
    usual = trained([job(text, "arch=topk", *few, "arch.optimizer.clip_by_previous=false")], tmp_path / "usual")
    assert not torch.equal(usual.members[0].sae.W_enc, whole.members[1].sae.W_enc)


@pytest.mark.slow
def test_a_training_in_float64_resumes_bitwise(text, tmp_path):
    jobs = [job(text, "arch=batchtopk", "trainer.precision=64-true", "save_tokens=1088")]
    whole = trained(jobs, tmp_path / "whole")
    with pytest.raises(Killed):
        trained(jobs, tmp_path / "killed", progress=KillAfter(1920))
    again = trained(jobs, tmp_path / "killed")
    assert whole.members[0].sae.W_dec.dtype == torch.float64
    assert_same(state(again), state(whole))


@pytest.mark.slow
def test_a_changed_text_refuses_to_resume_and_another_dtype_is_a_warning(tmp_path, caplog):
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
    assert not folders[0].exists()  # refused before any training
    Path(text).write_text(before)
    clear_text_caches()
    require_same(jobs[1], folders[1:], RESOURCES)
    assert "not exactly" not in caplog.text
    jobs[1]["model"]["dtype"] = "bfloat16"
    require_same(jobs[1], folders[1:], RESOURCES)
    assert "model.dtype: torch.float32 there, torch.bfloat16 now" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_a_resumed_curve_equals_an_uninterrupted_one(text, tmp_path):
    """So no batch is trained on twice."""
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    jobs = [job(text, "arch=topk", "save_tokens=1280")]
    trained(jobs, whole)
    with pytest.raises(Killed):
        trained(jobs, interrupted, progress=KillAfter(1920))
    trained(jobs, interrupted)
    keys = ("tokens", "l0", "fvu", "loss_reconstruction", "dead", "lr")
    one, other = ([[row[key] for key in keys] for row in curve(at / "0")] for at in (whole, interrupted))
    assert one == other


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_a_failed_member_resumes_alone_from_its_last_checkpoint(text, trained_group, tmp_path):
    jobs, folders = mixed(text, "save_tokens=640"), [tmp_path / str(i) for i in range(len(HOOK_POINTS))]
    module = trained(jobs, tmp_path, progress=SetNaN(3, 1280))
    assert module.members[3].failed.endswith("after 1,280 tokens")  # checked before a checkpoint is written
    first, second = cohorts(folders)
    assert (first.step, first.members) == (50, [0, 1, 2, 4]) and (second.step, second.members) == (10, [3])
    train_group(jobs, folders)
    alone = tmp_path / "alone"
    train_group([jobs[3]], [alone])
    for name in RESULT_FILES[:1]:
        assert (folders[3] / name).read_bytes() == (alone / name).read_bytes()


# One step


def one_step(text, tmp_path, *more):
    """Two JumpReLUs that differ in `clip` after one step: the module, and the weights before the step."""
    jobs = [job(text, "arch=jumprelu", "tokens=64", f"arch.optimizer.clip={clip}", *more) for clip in ("1e-3", "null")]
    module, stream, _ = untrained(jobs)
    before = {key: value.clone() for key, value in module.members.state_dict().items()}
    folders = [tmp_path / "0", tmp_path / "1"]
    run_fit(module, stream, jobs, folders)
    return module, before


def test_clipping_is_per_member_and_excludes_thresholds(text, tmp_path):
    """Adam's first moment after one step is (1 - beta1) times the gradient."""
    module, before = one_step(text, tmp_path, "arch.warm_start=0", "arch.coefficient=0.01", "arch.control.warmup=0")
    optimizer = module.trainer.optimizers[0]
    beta1 = optimizer.param_groups[0]["betas"][0]
    seen = [{name: optimizer.state[p]["exp_avg"] / (1 - beta1) for name, p in m.sae.named_parameters()} for m in module.members]
    raw = seen[1]
    along = (raw["W_dec"] * before["0.sae.W_dec"]).sum(1)
    assert raw["W_dec"].any() and along.abs().max() < 1e-6
    clipped = [name for name in raw if name != "threshold"]
    size = torch.stack([raw[name].norm() for name in clipped]).norm()
    assert raw["threshold"].any() and size > 1e-3
    for name, gradient in raw.items():
        wanted = gradient if name == "threshold" else gradient * 1e-3 / size
        torch.testing.assert_close(seen[0][name], wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.slow
def test_decoder_rows_keep_unit_norm(trained_group):
    for member in trained_group.members:
        torch.testing.assert_close(member.sae.W_dec.norm(dim=1), torch.ones(96))


@pytest.mark.slow
def test_the_training_loss_is_the_sum_of_the_logged_losses(text, tmp_path):
    seen = []

    class Recording(SAESweep):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            seen.append(float(loss))
            return loss

    jobs = mixed(text, "tokens=1280")
    module, stream, _ = untrained(jobs)
    module.__class__ = Recording
    folders = [tmp_path / str(i) for i in range(len(jobs))]
    run_fit(module, stream, jobs, folders)
    logged = [0.0, 0.0]
    for folder in folders:
        for i, row in enumerate(curve(folder)):
            terms = {key: float(value) for key, value in row.items() if key.startswith("loss_")}
            assert terms["loss_reconstruction"] > 0
            logged[i] += sum(terms.values())
    assert [sum(seen[:10]) / 10, sum(seen[10:]) / 10] == pytest.approx(logged, rel=1e-5)


def test_the_learning_rate_rises_from_0_in_warmup_and_falls_to_0_in_decay(text):
    member = untrained([job(text, "arch.optimizer={lr: 0.002, warmup: 0.1, decay: 0.2}")])[0].members[0]
    points = {0.0: 0.0, 0.05: 1e-3, 0.1: 2e-3, 0.5: 2e-3, 0.8: 2e-3, 0.9: 1e-3, 1.0: 0.0}
    assert [member.learning_rate(at) for at in points] == pytest.approx(list(points.values()))
    constant = untrained([job(text, "arch.optimizer={lr: 0.002, warmup: 0.0, decay: 0.0}")])[0].members[0]
    assert {constant.learning_rate(at) for at in points} == {0.002}


@pytest.mark.slow
def test_every_member_has_its_own_learning_rate_above_0(text, tmp_path):
    jobs = [job(text, "arch=topk", "log_tokens=64", f"arch.optimizer.lr={lr}") for lr in (1e-3, 4e-3)]
    trained(jobs, tmp_path)
    one, four = ([float(row["lr"]) for row in curve(tmp_path / f"{i}")] for i in range(2))
    assert four == pytest.approx([4 * lr for lr in one]) and min(one) > 0 and max(one) == pytest.approx(1e-3)
    assert one[:2] == pytest.approx([1e-3 / 51 / 0.03, 1e-3]) and one[-1] == pytest.approx(1e-3 / 51 / 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHS)
def test_the_sparse_and_the_dense_step_train_to_the_same_metrics(name, text, tmp_path):
    jobs = [job(text, f"arch={name}", "width=400", f"dense={dense}") for dense in ("false", "true")]
    trained(jobs, tmp_path)
    fast, dense = ([(float(row["l0"]), float(row["fvu"])) for row in curve(tmp_path / f"{i}")] for i in range(2))
    assert fast[-1] == pytest.approx(dense[-1], rel=0.01)


# Dead latents and progress


@pytest.mark.slow
def test_dead_latents_are_counted_in_tokens_for_any_batch_size(text, tmp_path):
    """Latents that never fire are dead after `dead_after` tokens: 10 steps of 64, or 40 of 16."""
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


@pytest.mark.slow
def test_a_latent_that_never_fires_is_dead_also_if_batches_exclude_sinks(text, tmp_path):
    jobs = [job(text, "arch=topk", "activations={max_norm: 1.05, window: 1024, statistics: 512, documents_per_pool: 8}")]
    module, stream, _ = untrained(jobs)
    sae = module.members[0].sae
    sae.b_enc.data[:24] = -1e6
    run_fit(module, stream, jobs, [tmp_path])
    assert 0 < sae.tokens_seen < module.tokens and (sae.tokens_since_fired[:24] == sae.tokens_seen).all()
    assert all(float(row["dead"]) >= 0.25 for row in curve(tmp_path))


def test_a_latent_is_dead_if_it_has_not_fired_for_dead_after_tokens():
    since = torch.tensor([0, 99, 100, 5000])
    assert dead_share(since, torch.tensor(10_000), 100) == 0.5
    assert dead_share(since, torch.tensor(10_000), 5001) == 0
    assert dead_share(torch.tensor([0, 299, 300, 300]), torch.tensor(300), 10_000) == 0.5  # in a shorter run: never fired


@pytest.mark.parametrize("passes", [1, 2])
def test_the_remaining_time_includes_harvest_and_training(monkeypatch, passes):
    now = [0.0]
    monkeypatch.setattr(fit.time, "monotonic", lambda: now[0])
    stream = ActivationStream.__new__(ActivationStream)
    stream.position, stream.seconds_reading, stream.rows_read, stream.ahead = Position(10, 0, 0, {}), 0.0, 0, None
    stream.passes, stream._rows_per_pass = passes, 3200 // passes
    progress, module = fit.Progress(stream), SAESweep([], steps=110, batch_tokens=64, log_tokens=64, dead_after=1)
    stream.seconds_reading, stream.rows_read, now[0] = 60.0, 3200 // passes, 60.0  # the first of two windows; then a step 2 s
    for steps, left in ((11, 3136), (30, 1920), (60, 0)):
        now[0], module.steps_done = 60.0 + 2 * (steps - 10), steps
        stream.position = Position(steps, 0, 3200 - left, {})
        stream._rows = {point_of(job(None)): torch.empty(3200 // passes, 1)} if left else {}
        assert progress.seconds_left(module) == pytest.approx(2 * (110 - steps) + 60)


# Files and results


@pytest.fixture(scope="module")
def sweep(text, tmp_path_factory):
    """The folders and results of a group trained by train_group."""
    folders = [tmp_path_factory.mktemp(name) for name in ARCHS]
    return folders, train_group([job(text, f"arch={name}") for name in ARCHS], folders)


@pytest.mark.slow
def test_a_training_writes_its_curve_its_metrics_and_the_sae(sweep):
    folders, results = sweep
    for folder, result in zip(folders, results, strict=True):
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert found == {
            "determined_by.json", "metrics.csv", "eval.json", "documents.csv", "frequency.csv", "statistics.safetensors",
            "sae/cfg.json", "sae/sae_weights.safetensors",
        }
        numbers = json.loads((folder / "eval.json").read_text())
        assert numbers == result and numbers.keys() >= METRICS | {"sinks", "d_in", "d_sae", "tokens"}
        assert numbers["d_in"] == 48 and numbers["d_sae"] == 96 and numbers["tokens"] == 3200


@pytest.mark.slow
def test_thresholds_stay_at_half_the_bandwidth_or_more_during_training(text, tmp_path):
    words = ("arch=jumprelu_cold", "arch.init_threshold=0", "arch.coefficient=1e-9", "tokens=640")
    sae = trained([job(text, *words)], tmp_path).members[0].sae
    assert float(sae.threshold.min()) == pytest.approx(sae.bandwidth / 2)


@pytest.mark.slow
def test_l0_is_calibrated_without_the_sinks(text, tmp_path):
    """Most tokens are sinks here, which the evaluation excludes."""
    numbers = "activations={max_norm: 0.95, window: 1024, statistics: 512, documents_per_pool: 8}"
    (found,) = train_group([job(text, "arch=relu", numbers)], [tmp_path])
    assert found["sinks"] > 300 and found["l0"] == pytest.approx(4, rel=0.15)


@pytest.mark.slow
def test_every_sae_meets_its_target_l0_and_has_a_coefficient_if_it_has_a_sparsity_loss(sweep):
    for name, numbers in zip(ARCHS, sweep[1], strict=True):
        assert numbers["l0"] <= 4 if name == "topk" else numbers["l0"] == pytest.approx(4, rel=0.15)
        assert (numbers["coefficient"] is None) == (name in ("topk", "batchtopk"))
        assert 0 < numbers["fvu"] < 1.2 and 0 <= numbers["dead"] <= 1  # 50 steps


@pytest.mark.slow
def test_the_curve_has_a_row_every_log_tokens_and_one_at_the_end(text, tmp_path):
    trained([job(text, "arch=gated", "tokens=3200", "log_tokens=1000")], tmp_path)
    rows = curve(tmp_path / "0")
    assert [int(row["tokens"]) for row in rows] == [960, 1920, 2880, 3200]
    assert list(rows[0]) == [
        "tokens", "l0", "fvu", "loss_reconstruction", "loss_sparsity", "loss_auxiliary", "coefficient", "dead", "lr",
        "tokens_per_second",
    ]
    assert all(float(value) >= 0 for row in rows for value in row.values())


@pytest.mark.slow
def test_a_saved_sae_reproduces_its_fvu_on_raw_activations(sweep, text):
    """Computed from the weights file alone, by the equations of each format."""
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
        assert float((f > 0).sum(1).float().mean()) == pytest.approx(4, rel=0.01)  # these are its calibration rows


@pytest.mark.slow
def test_train_group_returns_an_error_for_a_failed_member_and_metrics_for_the_others(text, tmp_path, monkeypatch):
    monkeypatch.setattr(group_setup, "Progress", lambda stream: SetNaN(0, 640))
    cfgs = [job(text, f"arch={name}") for name in ("topk", "relu")]
    failed, numbers = train_group(cfgs, [tmp_path / "0", tmp_path / "1"])
    assert isinstance(failed, RuntimeError) and "topk/4" in str(failed) and "1,280 tokens" in str(failed)
    assert numbers["fvu"] < 1.2 and (tmp_path / "1/eval.json").exists()
    assert not (tmp_path / "0/eval.json").exists() and not (tmp_path / "0/sae").exists()


@pytest.mark.slow
def test_a_training_killed_in_its_evaluation_is_not_repeated(text, tmp_path, monkeypatch, sweep):
    def killed(*_):
        raise Killed

    (tmp_path / "topk").mkdir()
    cfg = job(text, "arch=topk", "save_tokens=1280")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(group, "finish", killed)
        train_group([cfg], [tmp_path / "topk"])
    steps = []
    monkeypatch.setattr(group_setup, "Progress", lambda stream: lambda module: steps.append(module.tokens))
    assert train_group([cfg], [tmp_path / "topk"]) == [sweep[1][ARCHS.index("topk")]]
    assert not steps and not (tmp_path / "topk/checkpoint").exists()


@pytest.mark.slow
def test_with_a_fixed_coefficient_l0_is_not_calibrated(text, tmp_path):
    words = ("arch=relu", "arch.coefficient=0.05")
    (numbers,) = train_group([job(text, *words)], [tmp_path])
    assert numbers["coefficient"] == pytest.approx(0.05)
    assert numbers["l0"] > 6  # far from sparsity=4


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_the_synthetic_dictionary_is_recovered_and_has_no_cross_entropy(tmp_path):
    settings = ("arch=topk", "tokens=25_600", "width=400", "sparsity=10")
    (numbers,) = train_group([job(None, *settings)], [tmp_path])
    module, _, inputs = untrained([job(None, *settings)])
    assert numbers["recovery"] > recovery(inputs.source.dictionary, module.members[0].sae.W_dec) + 0.03
    assert {key for key in METRICS if numbers[key] is None} == {*SPLICED, "coefficient"}


# Through the command line


def swept(text, folder, launcher):
    """The result files of six SAEs, by path."""
    settings = [word for word in words(text) if not word.startswith("sparsity=")]
    swept = ("arch=jumprelu,gated,topk", "sparsity=4,8", "tokens=1280", f"hydra/launcher={launcher}")
    command = [sys.executable, str(ROOT / "train.py"), "-m", *settings, *swept]
    ended = warm.run(command, folder, ENV)
    assert ended.returncode == 0, ended.stderr[-3000:]
    place = folder / "outputs/default/tiny/resid.1"
    return {str(file.relative_to(place)): file for file in place.rglob("*") if file.name in RESULT_FILES}


@pytest.mark.slow
@pytest.mark.process
def test_the_basic_and_the_grouped_launcher_train_bitwise_the_same_saes(text, tmp_path):
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
    """The fvu in one row of metrics.csv over these batches."""
    sums = RunningSums()
    for batch, error in zip(batches, errors, strict=True):
        sums.add(len(batch), moments_of(batch), torch.tensor(4.0), {"reconstruction": torch.tensor(error)}, 1.0)
    return sums.means()["fvu"]


@pytest.mark.parametrize("size", [1, 3, 512])
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_the_logged_fvu_uses_the_variance_of_the_whole_row(size, mean):
    x = torch.randn(1536, 64, generator=torch.Generator().manual_seed(0)) + mean
    wanted = (x.double() - x.double().mean(0)).square().sum() / len(x)
    batches = x.split(size)
    assert logged(batches, [0.5] * len(batches)) == pytest.approx(0.5 / float(wanted), rel=1e-12)


def test_two_ranks_with_half_of_each_batch_log_the_fvu_of_one(monkeypatch):
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) + 5
    wanted = logged(x.split(16), [0.5] * 4)
    ranks = [RunningSums(), RunningSums()]
    for batch in x.split(16):
        for rank, sums in enumerate(ranks):
            monkeypatch.setattr(distributed, "shard", lambda batch, rank=rank: batch.tensor_split(2)[rank])
            sums.add(len(batch), moments_of(batch), torch.tensor(4.0), {"reconstruction": torch.tensor(0.5)}, 0.5)

    def sum_(tensors):
        other = torch.stack([ranks[1].error, ranks[1].squares, *ranks[1].losses.values()]), ranks[1].x
        for tensor, more in zip(tensors, other, strict=True):
            tensor += more

    monkeypatch.setattr(distributed, "ranks_per_sae", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce_", sum_)
    assert ranks[0].means()["fvu"] == pytest.approx(wanted, rel=1e-12)


def test_a_row_of_constant_activations_has_no_fvu():
    assert math.isnan(logged([torch.full((1, 64), 0.3)], [0.5]))


def test_a_training_with_batches_of_one_token_does_not_fail(text, tmp_path):
    module = trained([job(text, "arch=topk", "batch_tokens=1", "log_tokens=1", "tokens=5")], tmp_path)
    assert not module.members[0].failed
    assert [row["fvu"] for row in curve(tmp_path / "0")] == ["nan"] * 5


@pytest.mark.slow
def test_activations_that_are_not_finite_fail_only_the_saes_of_their_hook_point(text, tmp_path):
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


SLOW = pytest.mark.slow


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=SLOW), pytest.param("64-true", marks=SLOW)])
def test_synthetic_activations_are_trained_on_and_evaluated_in_every_precision(precision, tmp_path):
    (numbers,) = train_group([job(None, "arch=gated", f"trainer.precision={precision}", "tokens=640")], [tmp_path])
    assert not isinstance(numbers, Exception) and 0 < numbers["recovery"] < 1 and numbers["fvu"] > 0
