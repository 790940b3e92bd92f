"""Transcoders: the step, the fold, the stream, training and evaluation, and the files (arch/transcoder.py)."""
import json
import shutil
from functools import cache

import pytest
import torch
import warm
from omegaconf import OmegaConf
from safetensors.torch import load_file
from small import CONF, RESOURCES, KillAfter, Killed, command, inputs_of, job, tiny, train_group, trained, write_text
from standin.cli import ENV
from torch.nn.functional import cross_entropy

import saesweep
from saesweep.arch.ops import entries
from saesweep.arch.relu import ReLU
from saesweep.arch.transcoder import transcode_
from saesweep.config.check import check
from saesweep.config.settings import own_settings
from saesweep.data.held_out import EVALUATION
from saesweep.data.normalisation import Statistics
from saesweep.data.scored import scored
from saesweep.data.stream import ActivationStream
from saesweep.errors import UsageError
from saesweep.lm.hooks import HookPoint
from saesweep.old_names import renewed
from saesweep.storage import files, sae_format
from saesweep.study import subjects
from saesweep.sweep.group_results import fold_
from saesweep.sweep.probe import estimate
from saesweep.training.build import build
from saesweep.training.contract import require_contract

YAMLS = sorted(file.stem for file in (CONF / "arch").glob("*.yaml"))
D_IN, D_OUT, D_SAE, K, BATCH = 12, 9, 96, 5, 64
COEFFICIENT = torch.tensor(0.03, dtype=torch.float64)
every_yaml = pytest.mark.parametrize("name", YAMLS)
layouts = pytest.mark.parametrize("dense", [False, True], ids=["list", "dense"])


@cache
def settings(name):
    return job(None, f"arch={name}")


def make(name, dense=False, skip=True, d_out=D_OUT):
    """A transcoder in fp64 with every parameter perturbed, few active latents and a third of them dead."""
    sae = build(settings(name) | {"width": D_SAE, "sparsity": K, "skip": skip}, D_IN, d_out).double()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=random, dtype=torch.float64)
        sae.b_enc -= 1.2 / D_IN**0.5
        sae.W_dec /= sae.W_dec.norm(dim=1, keepdim=True)
    sae.constrain_()
    sae.tokens_since_fired[::3] = 10**9
    sae.execution.dense = dense
    return sae


