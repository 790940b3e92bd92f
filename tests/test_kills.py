"""A training that is killed at any step, and a sweep that is killed at any kind of change of the disk, resume to the same bits.

Kills of real processes are in test_saves.py.
"""
import re

import pytest
import torch
from killed import Killed, killed
from small import command, job, results, trained, write_text
from standin.cli import train_for_real

GROUP = ("arch=jumprelu,topk", "sparsity=4", "tokens=640", "save_tokens=128", "log_tokens=128", "text.repeat=true")
STEPS = 10
JOB = "outputs/default/tiny/resid.1/jumprelu/4"
AFTER_THE_FIRST_SAE = (
    "os.chmod checkpoint/.draft", "os.rename checkpoint/.draft", "os.rename .eval.json", "os.rmdir checkpoint",
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_figures")]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def kill_after(steps):
    def kill(module):
        if module.steps_done == steps:
            raise Killed

    return kill


def test_a_training_killed_after_any_step_resumes_to_the_same_bits(text, tmp_path):
    """Saved after every second step; each step is reported, and the kill comes before the save of that step."""
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
    """Whether to kill: once at each kind of change. Of the second SAE's only those that leave one of two SAEs behind."""

    def __init__(self):
        self.kinds = []

    def __call__(self, change):
        event, _, path = change.partition(" ")
        if event == "open" and path.endswith(".tmp"):
            return False  # the rename of this draft is a kind of its own
        kind = re.sub(r"(.*/)?\.pareto\.\w+|(.*/)?\.frequency\.\w+(?=\.PID)", ".report", change.replace(f"{JOB}/", ""))
        if "/topk" in kind and not any(kind.startswith(event) and path.removesuffix(".PID.tmp").endswith(f"topk/4/{end}")
                                       for event, end in map(str.split, AFTER_THE_FIRST_SAE)):
            return False
        if kind in self.kinds:
            return False
        self.kinds.append(kind)
        return True


def test_a_sweep_killed_once_at_each_kind_of_change_of_the_disk_leaves_what_an_undisturbed_one_leaves(
    text, tmp_path, monkeypatch, hydra_restore_singletons
):
    """One command after the other in the same folder, each killed at the first change of a kind that none was killed at."""
    words, once = command(text, *GROUP)[2:], OncePerKind()
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    assert train_for_real(*words).code == 0
    monkeypatch.chdir(tmp_path / "killed")
    for commands in range(60):
        try:
            with killed(tmp_path / "killed", once):
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
