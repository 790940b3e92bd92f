"""The command line: what it says, how fast, from where, what it leaves. The training is a stand-in (tests/standin)."""
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from standin.cli import ENV, ROOT, composed, train

from hydra_plugins.saesweep.sources import job_folder

PLACE = Path("outputs/default/standin/resid.1")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, hydra_restore_singletons):
    monkeypatch.chdir(tmp_path)


def typed(*words, script=ROOT / "train.py"):
    return subprocess.run([sys.executable, script, *words], capture_output=True, text=True, env=ENV, timeout=60)


def test_help_lists_the_knobs_and_the_choices_of_every_group():
    out = typed("--help").stdout
    for group in ("model", "site", "text", "trainer", "logger"):
        files = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"{group}: {', '.join(files)}" in out
    assert "sparsity" in out and "python train.py -m" in out and "outputs:" not in out and "Powered by" not in out


@pytest.mark.parametrize("word", ["--help", "sparsty=3", "site=residd"])
def test_an_answer_without_work_comes_in_under_a_second(word):
    def seconds():
        start = time.perf_counter()
        typed(word)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 1


def test_a_mistyped_key_is_named():
    ended = typed("sparsty=3")
    assert ended.returncode == 1 and "Could not override 'sparsty'" in ended.stderr and "Traceback" not in ended.stderr


@pytest.mark.parametrize("words", [["sparsity=0.001"], ["name=../x", "-m"], ["layer=7"]])
def test_a_users_mistake_is_one_plain_message_and_leaves_nothing(words):
    ended = typed(*words[1:], words[0], "arch=flat", script=ROOT / "tests/standin/run.py")
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith(f"{words[0]}: ") and ended.stderr.count("\n") == 1
    assert list(Path.cwd().iterdir()) == []


def test_a_single_run_leaves_the_folder_that_a_sweep_leaves():
    assert train("arch=flat", "sparsity=8").code == 0
    assert train("-m", "arch=round", "sparsity=8").code == 0
    names = [{str(p.relative_to(PLACE / arch)) for p in (PLACE / arch).rglob("*")} for arch in ("flat", "round")]
    assert names[0] == names[1]
    table = (PLACE.parents[1] / "pareto.csv").read_text()
    assert "resid.1/flat/8" in table and "resid.1/round/8" in table


def test_a_single_run_that_is_finished_is_not_trained_again(capsys):
    train("arch=flat", "sparsity=8")
    capsys.readouterr()
    assert train("arch=flat", "sparsity=8").code == 0
    out = capsys.readouterr().out
    assert "1 finished already" in out and "training" not in out and "resid.1" in out


def test_a_single_run_with_other_settings_is_refused_and_changes_nothing():
    train("arch=flat", "sparsity=8")
    kept = (PLACE / "flat/8/.hydra/config.yaml").read_text()
    ended = train("arch=flat", "sparsity=8", "context=64")
    assert ended.code == 1 and "context: 128 there, 64 here" in ended.error
    assert (PLACE / "flat/8/.hydra/config.yaml").read_text() == kept


def test_the_basic_launcher_skips_refuses_and_goes_on_as_the_grouped_one(capsys):
    basic = ("-m", "arch=flat,round", "sparsity=8", "hydra/launcher=basic")
    assert train(*basic, "text.fail=flat").code == 1
    assert (PLACE / "round/8/eval.json").exists() and not (PLACE / "flat/8/eval.json").exists()
    assert train(*basic, "text.fail=flat").code == 1
    assert train(*basic, "text.fail=null", "name=other").code == 0
    capsys.readouterr()
    ended = train(*basic, "name=other", "tokens=1000")
    assert ended.code == 1 and "tokens: 300000 there, 1000 here" in ended.error
    assert "tokens: 300000" in Path("outputs/other/standin/resid.1/flat/8/.hydra/config.yaml").read_text()
    assert train(*basic, "name=other").code == 0 and "training" not in capsys.readouterr().out


@pytest.mark.parametrize("launcher", ["grouped", "basic", None])
def test_a_plan_is_printed_and_nothing_is_trained(launcher, capsys):
    words = ["-m", f"hydra/launcher={launcher}", "sparsity=8,16"] if launcher else ["sparsity=8"]
    assert train(*words, "arch=flat", "plan=true").code == 0
    out = capsys.readouterr().out
    assert "to train in 1 group" in out and "training" not in out
    row = next(line for line in out.splitlines() if "resid.1/flat/8" in line)
    assert row.split() == ["resid.1", "flat", "8", "0", "8", "4096", "65.5", "k", "524", "kB", str(PLACE / "flat/8")]
    assert "300,000 tokens" in out and "about 90 s" in out
    assert not list(Path.cwd().rglob("eval.json")) and (launcher or list(Path.cwd().iterdir()) == [])


def test_a_sweep_file_is_found_from_any_working_directory(tmp_path):
    root = tmp_path / "repository"
    shutil.copytree(ROOT / "conf", root / "conf")
    shutil.copy(ROOT / "train.py", root)
    (root / "sweeps").mkdir()
    (root / "sweeps/mine.yaml").write_text(
        "# @package _global_\nname: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {sparsity: '8,16'}}}\n"
    )
    (root / "outputs/other").mkdir(parents=True)
    (root / "outputs/other/multirun.yaml").write_text("a: 1\n")
    shown = typed("--help", script=root / "train.py").stdout
    assert "sweeps: mine" in shown and "multirun" not in shown
    config = typed("sweeps=mine", "--cfg", "all", script=root / "train.py").stdout
    assert "name: mine" in config and "mode: MULTIRUN" in config and "sparsity: 8,16" in config


def test_the_folder_names_what_differs_and_the_seed_only_where_it_is_not_the_first():
    assert job_folder("gemma", "mlp", 9, "topk", 32, 0, None) == "gemma/mlp.9/topk/32"
    assert job_folder("gemma", "mlp", 9, "topk", 32, 2, None) == "gemma/mlp.9/topk/32.2"
    assert job_folder("gemma", "mlp", 9, "relu", 32, 2, 6e-4) == "gemma/mlp.9/relu/coefficient_0.0006.2"


def test_the_menu_composes_with_every_site_and_trainer():
    for group in ("site", "trainer"):
        for file in (ROOT / "conf" / group).glob("*.yaml"):
            assert composed("arch=flat", f"{group}={file.stem}")[group].name == file.stem