def data():
    """[x | y], each of mean square 1 per token, and y in part a map of x."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, D_IN, generator=random, dtype=torch.float64)
    y = torch.relu(x) @ torch.randn(D_IN, D_OUT, generator=random, dtype=torch.float64)
    return torch.cat([part / part.square().sum(1).mean().sqrt() for part in (x, y)], 1)


# The step


@layouts
def test_the_step_of_a_relu_skip_transcoder_by_hand(dense, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    sae = ReLU(2, 3, 1).double()
    transcode_(sae, 3, skip=True)
    sae.double().execution.dense = dense
    values = {
        "W_enc_T": [[1, 0.2], [-0.5, 0.8], [0.3, -0.6]], "b_enc": [0.1, 0, -0.2],
        "W_dec": [[1, 0, 0], [0, 0.6, 0.8], [0, 0, 1]], "b_dec": [0.05, -0.05, 0], "W_skip": [[0.1, 0, 0.2], [0, -0.1, 0.3]],
    }
    with torch.no_grad():
        for name, value in values.items():
            getattr(sae, name).copy_(torch.tensor(value, dtype=torch.float64))
    x = torch.tensor([[1, 0.5], [0.2, 0.9]], dtype=torch.float64)
    y = torch.tensor([[1, 0.2, 0.4], [0.3, 0.7, -0.1]], dtype=torch.float64)
    step = sae.step(torch.cat([x, y], 1), torch.zeros((), dtype=torch.float64), 0.0)
    sum(step.losses.values()).backward()
    found = {
        "f": step.latents.dense().detach(), "y_hat": step.x_hat, "loss": step.losses["reconstruction"].detach(),
        "dW_skip": sae.W_skip.grad, "db_dec": sae.b_dec.grad, "dW_enc": sae.W_enc_T.grad.T,
    }
    wanted = {
        "f": [[1.2, 0, 0], [0.48, 0.62, 0]], "y_hat": [[1.35, -0.1, 0.35], [0.55, 0.232, 0.806]], "loss": 0.65868,
        "dW_skip": [[0.4, -0.3936, 0.1312], [0.4, -0.5712, 0.7904]], "db_dec": [0.6, -0.768, 0.856],
        "dW_enc": [[0.4, 0.0888, 0], [0.4, 0.3996, 0]],
    }
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], torch.tensor(value, dtype=torch.float64), rtol=0, atol=1e-9, msg=key)
    torch.testing.assert_close(sae(x), step.x_hat)


@pytest.mark.parametrize("progress", [0.0, 1.0])
@every_yaml
def test_a_step_over_a_list_has_the_values_and_gradients_of_a_dense_one(name, progress, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    found = {}
    for dense in (False, True):
        sae, batch = make(name, dense), data()
        step = sae.step(batch, COEFFICIENT, progress)
        assert (step.latents.entries is None) == dense
        torch.testing.assert_close(step.x_hat, sae.with_skip(sae.decode(step.latents.dense()), batch[:, :D_IN]))
        torch.testing.assert_close(step.losses["reconstruction"], (batch[:, D_IN:] - step.x_hat).square().sum(1).mean())
        sum(step.losses.values()).backward()
        gradients = {f"d{key}": p.grad for key, p in sae.named_parameters() if p.grad is not None}
        found[dense] = {"f": step.latents.dense().detach(), "x_hat": step.x_hat, **step.losses, **gradients}
    assert "dW_skip" in found[True] and found[True].keys() == found[False].keys()
    for key, value in found[True].items():
        torch.testing.assert_close(found[False][key], value, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", ["jumprelu", "gated", "topk"])
def test_the_gradient_of_the_skip_is_that_of_the_error_of_y(name, monkeypatch):
    monkeypatch.setattr(entries, "DENSE_BELOW", 0)
    sae, batch = make(name), data()
    step = sae.step(batch, COEFFICIENT, 1.0)
    sum(step.losses.values()).backward()
    torch.testing.assert_close(sae.W_skip.grad, 2 / BATCH * batch[:, :D_IN].T @ (step.x_hat - batch[:, D_IN:]))


@every_yaml
def test_an_untrained_transcoder_keeps_the_contract_and_draws_its_decoder_by_itself(name):
    cfg = settings(name) | {"width": D_SAE, "sparsity": K, "skip": True}
    sae, plain = build(cfg, D_IN, D_IN), build(cfg, D_IN)
    assert torch.equal(sae.W_enc_T, plain.W_enc_T) and not torch.isclose(sae.W_dec, plain.W_dec).any(1).all()
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(D_SAE))
    assert sae.W_skip is not None and not sae.W_skip.any() and build(cfg | {"skip": False}, D_IN, D_IN).W_skip is None
    require_contract(make(name).float(), data().float(), cfg["arch"])


@pytest.mark.parametrize("skip", [False, True])
@every_yaml
def test_the_fold_of_two_statistics_is_exact(name, skip):
    random = torch.Generator().manual_seed(2)
    sae, x = make(name, skip=skip).requires_grad_(False), data()[:, :D_IN]
    if hasattr(sae, "batch_threshold"):
        sae.batch_threshold.value.fill_(0.1)
    f, y_hat = sae.encode(x), sae(x)
    mean = [3 * torch.randn(d, generator=random, dtype=torch.float64) for d in (D_IN, D_OUT)]
    of_y = Statistics(mean[1], 0.7, mean[1], 1.0, (), 0.0)
    fold_(sae, Statistics(mean[0], 11.0, mean[0], 1.0, (), 0.0, of_y))
    raw = 11.0 * x + mean[0]
    torch.testing.assert_close(sae.encode(raw), 0.7 * f, rtol=0, atol=1e-12)
    torch.testing.assert_close(sae(raw), 0.7 * y_hat + mean[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(sae.list_active(raw).dense(), 0.7 * f, rtol=0, atol=1e-12)
    assert (f > 0).any()


# The stream

X, Y = HookPoint("a", "output"), HookPoint("b", "output")
PAIR = X._replace(target=Y)


class Drawn:
    """One window of two tensors; in each of them one row is a sink."""

    def __init__(self):
        random = torch.Generator().manual_seed(0)
        x, y = torch.randn(64, D_IN, generator=random), 5 + torch.randn(64, D_OUT, generator=random)
        x[3], y[7] = 1000.0, -1000.0
        self.rows = {X: x, Y: y}

    def window(self, rows):
        return self.rows

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_x_and_y_have_the_same_rows_without_the_sinks_of_either_and_statistics_of_their_own():
    def stream_of(*points):
        stream = ActivationStream(Drawn(), steps=4, batch_tokens=16, stream_seed=0, center=True, max_norm=8.0, statistics=64)
        stream.only(points)
        return stream

    stream = stream_of(PAIR, Y)
    batches = list(stream)
    both, y_alone = (torch.cat([batch[point] for batch in batches]) for point in (PAIR, Y))
    assert both.shape == (62, D_IN + D_OUT) and len(y_alone) == 63  # a neighbour keeps the row that is a sink at x
    statistics, rows = stream.statistics[PAIR], Drawn().rows
    x, y = (s.undo(part) for s, part in zip((statistics, statistics.output), both.split([D_IN, D_OUT], 1), strict=True))
    at = torch.cdist(x, rows[X]).argmin(1)
    assert sorted(at.tolist()) == [i for i in range(64) if i not in (3, 7)]
    torch.testing.assert_close(y, rows[Y][at])
    assert torch.equal(statistics.output.mean, stream_of(Y).statistics[Y].mean)
    restored = Statistics.restored(*statistics.saved())
    assert torch.equal(restored.output.mean, statistics.output.mean) and restored.output.scale == statistics.output.scale
    assert restored.largest == statistics.largest and restored.sizes == (D_IN, D_OUT)


# Training, evaluation and files


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"), seed=1)


def jobs_of(text, *more):
    words = [("arch=jumprelu", "skip=true"), ("arch=gated",), ("arch=topk",)]
    return [job(text, "site=transcoder", *own, *more) for own in words]


@pytest.fixture(scope="module")
def group(text, tmp_path_factory):
    """The folders of three transcoders and of an SAE of their target, trained together, and their metrics."""
    folder = tmp_path_factory.mktemp("group")
    jobs = [*jobs_of(text, "activations.max_norm=1.1"), job(text, "site=mlp", "arch=topk", "activations.max_norm=1.1")]
    folders = [folder / str(i) for i in range(len(jobs))]
    for one, at in zip(jobs, folders, strict=True):
        check(one)
        (at / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(one), at / files.RESOLVED)
    return folders, train_group(jobs, folders)


def held_out_rows(sae):
    """x and y of the held-out tokens without sinks, in fp64."""
    inputs = inputs_of(sae.config, [sae.point])
    held_out = RESOURCES.held_out(sae.config, EVALUATION, sae.config["evaluation"]["tokens"])
    x, y = sae.point.of(inputs.source.read(held_out.tokens))
    keep = sae.statistics.ordinary(x, y)
    assert not keep.all() and keep.sum() < min(sae.statistics.ordinary(x).sum(), sae.statistics.output.ordinary(y).sum())
    return x[keep], y[keep].double(), int((~keep).sum())


@pytest.mark.slow
def test_the_evaluation_is_that_of_y_and_a_loaded_transcoder_gives_it_again(group):
    folders, metrics = group
    for folder, numbers in zip(folders[:3], metrics, strict=False):
        sae = saesweep.load(folder)
        x, y, sinks = held_out_rows(sae)
        fvu = (y - sae(x)).square().sum() / (y - y.mean(0)).square().sum()
        assert numbers["fvu"] == pytest.approx(float(fvu), rel=1e-4) and numbers["sinks"] == sinks
        assert numbers["l0"] == pytest.approx(float((sae.encode(x) > 0).sum(1).double().mean()), rel=1e-3)
        assert abs(numbers["l0"] / 4 - 1) < 0.15 and 0 < numbers["fvu"] < 2
    assert saesweep.load(folders[0]).W_skip.abs().sum() > 0


@pytest.mark.slow
def test_the_reconstruction_goes_where_the_target_is(group):
    """The language model's loss with y_hat(x) written by hand into the module of y is that of the evaluation."""
    folders, metrics = group
    sae, lm = saesweep.load(folders[0]), tiny()
    held_out = RESOURCES.held_out(sae.config, EVALUATION, sae.config["evaluation"]["tokens"])
    predicted = scored(held_out, lm.tokenizer, sae.config)
    tokens, special = predicted.tokens.clamp(min=0), torch.tensor(sorted(lm.tokenizer.special))
    block, seen = lm.module.model.layers[1], {}

    def write(module, args, y):
        x = seen.pop("x")
        at = sae.statistics.ordinary(x, y) & ~torch.isin(predicted.tokens, special)
        return torch.where(at[..., None], sae(x), y)

    def loss():
        logits = lm.module(input_ids=tokens, use_cache=False).logits[:, :-1]
        at = predicted.at[:, 1:]
        return float(cross_entropy(logits[at], tokens[:, 1:][at]))

    hooks = [block.pre_feedforward_layernorm.register_forward_hook(lambda module, args, x: seen.update(x=x)),
             block.post_feedforward_layernorm.register_forward_hook(write)]
    with torch.no_grad():
        by_hand = loss()
        [hook.remove() for hook in hooks]
        with saesweep.splice(lm, sae):
            spliced = loss()
    assert metrics[0]["ce_sae"] == pytest.approx(by_hand, abs=1e-5) and spliced == pytest.approx(by_hand, abs=1e-5)
    assert metrics[0]["ce_clean"] == metrics[3]["ce_clean"] != pytest.approx(by_hand, abs=1e-4)
    for key in ("ce_zero", "ce_mean"):  # of y, as for the SAE there, which leaves out its own sinks alone
        assert metrics[0][key] == metrics[1][key] == pytest.approx(metrics[3][key], abs=0.02)


