"""The contract of the architectures, for every YAML of conf/arch; a new YAML is tested without a change here."""
import csv
import re
import shlex
import subprocess
import sys
import textwrap
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import warm
from hydra.utils import get_class
from omegaconf import OmegaConf
from safetensors.torch import load_file
from small import CONF, SIZES, job, trained
from standin.cli import ENV, ROOT
from torch import distributed as dist

from saesweep.arch import base, latents
from saesweep.arch.hierarchical_topk import HierarchicalTopK
from saesweep.arch.jumprelu import JumpReLU
from saesweep.arch.ops import entries
from saesweep.arch.ops.plain import tangent
from saesweep.arch.relu import ReLU
from saesweep.arch.topk import TopK
from saesweep.config.check import check
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.storage import sae_format
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.contract import require_contract
from saesweep.training.l0_controller import Coefficient
from saesweep.training.member import Member
from saesweep.training.optimizer import UnitRowAdam, parameter_group

YAMLS = sorted(file.stem for file in (CONF / "arch").glob("*.yaml"))
D_IN, D_SAE, K, BATCH = 12, 96, 5, 64
COEFFICIENT = torch.tensor(0.03, dtype=torch.float64)
PROGRESS = (0.0, 0.3, 0.49, 0.5, 0.51, 1.0)
DEAD = 10**9  # tokens without firing


@cache
def settings(name):
    """The config of a job of this YAML."""
    cfg = job(None, f"arch={name}")
    check(cfg)
    return cfg


def untrained(name, d_in=D_IN, d_sae=D_SAE, k=K, seed=0):
    return build(settings(name) | {"width": d_sae, "sparsity": k, "seed": seed}, d_in)


def make(name, **sizes):
    """An SAE in fp64 with every parameter perturbed and a third of the latents dead."""
    torch.manual_seed(0)
    sae = untrained(name, **sizes).double()
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    sae.constrain_()
    sae.tokens_since_fired[::3] = DEAD
    return sae


def data(seed=1, batch=BATCH, d_in=D_IN):
    x = torch.randn(batch, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.square().sum(1).mean().sqrt()


def class_of(name):
    """Without composing, which each worker would wait for when it collects the tests."""
    file = OmegaConf.load(CONF / "arch" / f"{name}.yaml")
    return get_class(file._target_) if "_target_" in file else class_of(file.defaults[0])


every_yaml = pytest.mark.parametrize("name", YAMLS)
THRESHOLDED = [name for name in YAMLS if class_of(name).thresholded]


def test_the_yamls_are_found_and_only_topk_has_no_thresholds():
    assert {"relu", "gated", "jumprelu", "topk", "batchtopk", "jumprelu_cold", "paper_topk"} <= {*YAMLS}
    assert {type(untrained(name)) for name in {*YAMLS} - {*THRESHOLDED}} == {TopK, HierarchicalTopK}


# The step


@every_yaml
def test_a_yaml_has_the_name_of_its_file_and_the_seed_determines_the_initial_weights(name):
    assert settings(name)["arch"]["name"] == name
    first, again, other = (untrained(name, seed=seed) for seed in (0, 0, 1))
    for key, tensor in first.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)
    assert not torch.isclose(first.W_dec, other.W_dec).any(1).all()


@every_yaml
def test_the_losses_have_the_same_keys_at_every_step(name):
    sae = make(name)
    steps = [sae.step(data(), COEFFICIENT, progress) for progress in PROGRESS]
    sae.tokens_since_fired.zero_()  # none is dead
    steps.append(sae.step(data(), COEFFICIENT, 1.0))
    assert all(list(one.losses) == list(next_.losses) for one, next_ in pairwise(steps))
    for loss in (loss for step in steps for loss in step.losses.values()):
        assert loss.shape == () and loss.isfinite()


@pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])
@every_yaml
def test_the_reconstruction_loss_is_the_squared_error_of_the_decoded_latents(name, dense, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    sae, x = make(name), data()
    sae.execution.dense = dense
    for progress in PROGRESS:
        step = sae.step(x, COEFFICIENT, progress)
        assert (step.latents.entries is None) == dense
        torch.testing.assert_close(step.x_hat, sae.decode(step.latents.dense()))
        torch.testing.assert_close(step.losses["reconstruction"], (x - step.x_hat).square().sum(1).mean())
        assert step.losses["reconstruction"].requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])
