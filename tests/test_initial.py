"""`init_from`: a training that continues from a finished SAE."""
import json
from pathlib import Path

import pytest
import torch
from small import job, train_group, trained, untrained, weights, write_text

from saesweep.config.check import check
from saesweep.errors import UsageError
from saesweep.storage import files
from saesweep.sweep.inputs import point_of
from saesweep.training.initial import initial
from saesweep.training.loaded import load

ARCHS = ("gated", "jumprelu", "batchtopk", "topk")
OF_THE_TRAINING = ("dead", "tokens", "unique_tokens")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def made(text, tmp_path_factory) -> tuple[Path, list[dict], list[dict]]:
    """A group of all ways to keep thresholds, finished: its folder, jobs and numbers."""
    folder = tmp_path_factory.mktemp("made")
    cfgs = [job(text, f"arch={arch}", "tokens=1280", *(["arch.warm_start=0"] if arch == "jumprelu" else [])) for arch in ARCHS]
    numbers = train_group(cfgs, [folder / arch for arch in ARCHS])
    for cfg, arch in zip(cfgs, ARCHS, strict=True):
        write_settings(folder / arch, cfg)
    return folder, cfgs, numbers


def write_settings(folder: Path, cfg: dict) -> None:
    (folder / ".hydra").mkdir()
    (folder / files.RESOLVED).write_text(json.dumps(cfg))


def continued(made, number: int, **changes) -> dict:
    folder, cfgs, _ = made
    return cfgs[number] | {"init_from": str(folder / ARCHS[number])} | changes


@pytest.mark.slow
def test_no_tokens_reproduce_the_held_out_metrics_and_the_weights_to_the_bit(made, tmp_path):
    folder, _, before = made
    for number, arch in enumerate(ARCHS):
        (again,) = train_group([continued(made, number, tokens=0)], [tmp_path / arch])
        same = {key: value for key, value in before[number].items() if key not in OF_THE_TRAINING}
        assert {key: again[key] for key in same} == same and (again["dead"], again["tokens"]) == (None, 0), arch
        assert weights(folder / arch) == weights(tmp_path / arch), arch
        about = json.loads((tmp_path / arch / "sae/cfg.json").read_text())["metadata"]
        assert about["init_from"] == str(folder / arch)


@pytest.mark.slow
def test_training_begins_with_the_saes_latents_its_statistics_and_its_coefficient(made):
    folder, cfgs, numbers = made
    for number, arch in enumerate(ARCHS):
        module, stream, _ = untrained([continued(made, number)])
        (member,), saved, point = module.members, load(folder / arch), point_of(cfgs[number])
        statistics = stream.statistics[point]
        assert torch.equal(statistics.mean, saved.statistics.mean) and statistics.scale == saved.statistics.scale
        x = next(iter(stream))[point]
        f, raw = member.sae.encode(x), saved.encode(statistics.undo(x)) / statistics.scale
        assert ((f > 0) == (raw > 0)).float().mean() > 0.999 and torch.allclose(f.mean(), raw.mean(), rtol=1e-3), arch
        if member.coefficient is not None:
            assert float(member.coefficient.value) == pytest.approx(numbers[number]["coefficient"]), arch


@pytest.mark.slow
def test_a_continued_training_resumes_bitwise_and_improves(made, tmp_path):
    cfg = continued(made, 3, save_tokens=320)
    whole = train_group([cfg], [tmp_path / "whole"])
    with pytest.raises(RuntimeError, match="stopped"):
        trained([cfg], tmp_path / "part", progress=stopped)
    assert train_group([cfg], [tmp_path / "part/0"]) == whole and whole[0]["fvu"] < made[2][3]["fvu"]
    assert weights(tmp_path / "part/0") == weights(tmp_path / "whole")


def stopped(module):
    if module.tokens == 1280:
        raise RuntimeError("stopped")


@pytest.mark.slow
def test_what_cannot_continue_is_refused_in_one_line(made, tmp_path):
    folder = made[0]
    topk = continued(made, 3)
    mlp = {"name": "mlp", "hook_name": "blocks.{layer}.hook_mlp_out"}
    for changes, said in (
        ({"init_from": str(tmp_path)}, "holds no finished SAE"),
        ({"init_from": str(folder / "gated")}, "arch=Gated there, TopK here"),
        ({"width": 48}, "width=96 there, 48 here"),
        ({"site": mlp}, "hook point="),
        ({"activations": topk["activations"] | {"center": False}}, "activations.center=True there, False here"),
    ):
        with pytest.raises(UsageError, match=said) as error:
            initial(topk | changes)
        assert str(error.value).startswith("init_from=") and "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"is an SAE of d_in=.* and the activations have d_in=7"):
        initial(topk, 7)
    jumprelu = continued(made, 1)
    with pytest.raises(UsageError, match=r"arch\.warm_start=0\.5 begins with one threshold"):
        initial(jumprelu | {"arch": jumprelu["arch"] | {"warm_start": 0.5}})


def test_no_tokens_need_something_to_continue_from():
    with pytest.raises(UsageError, match="tokens=0: must be at least 1, such as 64, or 0 with init_from"):
        check(job(None, "tokens=0"))
    assert check(job(None, "tokens=0", "init_from=outputs/x")) is None