@pytest.mark.slow
def test_the_files_are_those_that_saelens_reads(group):
    folders, _ = group
    wanted = ["jumprelu_skip_transcoder", "gated_transcoder", "topk_transcoder", "topk"]
    configs = [json.loads((folder / "sae" / "cfg.json").read_text()) for folder in folders]
    assert [cfg["architecture"] for cfg in configs] == wanted
    assert [cfg["apply_b_dec_to_input"] for cfg in configs] == [False, False, False, True]
    cfg, tensors = configs[0], load_file(folders[0] / files.WEIGHTS)
    assert cfg["d_in"] == cfg["d_out"] == 48 and "d_out" not in configs[3]
    assert {key: cfg["metadata"][key] for key in ("hook_name", "hook_name_out", "hf_hook_name", "hf_hook_name_out")} == {
        "hook_name": "blocks.1.mlp.hook_in", "hook_name_out": "blocks.1.hook_mlp_out",
        "hf_hook_name": "model.layers.1.pre_feedforward_layernorm",
        "hf_hook_name_out": "model.layers.1.post_feedforward_layernorm",
    }
    sae = saesweep.load(folders[0])
    x = held_out_rows(sae)[0]
    pi = x @ tensors["W_enc"] + tensors["b_enc"]
    y_hat = torch.relu(pi) * (pi > tensors["threshold"]) @ tensors["W_dec"] + tensors["b_dec"] + x @ tensors["W_skip"].T
    torch.testing.assert_close(sae(x), y_hat, rtol=1e-4, atol=1e-4)


