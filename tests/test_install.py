"""The installed program: its commands, and a user's own conf/ and sweeps/."""
import subprocess
import sys
from pathlib import Path

import pytest
from standin.cli import ENV, ROOT

from saesweep import cli
from saesweep.runtime import program

MINE = "defaults: [topk, _self_]\nname: mine\noptimizer: {lr: 0.5}\n"
SWEEP = "# @package _global_\nname: own\nhydra: {mode: MULTIRUN, sweeper: {params: {sparsity: '8,16'}}}\n"
COMMANDS = "train, model, pareto, evaluate, study, ablate, rate, report, export, push, dashboard, join"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ended(*command, **environment):
    env = {key: value for key, value in ENV.items() if key != program.INSTALLED} | environment
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, timeout=60)


def saesweep(*words, **environment):
    """Runs saesweep like the installed script, without the working directory in sys.path."""
    return ended("-P", "-c", "from saesweep.cli import main; main()", *words, **environment)


def write(name, text):
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_help_lists_the_commands_and_imports_no_large_library(capsys):
    heavy = "import sys, saesweep.cli as c; c.main(); sys.exit(str({'torch', 'hydra', 'pandas'} & {*sys.modules}))"
    shown = ended("-c", heavy, "--help")
    assert shown.stderr == "set()\n"
    for command in COMMANDS.split(", "):
        assert len([line for line in shown.stdout.splitlines() if line.split()[:1] == [command]]) == 1


@pytest.mark.parametrize("words, line", [
    (["trian"], f"trian: there is no such command; did you mean train? There are {COMMANDS}"),
    (["x"], f"x: there is no such command; there are {COMMANDS}"),
    (["sparsity=8"], "sparsity=8: is no command; settings come after one: saesweep train sparsity=8"),
    (["-m", "sparsity=8,9"], "-m: is no command; settings come after one: saesweep train -m sparsity=8,9"),
    (["pareto", "nowhere"], "nowhere is not a folder: give the folder of a sweep, such as outputs/default"),
    (["join", "outputs/default"], "set MASTER_ADDR, MASTER_PORT and NODE_RANK, which is 1 or more on a node that joins"),
])
def test_a_mistake_is_one_line(words, line, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["saesweep", *words])
    monkeypatch.setenv(program.INSTALLED, "1")
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == line


def test_the_version_is_printed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["saesweep", "--version"])
    monkeypatch.setenv(program.INSTALLED, "1")
    cli.main()
    assert capsys.readouterr().out == "saesweep 0.1.0\n"


@pytest.mark.slow
def test_help_and_messages_of_train_name_the_program_as_it_was_called():
    shown = saesweep("train", "--help").stdout
    assert "saesweep train -m arch=" in shown and "train.py" not in shown
    assert "add -m, as in saesweep train -m sparsity=8,16" in saesweep("train", "sparsity=8,16").stderr
    assert "add -m, as in python train.py -m sparsity=8,16" in ended(ROOT / "train.py", "sparsity=8,16").stderr


@pytest.mark.slow
def test_the_program_composes_the_same_config_as_train_py():
    words = ("model=synthetic", "arch=jumprelu", "sweeps=synthetic", "--cfg", "job")
    assert saesweep("train", *words).stdout == ended(ROOT / "train.py", *words).stdout != ""


def test_shell_completion_knows_commands_and_choices():
    query = ("-sc", "query=bash")
    assert saesweep(*query, COMP_LINE="saesweep tr").stdout.split() == list(cli.COMMANDS)
    assert saesweep(*query, COMP_LINE="saesweep train arch=paper_t").stdout.split() == ["arch=paper_topk"]


@pytest.mark.slow
def test_a_users_conf_and_sweeps_are_found_by_the_program_and_not_by_train_py():
    write("conf/arch/mine.yaml", MINE)
    write("conf/train.yaml", "of: another program\n")
    write("sweeps/mine.yaml", SWEEP)
    composed = saesweep("train", "sweeps=mine", "arch=mine", "--cfg", "job")
    assert composed.stderr == "" and "lr: 0.5" in composed.stdout and "name: own" in composed.stdout
    assert "another program" not in composed.stdout
    refused = ended(ROOT / "train.py", "arch=mine", "--cfg", "job")
    assert refused.stderr.startswith("arch=mine: arch has no such choice") and "mine" not in refused.stderr[10:]


@pytest.mark.slow
def test_a_users_file_replaces_the_programs_file_of_the_same_name_with_a_notice():
    write("conf/arch/topk.yaml", (ROOT / "conf/arch/topk.yaml").read_text() + "\nnote: ours\n")
    write("conf/arch/relu.yaml", (ROOT / "conf/arch/relu.yaml").read_text())
    write("sweeps/quickstart.yaml", SWEEP)
    composed = saesweep("train", "arch=topk", "sweeps=quickstart", "--cfg", "job")
    assert "note: ours" in composed.stdout and "name: own" in composed.stdout
    assert sorted(composed.stderr.splitlines()) == [
        "conf/arch/topk.yaml is read in place of the program's own arch/topk.yaml",
        "sweeps/quickstart.yaml is read in place of the program's own sweeps/quickstart.yaml",
    ]
    assert saesweep("train", "arch=relu", "--cfg", "job").stderr == ""  # an identical file gives no notice


@pytest.mark.slow
def test_a_users_architecture_is_imported_from_the_working_directory():
    write("conf/arch/mine.yaml", MINE + "_target_: mine.Nope\n")
    write("mine.py", "")
    refused = saesweep("train", "model=synthetic", "arch=mine", "logger=csv", SAESWEEP_PACKAGES="mine")
    assert "arch._target_=mine.Nope: cannot be imported (No module named 'mine.Nope'; " in refused.stderr


def test_invalid_yaml_is_one_line_with_file_and_line():
    write("conf/arch/mine.yaml", "name: mine\noptimizer: {lr: 0.5\n")
    refused = saesweep("train", "arch=mine")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "conf/arch/mine.yaml: is not readable YAML, line 3: expected ',' or '}'" in refused.stderr


def test_the_conf_of_an_installed_package_precedes_that_of_a_checkout(tmp_path, monkeypatch):
    assert program.root() == ROOT and program.called("train") == "python train.py"
    write("site/saesweep/conf/train.yaml", "")
    monkeypatch.setattr(program, "__file__", str(tmp_path / "site/saesweep/runtime/program.py"))
    assert program.root() == tmp_path / "site/saesweep" and program.called("train") == "saesweep train"
