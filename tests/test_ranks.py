"""Several ranks train what one trains, and nothing is left over, whatever ends them. Through the command line."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import warm
from safetensors.torch import load_file
from small import ARCHS, command, write_text
from standin.cli import ENV

pytestmark = [pytest.mark.slow, pytest.mark.process]
PLACE = "outputs/default/tiny/resid.1"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """On which no activation lies so close to its threshold that another order of sums turns it."""
    return write_text(tmp_path_factory.mktemp("text"), seed=1)


def swept(folder, words, code=0, env=ENV):
    folder.mkdir(exist_ok=True)
    ended = warm.run(words, folder, env)
    assert ended.returncode == code, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def one(text, tmp_path_factory):
    """With as many threads as there are cores; each rank has one."""
    folder = tmp_path_factory.mktemp("one")
    swept(folder, command(text, f"arch={','.join(ARCHS)}"), env={**ENV, "OMP_NUM_THREADS": str(os.cpu_count())})
    return folder


@pytest.fixture(scope="module")
def two(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, swept(folder, command(text, f"arch={','.join(ARCHS)}", "trainer=ddp_sim"))


SWEEP_PARALLEL = ("trainer=sweep_parallel", "trainer.accelerator=cpu")


def test_saes_that_are_dealt_out_to_ranks_are_bitwise_those_of_one_process(text, one, tmp_path):
    swept(tmp_path, command(text, f"arch={','.join(ARCHS)}", *SWEEP_PARALLEL))
    found, wanted = ({str(f.relative_to(at)): f for f in at.rglob("*") if f.is_file()} for at in (tmp_path, one))
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name.endswith(("safetensors", "eval.json", "pareto.csv")):
            assert found[name].read_bytes() == wanted[name].read_bytes(), name
    assert_nothing_is_left(tmp_path)


def test_a_single_run_of_saes_of_their_own_takes_the_same_way_and_a_rank_without_any_reads_for_the_others(text, one, tmp_path):
    words = command(text, "arch=gated", *SWEEP_PARALLEL)
    words.remove("-m")
    swept(tmp_path, words)
    file = f"{PLACE}/gated/4/sae/sae_weights.safetensors"
    assert (tmp_path / file).read_bytes() == (one / file).read_bytes()


def left_processes(folder):
    """Whatever still runs with this folder as its own."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(int(pid))
        except OSError:
            continue
    return found


def assert_nothing_is_left(folder):
    for _ in range(100):
        if not left_processes(folder):
            return
        time.sleep(0.1)
    raise AssertionError(f"still there: {left_processes(folder)}")


@pytest.mark.parametrize("name", ARCHS)
def test_two_ranks_train_what_one_trains(name, one, two):
    """50 steps: weights, thresholds, counters, coefficient, curve and evaluation, to rounding."""
    folders = [at / PLACE / name / "4" for at in (one, two[0])]
    weights = [load_file(folder / "sae/sae_weights.safetensors") for folder in folders]
    assert weights[0].keys() == weights[1].keys()
    for key in weights[0]:
        torch.testing.assert_close(weights[1][key], weights[0][key], rtol=1e-5, atol=1e-5 * float(weights[0][key].abs().max()))
    alone, together = (json.loads((folder / "eval.json").read_text()) for folder in folders)
    assert (alone.pop("coefficient") is None) == (together.pop("coefficient") is None)  # its curve is in metrics.csv
    recovered = together.pop("loss_recovered"), alone.pop("loss_recovered")
    assert together == pytest.approx(alone, rel=1e-5)
    assert 1 - recovered[0] == pytest.approx(1 - recovered[1], rel=1e-5)  # it is near 0 here, its two terms are near 1
    curves = [list(csv.DictReader((folder / "metrics.csv").open())) for folder in folders]
    assert len(curves[0]) == len(curves[1]) == 5
    for alone, together in zip(*curves, strict=True):
        for key in alone.keys() - {"tokens_per_second"}:
            assert float(together[key]) == pytest.approx(float(alone[key]), rel=1e-4, abs=1e-7), key


def test_two_ranks_leave_the_files_that_one_leaves_and_tell_what_one_tells(one, two):
    folder, said = two
    found, wanted = ({str(f.relative_to(at)) for f in at.rglob("*") if f.is_file()} for at in (folder, one))
    assert found == wanted
    assert said.count("thresholds shifted") == 4 and "Traceback" not in said
    assert "thresholds shifted" in (folder / PLACE / "gated/4/train.log").read_text()
    assert_nothing_is_left(folder)


def test_a_single_run_takes_the_same_way(text, two, tmp_path):
    words = command(text, "arch=topk", "trainer=ddp_sim")
    words.remove("-m")
    swept(tmp_path, words)
    files = [at / PLACE / "topk/4/sae/sae_weights.safetensors" for at in (tmp_path, two[0])]
    assert files[0].read_bytes() == files[1].read_bytes()


