"""One Slurm job per group, on a real Slurm: it trains the same SAEs, and cancelled and requeued jobs resume bitwise."""

import re
import signal
import subprocess
import time

import pytest
import slurm_cluster
import warm
from small import command, weights, write_text
from standin.cli import ENV

pytestmark = [
    pytest.mark.slow, pytest.mark.process, pytest.mark.cluster,
    pytest.mark.skipif(slurm_cluster.unavailable_reason() is not None, reason=str(slurm_cluster.unavailable_reason())),
]
GROUP = ("arch=jumprelu,batchtopk", "sparsity=4", "tokens=32_000", "text.repeat=true", "log_tokens=320")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.engine.poll=0.3", "trainer=ddp_sim")
TWO_NODES = ("trainer.devices=1", "+trainer.num_nodes=2")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as found:
        yield ENV | found


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def local(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    assert warm.run(command(text, *GROUP, "trainer=ddp_sim"), folder, ENV).returncode == 0
    return weights(folder)


class Launched:
    """The launcher in the background; its job is training when the constructor returns."""

    def __init__(self, folder, text, environment, *more):
        self.folder, self.environment = folder, environment
        words = command(text, *GROUP, *SLURM, *more)
        self.process = warm.popen(words, folder, environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while not list(folder.rglob("metrics.csv")):
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.05)

    def slurm(self, *words):
        return subprocess.run(words, env=self.environment, check=True, capture_output=True, text=True).stdout

    @property
    def job(self):
        return self.slurm("squeue", "-h", "-o", "%i").split()[0]

    def end(self):
        out, _ = self.process.communicate(timeout=180)
        return self.process.returncode, out


def resumed(folder):
    """The number of resumes in the job's log."""
    return (folder / "outputs/default/tiny/resid.1/jumprelu/4/train.log").read_text().count("resuming at")


def test_a_job_resumes_after_its_time_limit_and_after_a_requeue(text, local, environment, tmp_path):
    """Both happen to one job, which writes a checkpoint each time."""
    launched = Launched(tmp_path, text, environment)
    launched.slurm("scancel", "--signal=USR2", launched.job)
    while not resumed(tmp_path):
        assert launched.process.poll() is None, launched.process.stdout.read()
        time.sleep(0.05)
    launched.slurm("scontrol", "requeue", launched.job)
    code, out = launched.end()
    assert code == 0, out
    assert resumed(tmp_path) == 2
    assert weights(tmp_path) == local


def test_a_job_on_two_nodes_resumes_after_a_node_failure(text, local, environment, tmp_path):
    launched = Launched(tmp_path, text, environment, *TWO_NODES, "save_tokens=3200")
    while not list(tmp_path.rglob("checkpoint/*.safetensors")):
        time.sleep(0.05)
    launched.slurm("scontrol", "update", f"nodename={slurm_cluster.NODES[1]}", "state=down", "reason=test")
    code, out = launched.end()
    assert code == 0, out
    assert resumed(tmp_path) == 1
    assert weights(tmp_path) == local


def test_a_cancelled_job_is_a_failure_and_the_same_command_resumes_it(text, local, environment, tmp_path):
    launched = Launched(tmp_path, text, environment)
    launched.slurm("scancel", launched.job)
    code, out = launched.end()
    assert code == 1 and "2 of 2 SAEs failed" in out and "CANCELLED" in out
    ended = warm.run(command(text, *GROUP, *SLURM), tmp_path, environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"job \d+: running", ended.stdout) and "jumprelu" in ended.stdout.split("resid.1\n")[-1]
    assert resumed(tmp_path) == 1
    assert weights(tmp_path) == local
    assert not list(tmp_path.rglob(".groups"))


def test_ctrl_c_at_the_launcher_ends_the_job_with_checkpoints(text, environment, tmp_path):
    launched = Launched(tmp_path, text, environment)
    launched.process.send_signal(signal.SIGINT)
    code, out = launched.end()
    assert code == 130 and "interrupted" in out
    assert len(list(tmp_path.rglob("checkpoint/*.safetensors"))) >= 2
    assert not launched.slurm("squeue", "-h", "-t", "PD,R")