def test_the_names_of_the_architectures_in_the_files():
    saes = [make(arch, skip=skip) for arch in ("relu", "batchtopk") for skip in (False, True)]
    wanted = ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]
    assert [sae_format.architecture(sae) for sae in saes] == wanted


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ["relu", "jumprelu", "batchtopk"])
def test_saelens_encodes_and_transcodes_the_same(name, skip, tmp_path):
    sae_lens = pytest.importorskip("sae_lens", reason="pip install sae-lens to compare with it")
    ours = make(name, skip=skip).float().requires_grad_(False)
    sae_format.save(tmp_path, ours, job("no.jsonl", f"arch={name}", "site=transcoder"), {"l0": 5.0, "dead": 0.25})
    theirs = sae_lens.SAE.load_from_disk(str(tmp_path), device="cpu")
    x = torch.randn(200, D_IN, generator=torch.Generator().manual_seed(4))
    f = ours.encode(x)
    assert type(theirs).__name__.endswith("SkipTranscoder" if skip else "Transcoder") and 0 < float((f > 0).float().mean()) < 1
    torch.testing.assert_close(theirs.encode(x), f, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("name", ["relu", "jumprelu"])
def test_a_file_for_circuit_tracer_computes_the_same(name, skip, tmp_path):
    sae = make(name, skip=skip, d_out=D_IN).float().requires_grad_(False)
    x = torch.randn(200, D_IN, generator=torch.Generator().manual_seed(4))
    saesweep.save_for_circuit_tracer(sae, tmp_path / "layer_0.safetensors")
    t, f, y_hat = load_file(tmp_path / "layer_0.safetensors"), sae.encode(x), sae(x)
    pi = x @ t["W_enc"].T + t["b_enc"]
    above = pi > t["activation_function.threshold"] if name == "jumprelu" else pi > 0
    torch.testing.assert_close(pi * above, f, rtol=1e-5, atol=1e-5)
    by_skip = x @ t["W_skip"].T if skip else 0
    torch.testing.assert_close(f @ t["W_dec"] + t["b_dec"] + by_skip, y_hat, rtol=1e-5, atol=1e-5)
    assert 0 < float((f > 0).float().mean()) < 1 and ("W_skip" in t) == skip
    library = "circuit_tracer.transcoder.single_layer_transcoder"
    loader = pytest.importorskip(library, reason="pip install circuit-tracer to compare with it").load_relu_transcoder
    theirs = loader(str(tmp_path / "layer_0.safetensors"), 0, device=torch.device("cpu"))
    torch.testing.assert_close(theirs.encode(x), f, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs(x), y_hat, rtol=1e-5, atol=1e-5)


def test_circuit_tracer_takes_no_other_latents_no_sae_and_no_two_widths(tmp_path):
    of_topk, of_widths = make("topk", skip=False, d_out=D_IN), make("relu")
    for sae, said in ((of_topk, "a transcoder with latents of TopK from 12 to 12"),
                      (of_widths, "a transcoder with latents of ReLU from 12 to 9"),
                      (build(settings("relu") | {"width": D_SAE}, D_IN), "an SAE with latents of ReLU from 12 to 12")):
        with pytest.raises(UsageError, match=f"circuit-tracer takes transcoders with ReLU or JumpReLU .* this is {said}"):
            saesweep.save_for_circuit_tracer(sae, tmp_path / "x.safetensors")
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_transcoder_trained_alone_or_from_disk_or_resumed_is_bitwise_the_one_of_the_group(text, tmp_path):
    sizes = "tokens=1600", "log_tokens=320", "save_tokens=512", "site=transcoder"
    of_disk = "cache=disk", f"cache.folder={tmp_path / 'kept'}"
    jobs = [job(text, *sizes, "arch=jumprelu", "skip=true"), job(text, *sizes, "arch=topk"), job(text, *sizes, "arch=relu")]
    wanted = trained([*jobs, job(text, *sizes, "site=mlp", "arch=topk")], tmp_path / "whole").members
    with pytest.raises(Killed):
        trained(jobs[:1], tmp_path / "killed", progress=KillAfter(960))
    with pytest.raises(Killed):
        trained([job(text, *sizes, "arch=topk", *of_disk)], tmp_path / "disk", progress=KillAfter(960))
    found = [
        trained(jobs[:1], tmp_path / "killed").members[0],
        trained([job(text, *sizes, "arch=topk", *of_disk)], tmp_path / "disk").members[0],
        trained(jobs[2:], tmp_path / "alone").members[0],
    ]
    for one, other in zip(found, wanted, strict=False):
        assert one.state_dict().keys() == other.state_dict().keys()
        for key, tensor in other.state_dict().items():
            assert torch.equal(one.state_dict()[key], tensor), key


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_what_one_trains(text, tmp_path):
    sizes, archs = ("site=transcoder", "skip=true", "tokens=1280"), ("jumprelu", "topk")
    ended = warm.run(command(text, f"arch={','.join(archs)}", *sizes, "trainer=ddp_sim"), tmp_path, ENV)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    train_group([job(text, f"arch={arch}", *sizes) for arch in archs], [tmp_path / "one" / arch for arch in archs])
    for arch in archs:
        found = load_file(tmp_path / f"outputs/default/tiny/transcoder.1/{arch}/4" / files.WEIGHTS)
        for key, tensor in load_file(tmp_path / "one" / arch / files.WEIGHTS).items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-5, atol=1e-5 * float(tensor.abs().max()))