@pytest.mark.parametrize("progress", [0.0, 1.0])
@every_yaml
def test_a_sparse_step_has_the_values_and_gradients_of_a_dense_one(name, progress, dtype, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    found = {}
    for dense in (False, True):
        sae = make(name).to(dtype)
        sae.execution.dense = dense
        with torch.no_grad():
            sae.b_enc -= 1.2 / D_IN**0.5  # few are active
        step = sae.step(data().to(dtype), COEFFICIENT.to(dtype), progress)
        assert (step.latents.entries is None) == dense
        sum(step.losses.values()).backward()
        gradients = {f"d{key}": p.grad for key, p in sae.named_parameters() if p.grad is not None}
        found[dense] = {"f": step.latents.dense().detach(), "x_hat": step.x_hat, **step.losses, **gradients}
    assert found[True]["f"].any() and found[True].keys() == found[False].keys()
    rounding = 1e-4 if dtype == torch.float32 else 1e-9
    for key, wanted in found[True].items():
        atol = 0.1 * rounding * float(wanted.detach().abs().max())
        torch.testing.assert_close(found[False][key], wanted, rtol=rounding, atol=atol, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("dead", [False, True], ids=["all alive", "some dead"])
@every_yaml
def test_deferred_gradients_lead_to_the_same_weights(name, dead, clip, monkeypatch):
    """The gradients of AuxK in dead latents are not deferred, but added."""
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    ends = {}
    for deferred in (False, True):
        sae = make(name).float()
        with torch.no_grad():
            sae.b_enc -= 1.2 / D_IN**0.5  # few are active
        optimizer = UnitRowAdam([parameter_group(sae, {"lr": 0.01, "betas": (0.5, 0.999), "eps": 1e-8, "clip": clip})])
        for seed in range(3):
            sae.execution.deferred_gradients = [] if deferred else None
            sae.tokens_since_fired.zero_()[::3] = DEAD if dead else 0
            sum(sae.step(data(seed).float(), COEFFICIENT.float(), 1.0).losses.values()).backward()
            waiting = sae.execution.deferred_gradients or []
            assert (len(waiting) >= 2) == deferred
            optimizer.step_group(0, waiting)
        ends[deferred] = dict(sae.named_parameters())
    for key, wanted in ends[False].items():
        torch.testing.assert_close(ends[True][key], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dense", [False, True])
@every_yaml
def test_a_step_multiplies_with_the_encoder_once(name, dense, monkeypatch):
    """Gated's gate and magnitude share one product."""
    sae, read = make(name), []
    sae.execution.dense = dense
    sae.tokens_since_fired.zero_()  # AuxK reads the rows of dead latents
    known = latents.encode
    monkeypatch.setattr(base, "encode", lambda *given: read.append(1) or known(*given))
    sae.step(data(), COEFFICIENT, 1.0)
    assert len(read) == 1


@every_yaml
def test_the_decoder_starts_and_stays_on_the_unit_sphere_and_its_gradient_is_tangent(name):
    sae = untrained(name).double()
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    optimizer = UnitRowAdam([parameter_group(sae, {"lr": 0.01, "betas": (0.0, 0.999), "eps": 1e-8, "clip": 1.0})])
    for seed in range(3):
        sum(sae.step(data(seed), COEFFICIENT, 1.0).losses.values()).backward()
        assert (tangent(sae.W_dec.grad, sae.W_dec) * sae.W_dec).sum(1).abs().max() < 1e-6
        optimizer.step()
        optimizer.zero_grad()
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE, dtype=torch.float64))


# Encoding, decoding and export


@every_yaml
def test_encode_and_decode_give_the_latents_and_reconstruction_of_training(name):
    sae, x = make(name), data()
    step = sae.step(x, COEFFICIENT, 1.0)
    if hasattr(sae, "batch_threshold"):
        sae.batch_threshold.value.mul_(1 - 1e-9)  # it is one of these pre-activations
    f = sae.encode(x)
    assert (f >= 0).all()
    torch.testing.assert_close(f, step.latents.dense())
    torch.testing.assert_close(sae(x), step.x_hat)
    torch.testing.assert_close(step.latents.l0.double(), (f > 0).double().sum(1).mean())
    assert torch.equal(step.latents.fired, (f > 0).any(0))


@every_yaml
def test_the_time_since_a_latent_fired_is_counted_in_tokens(name):
    sae = make(name)
    sae.tokens_since_fired.zero_()
    step = sae.step(data(), COEFFICIENT, 1.0)
    sae.count_fired_(step.latents.fired, step.latents.shape[0])
    assert torch.equal(sae.tokens_since_fired == BATCH, ~step.latents.fired)
    assert torch.equal(sae.tokens_since_fired == 0, step.latents.fired)


@every_yaml
def test_encode_takes_any_leading_dimensions(name):
    sae, x = make(name), data()
    f = sae.encode(x)
    torch.testing.assert_close(sae.encode(x.view(2, -1, D_IN)).flatten(0, 1), f)
    torch.testing.assert_close(sae(x.view(2, -1, D_IN)).flatten(0, 1), sae.decode(f))
    torch.testing.assert_close(sae.encode(x[0]), f[0])


@every_yaml
def test_a_folded_sae_on_raw_activations_equals_the_unfolded_one_on_normalised_ones(name):
    sae, x = make(name), data()
    sae.step(data(0), COEFFICIENT, 1.0)  # BatchTopK learns its threshold, which is one of these pre-activations
    mean, scale = torch.randn(D_IN, dtype=torch.float64), 7.3
    f, x_hat = sae.encode(x), sae(x)
    sae.requires_grad_(False).fold_(mean, scale)
    raw = x * scale + mean
    torch.testing.assert_close(sae.encode(raw), scale * f, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(sae(raw), x_hat * scale + mean, rtol=1e-9, atol=1e-9)


@every_yaml
def test_an_exported_sae_loads_and_encodes_the_same_in_saelens_format(name, tmp_path):
    sae, x = make(name), data().float()
    sae.step(data(0), COEFFICIENT, 1.0)  # BatchTopK learns its threshold
    sae = sae.float().requires_grad_(False)
    sae_format.save(tmp_path, sae, settings(name), {"l0": 5.0, "dead": 0.0})
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    other = untrained(name, seed=1).requires_grad_(False)
    assert not torch.equal(other.encode(x), sae.encode(x))
    other.load_exported_(tensors)
    torch.testing.assert_close(other.encode(x), sae.encode(x))
    torch.testing.assert_close(other(x), sae(x))
    read = sae_format.encoded(sae.saved_as, tensors, K, x)
    if read is None:  # SAELens has no such format and refuses the file
        assert sae.saved_as == name
    else:
        torch.testing.assert_close(read, sae.encode(x), rtol=1e-5, atol=1e-5)


# Calibration

ROWS = 3000
X = data(1, ROWS, 16).float()


def uncalibrated(name, k):
    """An SAE before calibration, whose latents differ in bias, threshold and magnitude."""
    sae = make(name, d_in=16, d_sae=128, k=k).float().requires_grad_(False)
    sae.step(0.5 * X, COEFFICIENT.float(), 1.0)  # a running threshold, for smaller inputs
    return sae


@pytest.mark.parametrize("target", [1, 6, 30])
@pytest.mark.parametrize("name", THRESHOLDED)
def test_calibration_meets_the_target_l0_exactly_on_its_rows(name, target):
    sae = uncalibrated(name, target)
    before = int((sae.encode(X) > 0).sum())
    shift = meet_l0_(sae, X)
    active = int((sae.encode(X) > 0).sum())
    assert abs(active - target * ROWS) <= 3  # ties of rounding
    assert (shift > 0) == (before > target * ROWS)
    assert (sae.encode(X) >= 0).all()
    assert meet_l0_(sae, X) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", THRESHOLDED)
def test_calibration_changes_which_latents_are_active_and_not_their_values(name):
    sae = uncalibrated(name, 6)
    before = sae.encode(X)
    shift = meet_l0_(sae, X)
    after = sae.encode(X)
    both = (before > 0) & (after > 0)
    wanted = before[both] - (shift if isinstance(sae, ReLU) else 0)  # a ReLU's threshold is its bias
    assert both.sum() > ROWS
    torch.testing.assert_close(after[both], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("target", [100, 128])  # more than have a positive pre-activation; all
@pytest.mark.parametrize("name", THRESHOLDED)
def test_an_unreachable_target_l0_makes_no_latent_negative(name, target):
    sae = uncalibrated(name, target)
    meet_l0_(sae, X)
    assert (sae.encode(X) >= 0).all()


# In a group and on several ranks


@pytest.mark.slow
def test_saes_trained_in_a_group_and_alone_are_bitwise_the_same(tmp_path):
    jobs = [job(None, f"arch={name}", "tokens=640") for name in YAMLS]
    together = trained(jobs, tmp_path / "together").members
    for one, name, member in zip(jobs, YAMLS, together, strict=True):
        (alone,) = trained([one], tmp_path / name).members
        for key, tensor in member.state_dict().items():
            assert torch.equal(alone.state_dict()[key], tensor), (name, key)


class NewLoss(TopK):
    """It has another loss in the second half of the training."""

    def step(self, x, coefficient, progress):
        step = super().step(x, coefficient, progress)
        return step._replace(losses=step.losses | ({"late": x.new_zeros(())} if progress > 0.5 else {}))


def members():
    """A member per YAML, one clipped by the step before, and one that breaks the contract."""
    saes = {name: make(name) for name in YAMLS} | {"broken": NewLoss(D_IN, D_SAE, K, alpha=0.1, k_aux=4, aux_tokens=5).double()}
    for name, sae in saes.items():
        arch = settings("topk" if name == "broken" else name)["arch"]
        coefficient = arch["control"] and Coefficient(K, fixed=None, **arch["control"]).double()
        yield Member(name, HookPoint("", "output"), sae, coefficient, arch["optimizer"])
    clip = {**settings("gated")["arch"]["optimizer"], "clip": 0.05, "clip_by_previous": True}
    yield Member("clipped", HookPoint("", "output"), make("gated"), None, clip)


def after_steps(count=8):
    """State, curve and failure of every member after `count` steps on the rows of this rank."""
    found = {}
    for member in members():
        optimizer = UnitRowAdam([parameter_group(member.sae, {**member.optimizer, "lr": 1e-3})])
        for i in range(count):
            member.step_(data(i), i / count)
            if not member.failed:
                optimizer.step_group(0, member.sae.execution.deferred_gradients)
                member.sae.constrain_()
        found[member.label] = (member.state_dict(), member.sums.means(), member.failed)
    return found


def on_a_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(after_steps(), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_what_one_trains_and_fail_alike(tmp_path):
    ranks = [warm.popen([sys.executable, __file__, str(rank), str(tmp_path)], tmp_path, ENV) for rank in range(2)]
    one = after_steps()
    for rank in ranks:
        assert rank.wait() == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    for name, (state, curve, failed) in one.items():
        assert first[name][2] == second[name][2] == failed and bool(failed) == (name == "broken")
        assert first[name][1] == pytest.approx(curve, rel=1e-6), name
        for key, wanted in state.items():
            torch.testing.assert_close(first[name][0][key], wanted, rtol=1e-6, atol=1e-9)
            assert torch.equal(second[name][0][key], first[name][0][key]), (name, key)


# Broken contracts


@pytest.mark.slow
def test_an_sae_whose_losses_change_fails_in_one_line_and_the_others_are_unaffected(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SAESWEEP_PACKAGES", "test_contract")
    topk, relu, broken = (job(None, f"arch={name}") for name in ("topk", "relu", "topk"))
    broken["arch"] |= {"_target_": "test_contract.NewLoss", "name": "mine"}
    module = trained([topk, broken, relu], tmp_path / "broken")
    failed = ("mine/4: at 52.0% of the run, the keys of its losses were reconstruction, auxiliary and are now reconstruction, "
              "auxiliary, late: `step` must return the same keys in the same order at every step; return x.new_zeros(()) for "
              "a loss that is off")
    assert [member.failed for member in module.members] == ["", failed, ""]
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [failed]
    whole = trained([topk, relu], tmp_path / "whole")
    for found, wanted in zip((module.members[0], module.members[2]), whole.members, strict=True):
        for key, tensor in wanted.state_dict().items():
            assert torch.equal(found.state_dict()[key], tensor)


def test_an_sae_whose_existing_curve_has_other_columns_fails_alone(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1/metrics.csv").write_text("tokens,l0,loss_old\n64,4.0,1.0\n")
    module = trained([job(None, f"arch={name}", "tokens=640") for name in ("topk", "relu")], tmp_path)
    topk, relu = (member.failed for member in module.members)
    expected = (
        r"relu/4: \S+/metrics\.csv: its columns are l0, loss_old, but the metrics are now l0, .*; an architecture has the "
        "same losses at every step, and a changed one needs another name="
    )
    assert topk == "" and re.fullmatch(expected, relu)


class Broken(JumpReLU):
    """Its losses are changed by `alter`, which the test sets."""

    def step(self, x, coefficient, progress):
        step = super().step(x, coefficient, progress)
        return step._replace(losses=self.alter(step.losses, x, progress))


def without(losses, key):
    return {name: loss for name, loss in losses.items() if name != key}


BREACHES = {
    "lack reconstruction": lambda losses, x, progress: without(losses, "reconstruction"),
    "from progress=0 to progress=0.5, the keys of its losses were reconstruction and are now reconstruction, sparsity":
        lambda losses, x, progress: losses if progress >= 0.5 else without(losses, "sparsity"),
    "from progress=0 to progress=1, the keys of its losses were reconstruction, sparsity and are now sparsity, reconstruction":
        lambda losses, x, progress: dict(reversed(losses.items())) if progress == 1 else losses,
    r"at progress=0, its loss reconstruction is [\d.]+, but \|\|x - x_hat\|\|\^2, summed over d_in":
        lambda losses, x, progress: losses | {"reconstruction": losses["reconstruction"] / x.shape[1]},
    "at progress=0.5, its loss sparsity is nan; it must be finite":
        lambda losses, x, progress: losses | ({"sparsity": losses["sparsity"] * torch.nan} if progress == 0.5 else {}),
    r"its loss sparsity is [\d.]+ and has no gradient": lambda losses, x, progress: losses | {
        "sparsity": losses["sparsity"].detach()},
    r"its loss reconstruction is [\d.]+ and has no gradient": lambda losses, x, progress: losses | {
        "reconstruction": losses["reconstruction"].detach()},
    r"its loss sparsity is \[64\], not a scalar": lambda losses, x, progress: losses | {"sparsity": x.sum(1)},
    "its loss sparsity is float, not a scalar": lambda losses, x, progress: losses | {"sparsity": 0.0},
}


@pytest.mark.parametrize("message", BREACHES)
def test_the_plan_refuses_losses_that_break_the_contract(message):
    torch.manual_seed(0)
    sae = Broken(
        D_IN, D_SAE, K, bandwidth=0.5, init_threshold=0.5, relative=True, warm_start=0.3, threshold_tokens=3200
    ).double()
    sae.alter = lambda losses, x, progress: losses
    arch = settings("jumprelu")["arch"] | {"name": "mine"}
    require_contract(sae, data(), arch)
    sae.alter = BREACHES[message]
    with pytest.raises(UsageError, match=f"^arch=mine: .*{message}") as error:
        require_contract(sae, data(), arch)
    assert "\n" not in str(error.value)


class Annealed(ReLU):
    """`by`: of its sparsity loss, at each progress; `note`: what else a step does."""

    def step(self, x, coefficient, progress):
        self.note(self)
        step = super().step(x, coefficient, progress)
        return step._replace(losses=step.losses | {"sparsity": self.by(progress) * step.losses["sparsity"]})

    def repeatable(self, progress):
        return progress >= 0.5


def test_steps_that_may_be_repeated_and_are_not_the_same_are_refused():
    sae, arch = Annealed(D_IN, D_SAE, K).double(), settings("relu")["arch"] | {"name": "mine"}
    sae.execution.graphs = True
    sae.note, sae.by = lambda sae: None, lambda progress: min(1.0, 2 * progress)
    require_contract(sae, data(), arch)
    sae.by = lambda progress: 1 + progress
    with pytest.raises(UsageError, match=r"^arch=mine: .* between progress=0.5 and 0.75, but repeatable\(0.5\) is True"):
        require_contract(sae, data(), arch)
    sae.note, sae.by = lambda sae: sae.tokens_since_fired.add_(1), lambda progress: 1.0
    with pytest.raises(UsageError, match=r"^arch=mine: .* buffer tokens_since_fired, and repeatable\(0.5\) is True"):
        require_contract(sae, data(), arch)


@every_yaml
def test_the_plan_accepts_every_architecture_of_the_package(name):
    sae = untrained(name)
    sae.execution.graphs = True
    require_contract(sae, data().float(), settings(name)["arch"])


# The README's example


def shown():
    """The files and the command of the README's paragraph on architectures."""
    text = (ROOT / "README.md").read_text()
    part = text[text.index("**An architecture**") : text.index("**A model**")]
    blocks = re.findall(r"`([\w/]+\.(?:py|yaml))`[^`\n]*:\n\n((?:    .*\n|\n)+)", part)
    files = {name: textwrap.dedent(code).strip() + "\n" for name, code in blocks}
    (command,) = re.findall(r"^    (SAESWEEP_PACKAGES=.*)$", part, re.MULTILINE)
    return files, shlex.split(command)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("trainer=ddp_sim",)], ids=["one process", "two ranks"])
def test_the_readmes_own_architecture_runs_from_an_empty_folder(more, tmp_path):
    files, (environment, *typed) = shown()
    assert [*files] == ["mine.py", "myconf/arch/mine.yaml"]
    assert len(files["mine.py"].splitlines()) <= 15 and len(files["myconf/arch/mine.yaml"].splitlines()) <= 6
    for name, code in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    assert typed[:2] == ["python", "train.py"]
    words = [sys.executable, str(ROOT / "train.py"), *typed[2:], "model=synthetic", *SIZES, "sparsity=4,8", "tokens=640", *more]
    ended = warm.run(without_repeats(words), tmp_path, ENV | dict([environment.split("=")]))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = list(csv.DictReader((tmp_path / "outputs/default/pareto.csv").open()))
    finished = sorted((row["arch"], row["sparsity"]) for row in rows if row["state"] == "finished")
    assert finished == [(arch, sparsity) for arch in ("jumprelu", "mine", "topk") for sparsity in ("4", "8")]


def without_repeats(words):
    """The last override of each key."""
    return [word for i, word in enumerate(words) if "=" not in word or word.split("=")[0] not in
            {later.split("=")[0] for later in words[i + 1 :]}]


def test_only_SAESWEEP_PACKAGES_are_imported_from_the_working_directory(tmp_path):
    for name in ("named", "other"):
        (tmp_path / f"{name}.py").write_text("class Mine: pass\n")
    (tmp_path / "json.py").write_text("raise AssertionError('the installed one comes first')\n")
    code = ("from saesweep.config.instantiate import locate; import json\nprint(locate('named.Mine').__name__)\n"
            "try:\n    import other\nexcept ImportError as error:\n    print(error)\n"
            "try:\n    locate('missing.Mine', 'arch._target_')\nexcept ValueError as error:\n    print(error)")
    environment = ENV | {"SAESWEEP_PACKAGES": "named, json, missing"}
    ended = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    missing = f"arch._target_=missing.Mine: there is no missing, neither installed nor in the working directory {tmp_path}"
    assert ended.stdout.splitlines() == ["Mine", "No module named 'other'", missing], ended.stderr


if __name__ == "__main__":
    on_a_rank(int(sys.argv[1]), Path(sys.argv[2]))