def started(folder, words):
    process = warm.popen(words, folder, ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not list(folder.rglob("metrics.csv")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    return process


LONG = ("tokens=32_000", "text.repeat=true", "log_tokens=320", "trainer=ddp_sim")


RESUMABLE = ("arch=jumprelu,batchtopk", "log_tokens=64")


@pytest.fixture(scope="module")
def interrupted(text, tmp_path_factory):
    """Two ranks that got Ctrl-C after some steps of the 50."""
    folder = tmp_path_factory.mktemp("interrupted")
    process = started(folder, [*command(text, *RESUMABLE), "trainer=ddp_sim"])
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in out
    assert_nothing_is_left(folder)
    steps = {int(file.name.split("-")[0]) for file in folder.rglob("checkpoint/*.safetensors")}
    assert max(steps) % 16 == 0 or max(steps) == 50
    return folder


@pytest.mark.parametrize("trainer", ["ddp_sim", "cpu"])
def test_ctrl_c_saves_and_any_number_of_ranks_goes_on(text, one, interrupted, tmp_path, trainer):
    """Interrupted with two ranks, ended with two or with one."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    said = swept(tmp_path, [*command(text, *RESUMABLE), f"trainer={trainer}"])
    assert "resuming at" in said
    for name in ("jumprelu", "batchtopk"):
        found, wanted = (load_file(at / PLACE / name / "4/sae/sae_weights.safetensors") for at in (tmp_path, one))
        for key in wanted:
            torch.testing.assert_close(found[key], wanted[key], rtol=1e-5, atol=1e-5 * float(wanted[key].abs().max()))


def test_ctrl_c_ends_ranks_with_saes_of_their_own_and_one_process_goes_on_bitwise(text, tmp_path):
    words = command(text, "arch=jumprelu,batchtopk", *LONG[:3])
    swept(tmp_path / "whole", words)
    (tmp_path / "broken").mkdir()
    process = started(tmp_path / "broken", [*words, *SWEEP_PARALLEL])
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in out and len(list(tmp_path.rglob("checkpoint/*.safetensors"))) == 2
    assert_nothing_is_left(tmp_path / "broken")
    assert "resuming at" in swept(tmp_path / "broken", words)
    for file in (tmp_path / "whole").rglob("*.safetensors"):
        assert (tmp_path / "broken" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


def ranks(folder):
    """The process ids of the ranks."""
    found = []
    for pid in left_processes(folder):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "saesweep.sweep.engines.worker" in words and "torch.distributed.run" not in words:
            found.append(pid)
    return found


def test_a_rank_that_dies_ends_its_group_within_a_minute_and_the_sweep_goes_on(text, tmp_path):
    words = command(text, "arch=topk", "stream_seed=0,1", "name=s${stream_seed}", *LONG)
    process = started(tmp_path, words)
    killed, began = ranks(tmp_path)[1], time.monotonic()
    os.kill(killed, signal.SIGKILL)
    while not list((tmp_path / "outputs").glob("s1/**/metrics.csv")):
        assert time.monotonic() - began < 60 and process.poll() is None
        time.sleep(0.2)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "1 of 2 SAEs failed" in out and "rank" in out
    assert not list(tmp_path.glob("outputs/s0/**/eval.json")) and list(tmp_path.glob("outputs/s1/**/eval.json"))
    assert_nothing_is_left(tmp_path)


def test_a_launcher_that_is_killed_leaves_no_process(text, tmp_path):
    process = started(tmp_path, command(text, "arch=topk", *LONG))
    process.kill()
    process.communicate()
    assert_nothing_is_left(tmp_path)


def test_two_nodes_train_what_one_process_trains(text, one, tmp_path):
    """Two torch.distributed.run on this machine, as plain nodes without an engine: one launches, the other joins."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = ENV | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    words = command(text, "arch=jumprelu,topk", "trainer=ddp_sim", "trainer.devices=1", "+trainer.num_nodes=2")
    sweep = tmp_path / "outputs/default"
    join = [sys.executable, "-m", "saesweep.sweep.engines.join", str(sweep)]
    other = warm.popen(join, tmp_path, environment | {"NODE_RANK": "1"}, stdout=subprocess.PIPE)
    ended = warm.run(words, tmp_path, environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said, _ = other.communicate(timeout=30)
    assert other.returncode == 0 and "ended with 0" in said
    for name in ("jumprelu", "topk"):
        found, wanted = (load_file(at / PLACE / name / "4/sae/sae_weights.safetensors") for at in (tmp_path, one))
        for key in wanted:
            torch.testing.assert_close(found[key], wanted[key], rtol=1e-5, atol=1e-5 * float(wanted[key].abs().max()))
    assert_nothing_is_left(tmp_path)
    assert not (sweep / ".groups").exists()


def test_several_nodes_need_to_know_where_to_meet(text, tmp_path):
    said = swept(tmp_path, command(text, "arch=topk", "trainer=ddp_sim", "+trainer.num_nodes=2"), code=1)
    assert "trainer.num_nodes=2: set MASTER_ADDR and MASTER_PORT" in said and "Traceback" not in said


def test_a_pool_runs_as_many_groups_at_once_as_it_has_devices(text, tmp_path):
    pool = ("hydra/launcher=pool", "hydra.launcher.engine.devices=[a,b]")
    said = swept(tmp_path, command(text, "arch=topk", "stream_seed=0,1,2", "name=s${stream_seed}", *pool))
    assert said.count("on a: ") + said.count("on b: ") == 3 and "on b: " in said
    alone = tmp_path / "alone"
    swept(alone, command(text, "arch=topk", "stream_seed=0,1,2", "name=s${stream_seed}"))
    for seed in range(3):
        file = f"outputs/s{seed}/tiny/resid.1/topk/4/sae/sae_weights.safetensors"
        assert (tmp_path / file).read_bytes() == (alone / file).read_bytes()
    assert not list(tmp_path.rglob(".groups"))


def test_ctrl_c_ends_all_groups_of_a_pool_saved(text, tmp_path):
    pool = ("hydra/launcher=pool", "hydra.launcher.engine.devices=[a,b]", *LONG[:3])
    words = command(text, "arch=topk", "stream_seed=0,1", "name=s${stream_seed}", *pool)
    process = started(tmp_path, words)
    while len(list(tmp_path.rglob("metrics.csv"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and len(list(tmp_path.rglob("checkpoint/*.safetensors"))) == 2
    assert_nothing_is_left(tmp_path)
