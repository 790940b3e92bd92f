"""The command line: messages, exit codes, speed, files. The training is a stand-in (tests/standin)."""
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from standin.cli import ENV, ROOT, composed, train

from hydra_plugins.saesweep.sources import job_folder
from saesweep.errors import UsageError
from saesweep.storage import files
from saesweep.sweep.jobs import job_of

PLACE = Path("outputs/default/standin/resid.1")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, hydra_restore_singletons, without_figures):
    monkeypatch.chdir(tmp_path)


def run_script(*words, script=ROOT / "train.py"):
    return warm.run([sys.executable, str(script), *words], Path.cwd(), ENV)


@pytest.mark.process
def test_help_lists_the_keys_and_the_choices_of_every_group():
    out = run_script("--help").stdout
    for group in ("model", "site", "text", "trainer", "logger", "study", "explainer"):
        files = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        assert f"{group}: {', '.join(files)}" in out
    assert "sparsity" in out and "python train.py -m" in out and "outputs:" not in out and "Powered by" not in out


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("word", ["--help", "sparsty=3", "site=residd"])
def test_help_and_mistakes_take_less_than_a_second_of_processor_time(word):
    """Other processes hardly change processor time. Importing torch alone takes longer than a second."""
    def seconds():
        return sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])  # user and system

    def taken():
        before = seconds()
        subprocess.run([sys.executable, ROOT / "train.py", word], capture_output=True, env=ENV, timeout=60)
        return seconds() - before

    assert any(0 < taken() < 1 for _ in range(3))


@pytest.mark.parametrize("words, line", [
    (["sparsty=3"], "sparsty=3: there is no key sparsty; did you mean sparsity?"),
    (["-m", "sparsty=3,4"], "sparsty=3,4: there is no key sparsty; did you mean sparsity?"),
    (["--plan"], "--plan: there is no such option; a setting has no dashes: plan=..."),
    (["sparsity=8", "-m", "width=64"], "width=64: comes after an option that follows settings; write options such as -m first"),
    (["-m", "arch=glob(jmp*)"], "no job: arch=glob(jmp*) matches none of batchtopk, batchtopk_limited, gated, "),
    (["-m", "seed=range(3,1)"], "no job: seed=range(3,1) has no value; "),
    (["-m", "arch=topk,topk"], "arch=topk,topk: gives topk twice; write each value once"),
    (["~sparsity"], "sparsity: is missing; hydra.run.dir refers to it"),
    (["-m", "hydra/launcher=pool"], "hydra.launcher.engine.devices: is missing; "),
    (["study=rules", "study.featurs=3"], "study.featurs=3: there is no key study.featurs; did you mean study.features?"),
    (["study.features=3"], "study.features=3: study=none has no keys; write study=rules too"),
    (["study=rule"], "study=rule: study has no such choice; did you mean rules? There are none, rules"),
    (["-m", "study=none,rules"], "study=none,rules: a study is of a whole sweep, so its settings are not swept over; "),
    (["study=rules", "study.seed=1,2"], "study.seed=1,2: a study is of a whole sweep, so its settings are not swept over; "),
    (["study=rules", "study.out=x"], "study.out=x: there is no key study.out; "),
    (["-m", "sparsity=interval(1,3)"], "BasicSweeper does not support sweep type"),
])
def test_a_config_that_cannot_be_composed_is_one_line_with_the_fix_and_exit_code_1(words, line):
    ended = run_script(*words)
    assert ended.returncode == 1 and ended.stdout == ""
    assert ended.stderr.startswith(line) and ended.stderr.count("\n") == 1
    assert not list(Path.cwd().rglob("*.log"))


@pytest.mark.process
def test_HYDRA_FULL_ERROR_shows_hydras_traceback(monkeypatch):
    monkeypatch.setitem(ENV, "HYDRA_FULL_ERROR", "1")
    ended = run_script("sparsty=3")
    assert ended.returncode == 1 and "Traceback" in ended.stderr and "Could not override 'sparsty'" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["-m"]])
