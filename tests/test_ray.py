"""One Ray task per group: it trains the same SAEs, and resumes from its checkpoints after its worker dies."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import warm
from small import command, weights, write_text
from standin.cli import ENV

pytest.importorskip("ray", reason="pip install -e '.[ray]'")
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.cluster]
GROUP = ("arch=jumprelu,topk", "sparsity=4", "tokens=64_000", "text.repeat=true", "log_tokens=320", "save_tokens=640")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def local(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    assert warm.run(command(text, *GROUP), folder, ENV).returncode == 0
    return weights(folder)


def parent_of_the_rank(folder):
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"saesweep.sweep.engines.worker" in stat.read_bytes() and os.readlink(stat.parent / "cwd") == str(folder):
                return int((stat.parent / "stat").read_text().split(")")[1].split()[1])
        except OSError:
            continue
    raise AssertionError("no rank is running")


def test_a_group_on_ray_trains_the_same_saes_as_a_local_one_even_if_its_worker_dies(text, local, tmp_path):
    process = subprocess.Popen(command(text, *GROUP, "hydra/launcher=ray"), cwd=tmp_path, env=ENV, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    while not list(tmp_path.rglob("checkpoint/*.safetensors")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    os.kill(parent_of_the_rank(tmp_path), signal.SIGKILL)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert "resuming at" in (tmp_path / "outputs/default/tiny/resid.1/topk/4/train.log").read_text()
    assert weights(tmp_path) == local
    assert not list(tmp_path.rglob(".groups"))