@pytest.mark.slow
def test_the_plan_counts_both_tensors_and_the_skip(text, tmp_path):
    def of(*words):
        found = estimate([job(text, "arch=topk", f"cache.folder={tmp_path / 'kept'}", "cache.name=disk", *words)], RESOURCES)
        return found["params"][0], found["places"][-1].phases[""]["activations"]

    (mlp, row), (plain, rows), (skip, _) = of("site=mlp"), of("site=transcoder"), of("site=transcoder", "skip=true")
    assert plain == mlp == 2 * 48 * 96 + 96 + 48 and skip == plain + 48 * 48 and rows == 2 * row


# What cannot be


@pytest.mark.parametrize(("words", "message"), [
    (("skip=true",), "skip=true: site=resid reconstructs what it reads.*write site=transcoder"),
    (("site=transcoder", "study=rules"), "study=rules: a study reads no transcoders; write study=none"),
    (("site=transcoder", "~model.sites.transcoder.target"), "site=transcoder: site gives a target and model.sites none"),
    (("site=mlp", "+site.hook_name_out=here"), "site=mlp: site gives a target and model.sites none"),
])
def test_settings_that_do_not_fit_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        check(job("text.jsonl", *words))
    with pytest.raises(UsageError, match="the model synthetic has no such site; it has resid"):
        check(job(None, "site=transcoder"))