@pytest.mark.parametrize("word, line", [
    ("width=${nope}", "nope: is missing; width refers to it"),
    ("evaluation.tokens=${no.pe}", "no.pe: is missing; evaluation.tokens refers to it"),
    ("text.fail=${oc.env:NOPE}", "text.fail: refers to the environment variable NOPE, which is not set"),
    ("width=${oops:3}", "width: Unsupported interpolation type oops"),
    ("width=${sparsity.x}", "width: ConfigTypeError raised while resolving"),
    ("seed=${seed}", "seed: refers to itself; write a value"),
    ("layer=${hydra:job.numm}", "layer=null: must be a whole number"),
])
def test_an_interpolation_that_cannot_be_resolved_is_one_line_and_starts_no_job(word, line, mode, capsys):
    ended = train(*mode, "arch=flat", word)
    assert ended.code == 1 and ended.error.startswith(line) and "\n" not in ended.error
    assert "training" not in capsys.readouterr().out and not list(Path.cwd().rglob("train.log"))


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_an_unexpected_error_of_the_check_is_shown_and_starts_no_job(mode, monkeypatch, capsys):
    def broken(*_):
        raise IndexError("a bug in the check")

    monkeypatch.setattr("saesweep.sweep.preflight." + ("check_name" if mode else "refuse"), broken)
    assert train(*mode, "arch=flat").code == 1
    out, err = capsys.readouterr()
    assert "Traceback" in err and "IndexError: a bug in the check" in err and "training" not in out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_a_list_of_choices_of_a_group_is_refused():
    ended = train("-m", "arch=[flat,round]")
    assert ended.code == 1
    assert ended.error == "arch=[flat,round]: is one choice; to sweep over several, write arch=flat,round with -m"


@pytest.mark.slow
def test_two_spellings_of_the_same_sae_are_refused():
    ended = train("-m", "arch=flat", "sparsity=16,16.0")
    assert ended.code == 1 and ended.error == f"2 jobs of this sweep are the same SAE, {PLACE}/flat/16: give each value once"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["-m"], [], ["-m", "hydra/launcher=basic"]])
