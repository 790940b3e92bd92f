"""Several ranks train the same SAEs as one process, and no process outlives them. Through the command line."""

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
    """With this seed, no pre-activation is so close to its threshold that the order of a sum decides."""
    return write_text(tmp_path_factory.mktemp("text"), seed=1)


def swept(folder, words, code=0, env=ENV):
    folder.mkdir(exist_ok=True)
    ended = warm.run(words, folder, env)
    assert ended.returncode == code, ended.stdout[-3000:] + ended.stderr[-3000:]
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def one(text, tmp_path_factory):
    """One process with a thread per core; the ranks have one thread each."""
    folder = tmp_path_factory.mktemp("one")
    swept(folder, command(text, f"arch={','.join(ARCHS)}"), env={**ENV, "OMP_NUM_THREADS": str(os.cpu_count())})
    return folder


@pytest.fixture(scope="module")
def two(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return folder, swept(folder, command(text, f"arch={','.join(ARCHS)}", "trainer=ddp_sim"))


SWEEP_PARALLEL = ("trainer=sweep_parallel", "trainer.accelerator=cpu")


def test_saes_distributed_over_ranks_are_bitwise_those_of_one_process(text, one, tmp_path):
    swept(tmp_path, command(text, f"arch={','.join(ARCHS)}", *SWEEP_PARALLEL))
    found, wanted = ({str(f.relative_to(at)): f for f in at.rglob("*") if f.is_file()} for at in (tmp_path, one))
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name.endswith(("safetensors", "eval.json", "pareto.csv")):
            assert found[name].read_bytes() == wanted[name].read_bytes(), name
    assert_no_process_is_running(tmp_path)


def test_a_single_run_on_more_ranks_than_saes_trains_the_same_sae(text, one, tmp_path):
    words = command(text, "arch=gated", *SWEEP_PARALLEL)
    words.remove("-m")
    swept(tmp_path, words)
    file = f"{PLACE}/gated/4/sae/sae_weights.safetensors"
    assert (tmp_path / file).read_bytes() == (one / file).read_bytes()


def running_processes(folder):
    """The process ids of processes whose working directory is this folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(int(pid))
        except OSError:
            continue
    return found


def assert_no_process_is_running(folder):
    for _ in range(100):
        if not running_processes(folder):
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {running_processes(folder)}")


@pytest.mark.parametrize("name", ARCHS)
def test_two_ranks_train_what_one_trains(name, one, two):
    """Weights, thresholds, counters, coefficient, curve and evaluation after 50 steps, up to rounding."""
    folders = [at / PLACE / name / "4" for at in (one, two[0])]
    weights = [load_file(folder / "sae/sae_weights.safetensors") for folder in folders]
    assert weights[0].keys() == weights[1].keys()
    for key in weights[0]:
        torch.testing.assert_close(weights[1][key], weights[0][key], rtol=1e-5, atol=1e-5 * float(weights[0][key].abs().max()))
    alone, together = (json.loads((folder / "eval.json").read_text()) for folder in folders)
    assert (alone.pop("coefficient") is None) == (together.pop("coefficient") is None)  # metrics.csv has its values
    recovered = together.pop("loss_recovered"), alone.pop("loss_recovered")
    assert together == pytest.approx(alone, rel=1e-5)
    assert 1 - recovered[0] == pytest.approx(1 - recovered[1], rel=1e-5)  # it is near 0, as a difference of terms near 1
    curves = [list(csv.DictReader((folder / "metrics.csv").open())) for folder in folders]
    assert len(curves[0]) == len(curves[1]) == 5
    for alone, together in zip(*curves, strict=True):
        for key in alone.keys() - {"tokens_per_second"}:
            assert float(together[key]) == pytest.approx(float(alone[key]), rel=1e-4, abs=1e-7), key


def test_two_ranks_write_the_files_and_log_messages_of_one(one, two):
    folder, output = two
    found, wanted = ({str(f.relative_to(at)) for f in at.rglob("*") if f.is_file()} for at in (folder, one))
    assert found == wanted
    assert output.count("thresholds shifted") == 4 and "Traceback" not in output
    assert "thresholds shifted" in (folder / PLACE / "gated/4/train.log").read_text()
    assert_no_process_is_running(folder)


def test_a_single_run_on_two_ranks_trains_the_same_sae(text, two, tmp_path):
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


LONG = ("tokens=32_000", "text.repeat=true", "log_tokens=320", "trainer=ddp_sim")  # never trained to its end
ENOUGH = ("tokens=16_000", *LONG[1:])  # to be interrupted at its beginning


RESUMABLE = ("arch=jumprelu,batchtopk", "log_tokens=64")


@pytest.fixture(scope="module")
def interrupted(text, tmp_path_factory):
    """The folder of two ranks that got Ctrl-C after some of the 50 steps."""
    folder = tmp_path_factory.mktemp("interrupted")
    process = started(folder, [*command(text, *RESUMABLE), "trainer=ddp_sim"])
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in out
    assert_no_process_is_running(folder)
    steps = {int(file.name.split("-")[0]) for file in folder.rglob("checkpoint/*.safetensors")}
    assert max(steps) % 16 == 0 or max(steps) == 50
    return folder


@pytest.mark.parametrize("trainer", ["ddp_sim", "cpu"])
def test_ctrl_c_writes_checkpoints_from_which_any_number_of_ranks_resumes(text, one, interrupted, tmp_path, trainer):
    """Interrupted with two ranks, resumed with two or with one."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    output = swept(tmp_path, [*command(text, *RESUMABLE), f"trainer={trainer}"])
    assert "resuming at" in output
    for name in ("jumprelu", "batchtopk"):
        found, wanted = (load_file(at / PLACE / name / "4/sae/sae_weights.safetensors") for at in (tmp_path, one))
        for key in wanted:
            torch.testing.assert_close(found[key], wanted[key], rtol=1e-5, atol=1e-5 * float(wanted[key].abs().max()))


def test_ctrl_c_ends_ranks_with_different_saes_and_one_process_resumes_bitwise(text, tmp_path):
    words = command(text, "arch=jumprelu,batchtopk", *ENOUGH[:3], "activations.passes=3")
    swept(tmp_path / "whole", words)
    (tmp_path / "interrupted").mkdir()
    process = started(tmp_path / "interrupted", [*words, *SWEEP_PARALLEL])
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in out and len(list(tmp_path.rglob("checkpoint/*.safetensors"))) == 2
    assert_no_process_is_running(tmp_path / "interrupted")
    assert "resuming at" in swept(tmp_path / "interrupted", words)
    for file in (tmp_path / "whole").rglob("*.safetensors"):
        assert (tmp_path / "interrupted" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


def ranks(folder):
    """The process ids of the ranks."""
    found = []
    for pid in running_processes(folder):
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if "saesweep.sweep.engines.worker" in words and "torch.distributed.run" not in words:
            found.append(pid)
    return found


def test_a_rank_that_dies_ends_its_group_within_a_minute_and_the_sweep_continues(text, tmp_path):
    words = command(text, "arch=topk", "stream_seed=0,1", "name=s${stream_seed}", *ENOUGH)
    process = started(tmp_path, words)
    killed, began = ranks(tmp_path)[1], time.monotonic()
    os.kill(killed, signal.SIGKILL)
    while not list((tmp_path / "outputs").glob("s1/**/metrics.csv")):
        assert time.monotonic() - began < 60 and process.poll() is None
        time.sleep(0.2)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "1 of 2 SAEs failed" in out and "rank" in out
    assert not list(tmp_path.glob("outputs/s0/**/eval.json")) and list(tmp_path.glob("outputs/s1/**/eval.json"))
    assert_no_process_is_running(tmp_path)


def test_a_killed_launcher_leaves_no_process(text, tmp_path):
    process = started(tmp_path, command(text, "arch=topk", *LONG))
    process.kill()
    process.communicate()
    assert_no_process_is_running(tmp_path)


def test_two_nodes_train_what_one_process_trains(text, one, tmp_path):
    """Two torch.distributed.run on this machine stand for two nodes: one launches, the other joins."""
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
    output, _ = other.communicate(timeout=30)
    assert other.returncode == 0 and "ended with 0" in output
    for name in ("jumprelu", "topk"):
        found, wanted = (load_file(at / PLACE / name / "4/sae/sae_weights.safetensors") for at in (tmp_path, one))
        for key in wanted:
            torch.testing.assert_close(found[key], wanted[key], rtol=1e-5, atol=1e-5 * float(wanted[key].abs().max()))
    assert_no_process_is_running(tmp_path)
    assert not (sweep / ".groups").exists()


def test_several_nodes_need_a_rendezvous_address(text, tmp_path):
    output = swept(tmp_path, command(text, "arch=topk", "trainer=ddp_sim", "+trainer.num_nodes=2"), code=1)
    assert "trainer.num_nodes=2: set MASTER_ADDR and MASTER_PORT" in output and "Traceback" not in output


def test_a_pool_runs_one_group_per_device_at_a_time(text, tmp_path):
    pool = ("hydra/launcher=pool", "hydra.launcher.engine.devices=[a,b]")
    words = command(text, "arch=topk", "stream_seed=0,1,2", "name=s${stream_seed}", "tokens=640")
    output = swept(tmp_path, [*words, *pool])
    assert output.count("on a: ") + output.count("on b: ") == 3 and "on b: " in output
    alone = tmp_path / "alone"
    swept(alone, words)
    for seed in range(3):
        file = f"outputs/s{seed}/tiny/resid.1/topk/4/sae/sae_weights.safetensors"
        assert (tmp_path / file).read_bytes() == (alone / file).read_bytes()
    assert not list(tmp_path.rglob(".groups"))


def test_ctrl_c_ends_all_groups_of_a_pool_with_checkpoints(text, tmp_path):
    pool = ("hydra/launcher=pool", "hydra.launcher.engine.devices=[a,b]", *LONG[:3])
    words = command(text, "arch=topk", "stream_seed=0,1", "name=s${stream_seed}", *pool)
    process = started(tmp_path, words)
    while len(list(tmp_path.rglob("metrics.csv"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130 and len(list(tmp_path.rglob("checkpoint/*.safetensors"))) == 2
    assert_no_process_is_running(tmp_path)
