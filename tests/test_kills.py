"""A training killed at any step, and a sweep killed at any kind of file system change, resume to bitwise equal results.

Kills of real processes are in test_checkpoints.py.
"""
import copy
import os
import re
from enum import Enum

import pytest
import torch
from simulated_kill import Killed, simulated_kill
from small import command, job, results, trained, write_text
from standin.cli import train_for_real

from saesweep.sweep import per_arch, probe

GROUP = ("arch=jumprelu,topk", "sparsity=4", "tokens=640", "save_tokens=128", "log_tokens=128", "text.repeat=true")
STEPS = 10
JOB = "outputs/default/tiny/resid.1/jumprelu/4"
SECOND_SAE_CHANGES = (
    "os.chmod checkpoint/.draft", "os.rename checkpoint/.draft", "os.rename .eval.json", "os.rmdir checkpoint",
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_figures", "without_type_checks")]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def kill_after(steps):
    def kill(module):
        if module.steps_done == steps:
            raise Killed

    return kill


def test_a_training_killed_after_any_step_resumes_to_bitwise_equal_weights(text, tmp_path):
    """It writes checkpoints after every second step; each kill comes before the checkpoint of that step."""
    jobs = [job(text, f"arch={arch}", *GROUP[2:], "log_tokens=64") for arch in ("jumprelu", "topk")]
    wanted = trained(jobs, tmp_path / "whole").state_dict()
    curves = [(tmp_path / f"whole/{i}/metrics.csv").read_text().splitlines() for i in range(2)]
    for steps in range(1, STEPS + 1):
        folder = tmp_path / str(steps)
        with pytest.raises(Killed):
            trained(jobs, folder, progress=kill_after(steps))
        assert not list(folder.rglob(f"{steps}-*.safetensors"))
        found = trained(jobs, folder).state_dict()
        assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted), steps
        for i, curve in enumerate(curves):
            rows = (folder / f"{i}/metrics.csv").read_text().splitlines()
            assert [row.rpartition(",")[0] for row in rows] == [row.rpartition(",")[0] for row in curve], steps


class OncePerKind:
    """Decides where to kill: once at each kind of change, and at few kinds for the second SAE."""

    def __init__(self):
        self.kinds = []

    def __call__(self, change):
        event, _, path = change.partition(" ")
        if event == "open" and path.endswith(".tmp"):
            return False  # the rename of this temporary file is a kind of its own
        kind = re.sub(r"(.*/)?\.pareto\.\w+|(.*/)?\.frequency\.\w+(?=\.PID)", ".report", change.replace(f"{JOB}/", ""))
        if "/topk" in kind and not any(kind.startswith(event) and path.removesuffix(".PID.tmp").endswith(f"topk/4/{end}")
                                       for event, end in map(str.split, SECOND_SAE_CHANGES)):
            return False
        if kind in self.kinds:
            return False
        self.kinds.append(kind)
        return True


@pytest.fixture
def prepared_once(monkeypatch):
    """The same command in the same folder has the same config, and its jobs the same plan; both only read files. A run after
    a kill takes a copy.
    """
    def once(owner, name):
        call, known = getattr(owner, name), {}

        def copied(*args, **more):
            key = repr((os.getcwd(), [arg for arg in args if isinstance(arg, str | list | bool | Enum)], more))
            if key not in known:
                known[key] = call(*args, **more)
            return copy.deepcopy(known[key])

        monkeypatch.setattr(owner, name, copied)

    once(per_arch, "LOAD")
    once(probe, "estimate")


@pytest.mark.usefixtures("prepared_once")
def test_a_sweep_killed_at_each_kind_of_change_ends_like_an_uninterrupted_one(
    text, tmp_path, monkeypatch, hydra_restore_singletons
):
    """Runs the same command again and again in one folder; each run is killed at the first change of a new kind."""
    words, once = command(text, *GROUP)[2:], OncePerKind()
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert train_for_real(*words).code == 0
    monkeypatch.chdir(tmp_path / "killed")
    for commands in range(60):
        try:
            with simulated_kill(tmp_path / "killed", once):
                assert train_for_real(*words).code == 0
            break
        except Killed:
            assert len(once.kinds) == commands + 1
    print(*once.kinds, sep="\n")
    assert {"open .hydra/config.yaml", "os.chmod checkpoint/.draft", "os.rename .eval.json.PID.tmp", "os.rename .report"} <= {
        kind.removesuffix(".PID.tmp") if ".report" in kind else kind for kind in once.kinds
    }
    found, wanted = results(tmp_path / "killed"), results(tmp_path / "whole")
    assert found.keys() == wanted.keys() and len(wanted) == 2 * 4
    for name in wanted:
        assert found[name] == wanted[name], name
    tables = [(tmp_path / name / "outputs/default/pareto.csv").read_bytes() for name in ("whole", "killed")]
    assert tables[0] == tables[1] and not list((tmp_path / "killed").rglob("checkpoint"))