def test_a_target_that_comes_first_is_refused(text):
    at, block = "model.sites.transcoder", "model.layers.{layer}"
    words = f"{at}.module='{block}.mlp'", f"{at}.target.module='{block}.pre_feedforward_layernorm'"
    with pytest.raises(UsageError, match=r"reaches the target in .*mlp\.output -> .*pre_feedforward_layernorm\.output first"):
        estimate([job(text, "site=transcoder", *words)], RESOURCES)


@pytest.mark.slow
def test_a_study_an_ablation_and_an_import_refuse_a_transcoder(group):
    folder = group[0][0]
    with pytest.raises(UsageError, match=f"{folder}: is a transcoder, which study, ablate and evaluate do not read"):
        subjects.of_job(folder.parent, folder, "")


@pytest.mark.slow
def test_a_study_of_a_sweep_leaves_its_transcoders_out_and_says_so(group, tmp_path, caplog):
    for folder, place in zip(group[0], ("transcoder.1/jumprelu", "transcoder.1/gated", "transcoder.1/topk", "mlp.1/topk"),
                             strict=True):
        shutil.copytree(folder, tmp_path / "tiny" / place / "4")
    assert [one.path for one in subjects.of_sweep(tmp_path, [], 0)] == ["tiny/mlp.1/topk/4"]
    assert "3 transcoders are left out, which study and ablate do not read" in caplog.text
    shutil.rmtree(tmp_path / "tiny" / "mlp.1")
    with pytest.raises(UsageError, match="is a transcoder, which study, ablate and evaluate do not read"):
        subjects.of_sweep(tmp_path, [], 0)


def test_saes_of_before_are_the_same_saes():
    """Neither the site that came later nor the key that is off tells them from those of today."""
    now = renewed(job("text.jsonl", "site=mlp"))
    before = {**now, "model": {**now["model"], "sites": {k: v for k, v in now["model"]["sites"].items() if k != "transcoder"}}}
    assert "skip" not in now and own_settings(now) == own_settings(before)
    assert "transcoder" in own_settings(renewed(job("text.jsonl", "site=transcoder")))["model"]["sites"]