def test_a_tilde_in_the_folder_of_a_sweep_is_the_home_folder(words, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert train(*words, "arch=flat", "sparsity=8", "hydra.sweep.dir='~/runs'").code == 0
    assert (tmp_path / "home/runs/standin/resid.1/flat/8/eval.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_a_tilde_in_a_path_of_the_settings_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    paths = ("text.glob='~/texts/*.jsonl'", "cache.folder='~/kept'", "model.source.hub='~/gpt2'")
    words = ("text=files", "cache=disk", "model=gpt2", *paths)
    settings = job_of(composed(*words, always=("logger=csv",), whole=True), single=True).settings
    assert settings["text"]["glob"] == "/home/me/texts/*.jsonl"
    assert settings["cache"]["folder"] == "/home/me/kept" and settings["model"]["source"]["hub"] == "/home/me/gpt2"


def test_whole_numbers_written_as_floats_give_the_same_folder():
    assert job_folder("gemma", "mlp", 9.0, "topk", 32.0, 2.0, None) == "gemma/mlp.9/topk/32.2"


@pytest.mark.slow
def test_the_command_of_an_sae_quotes_its_values_for_the_shell():
    word = "text.fail='a, b=c \"d\" $HOME'"
    assert train("-m", "arch=flat", "sparsity=8,16", word).code == 0
    found = files.command(PLACE / "flat/16")
    assert shlex.split(found)[2:] == ["arch=flat", "sparsity=16", word, "model=standin", "text=standin", "logger=csv"]


@pytest.mark.parametrize("mode", [[], ["-m"]])
@pytest.mark.parametrize("where, line", [
    ("", "hydra.sweep.dir=: must be the path of a folder"),
    ("' '", "hydra.sweep.dir= : must be the path of a folder"),
    ("a_file", "a_file"), ("a_file/below", "a_file/below"), ("/proc/nope", "/proc/nope"),
    ("'~nobody9/x'", "hydra.sweep.dir=~nobody9/x: there is no user nobody9 here"),
])
def test_a_folder_that_cannot_be_created_is_refused_in_one_line(where, line, mode):
    Path("a_file").touch()
    ended = train(*mode, "arch=flat", "sparsity=8", f"hydra.sweep.dir={where}")
    assert ended.code == 1 and ended.error.startswith(line) and "\n" not in ended.error
    assert {path.name for path in Path.cwd().iterdir()} == {"a_file"}


@pytest.mark.parametrize("word", ["hydra.run.dir=", "cache.folder="])
def test_an_empty_path_of_another_key_is_refused(word):
    ended = train("arch=flat", "sparsity=8", word)
    assert ended.code == 1 and ended.error.startswith(f"{word}: must be ") and list(Path.cwd().iterdir()) == []


def test_a_run_folder_outside_the_sweeps_folder_is_refused_before_training(tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "run"
    ended = train("arch=flat", "sparsity=8", f"hydra.run.dir={outside}")
    assert ended.code == 1 and ended.error.startswith(f"hydra.run.dir={outside}: is outside the folder of the sweep, ")
    assert not outside.exists() and list(Path.cwd().iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("exists", [False, True])
def test_a_single_run_that_is_refused_late_changes_no_file(exists, monkeypatch):
    from standin import run

    if exists:
        assert train("arch=flat", "sparsity=8").code == 0
        (PLACE / "flat/8/eval.json").unlink()
    before = all_files()

    def estimate(jobs, resources, folder):
        raise UsageError("text.glob=nope: no such file")

    monkeypatch.setattr(run, "estimate", estimate)
    assert train("arch=flat", "sparsity=8", "log_tokens=20_000").error == "text.glob=nope: no such file"
    assert all_files() == before


def all_files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in Path.cwd().rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    ["arch=flat", "sparsity=9", "plan=true"], ["arch=flat", "sparsity=9", "layer=7"], ["arch=flat,nope"],
    ["arch=flat", "sparsity=9,9.0"], ["arch=flat", "sparsity=9", "width=77"],
])
def test_a_sweep_that_is_planned_or_refused_changes_no_file(words, monkeypatch):
    from standin import run

    def estimate(jobs, resources, folder, real=run.estimate):
        if jobs[0]["width"] == 77:
            raise UsageError("refused by the probe")
        return real(jobs, resources, folder)

    monkeypatch.setattr(run, "estimate", estimate)
    train("-m", *words)
    assert all_files() == {}
    assert train("-m", "arch=flat", "sparsity=8,16").code == 0
    before = all_files()
    assert Path("outputs/default/multirun.yaml").is_file()
    train("-m", *words)
    assert all_files() == before


@pytest.mark.parametrize("words", [["sparsity=0.001"], ["name=../x", "-m"], ["layer=7"]])
def test_a_users_mistake_is_one_line_and_leaves_no_file(words, capfd):
    ended = train(*words[1:], words[0], "arch=flat")
    assert ended.code == 1 and ended.error.startswith(f"{words[0]}: ") and "\n" not in ended.error
    out, err = capfd.readouterr()
    assert out == "" and "Traceback" not in err
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
def test_a_single_run_writes_the_same_files_as_a_sweep():
    assert train("arch=flat", "sparsity=8").code == 0
    assert train("-m", "arch=round", "sparsity=8").code == 0
    names = [{str(p.relative_to(PLACE / arch)) for p in (PLACE / arch).rglob("*")} for arch in ("flat", "round")]
    assert names[0] == names[1]
    table = (PLACE.parents[1] / "pareto.csv").read_text()
    assert "resid.1/flat/8" in table and "resid.1/round/8" in table


@pytest.mark.slow
def test_a_finished_single_run_is_not_trained_again(capsys):
    train("arch=flat", "sparsity=8")
    capsys.readouterr()
    assert train("arch=flat", "sparsity=8").code == 0
    out = capsys.readouterr().out
    assert "1 already finished" in out and "training" not in out and "resid.1" in out


def test_a_failed_single_run_ends_with_its_reason_in_one_line(capsys):
    ended = train("arch=flat", "sparsity=8", "text.diverge=true", "arch.optimizer.lr=1e9")
    reason = "flat/8: mse not finite after 640 tokens"
    assert ended.code == 1
    assert ended.error == f"{reason} (see {PLACE}/flat/8/failed.txt); lower arch.optimizer.lr=1e+09"
    assert reason in (PLACE / "flat/8/failed.txt").read_text() and reason in (PLACE / "flat/8/train.log").read_text()
    assert "Set the environment variable HYDRA_FULL_ERROR" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_single_run_with_other_settings_is_refused_and_changes_no_file():
    train("arch=flat", "sparsity=8")
    kept = (PLACE / "flat/8/.hydra/config.yaml").read_text()
    ended = train("arch=flat", "sparsity=8", "context=64")
    assert ended.code == 1 and "context: 128 there, 64 here" in ended.error
    assert (PLACE / "flat/8/.hydra/config.yaml").read_text() == kept


@pytest.mark.slow
def test_the_basic_launcher_skips_refuses_and_continues_like_the_grouped_one(capsys):
    basic = ("-m", "arch=flat,round", "sparsity=8", "hydra/launcher=basic")
    assert train(*basic, "text.fail=flat").code == 1
    assert (PLACE / "round/8/eval.json").exists() and not (PLACE / "flat/8/eval.json").exists()
    assert train(*basic, "text.fail=flat").code == 1
    assert train(*basic, "text.fail=null", "name=other").code == 0
    capsys.readouterr()
    ended = train(*basic, "name=other", "tokens=1000")
    assert ended.code == 1 and "tokens: 225000 there, 1000 here" in ended.error
    assert "tokens: 225000" in Path("outputs/other/standin/resid.1/flat/8/.hydra/config.yaml").read_text()
    assert train(*basic, "name=other").code == 0 and "training" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["grouped", "basic", None])
def test_a_plan_is_printed_and_nothing_is_trained(launcher, capsys):
    words = ["-m", f"hydra/launcher={launcher}", "sparsity=8,16"] if launcher else ["sparsity=8"]
    assert train(*words, "arch=flat", "plan=true").code == 0
    out = capsys.readouterr().out
    assert "to train in 1 group" in out and "training" not in out
    row = next(line for line in out.splitlines() if "resid.1/flat/8" in line)
    assert row.split() == ["resid.1", "flat", "8", "0", "8", "4096", "65.5", "k", "786", "kB", str(PLACE / "flat/8")]
    assert "225,000 tokens" in out and "about 90 s" in out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.slow
@pytest.mark.process
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
    shown = run_script("--help", script=root / "train.py").stdout
    assert "sweeps: mine" in shown and "multirun" not in shown
    config = run_script("sweeps=mine", "--cfg", "all", script=root / "train.py").stdout
    assert "name: mine" in config and "mode: MULTIRUN" in config and "sparsity: 8,16" in config


def test_the_folder_of_a_job_contains_the_seed_only_if_it_is_not_0():
    assert job_folder("gemma", "mlp", 9, "topk", 32, 0, None) == "gemma/mlp.9/topk/32"
    assert job_folder("gemma", "mlp", 9, "topk", 32, 2, None) == "gemma/mlp.9/topk/32.2"
    assert job_folder("gemma", "mlp", 9, "relu", 32, 2, 6e-4) == "gemma/mlp.9/relu/coefficient_0.0006.2"


def test_train_yaml_composes_with_every_site_and_trainer():
    for group in ("site", "trainer"):
        for file in (ROOT / "conf" / group).glob("*.yaml"):
            assert composed("arch=flat", f"{group}={file.stem}")[group].name == file.stem
