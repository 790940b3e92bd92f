"""`saesweep study`: what it is given, what it says, and what a kill leaves."""
import shutil
import sys
import time

import pytest
import warm
from small import RESOURCES
from standin.cli import ENV
from studied import asked, sweep, trained, written  # noqa: F401 fixtures

from saesweep.errors import UsageError
from saesweep.study import __main__ as command
from saesweep.study import collect as stage
from saesweep.study import run, settings
from saesweep.study.scoring import Scored

CONTROLS = "must be a list, such as [random], of random, residual, pca"
FEW = ("tokens=3000", "features=10", "dense_tokens=300", "device=cpu", "forward_tokens=128")


def typed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["saesweep study", *map(str, words)])
    command.main()


@pytest.mark.parametrize("words, line", [
    (["token=5"], "token=5: there is no key token; did you mean tokens?"),
    (["tokens=0"], "tokens=0: must be at least 1"),
    (["tokens=300k"], "tokens=300k: must be a whole number, such as tokens=300e3"),
    (["device=gpu"], "device=gpu: must be auto or cpu or cuda"),
    (["controls=pca"], f"controls=pca: {CONTROLS}"),
    (["controls=[pcs]"], f"controls=['pcs']: {CONTROLS}"),
    (["seed=[1"], None),
])
def test_a_setting_that_cannot_work_is_one_line(words, line):
    with pytest.raises(UsageError) as refused:
        settings.settings(words)
    assert "\n" not in str(refused.value) and (line is None or str(refused.value) == line)


def test_the_settings_are_those_of_the_file_and_of_what_is_typed():
    found = settings.settings(["tokens=1e6", "controls=[random]", "seed=3"])
    assert found["tokens"] == 1_000_000 and isinstance(found["tokens"], int) and found["controls"] == ["random"]
    assert found["seed"] == 3 and found["features"] == 300 and settings.identity(found)["tokens"] == 1_000_000


def test_it_needs_a_folder(monkeypatch):
    with pytest.raises(SystemExit, match=r"^tokens=5: name the folder of a sweep too, such as outputs/default$"):
        typed(monkeypatch, "tokens=5")
    with pytest.raises(SystemExit, match=r"^nowhere is not a folder: give the folder of a sweep, such as outputs/default$"):
        typed(monkeypatch, "nowhere", "tokens=5", "--out", "outputs/both")


def test_a_plan_is_printed_and_nothing_is_written(monkeypatch, capsys, sweep):  # noqa: F811
    typed(monkeypatch, sweep, *FEW, "plan=true")
    assert capsys.readouterr().out.startswith("tiny: one pass for 4 SAEs and 6 controls") and not list(sweep.rglob("study"))


def test_the_command_collects_scores_and_names_what_failed(monkeypatch, capsys, sweep):  # noqa: F811
    with monkeypatch.context() as patch:
        patch.setattr(run, "collect", lambda *_: {"tiny/resid.1/topk/4": RuntimeError("a bug")})
        patch.setattr(run, "run_scores", lambda *_: Scored(sweep, [], None, None, {"places": []}))
        patch.setattr(run, "_write_pages", lambda *_: [])
        with pytest.raises(SystemExit, match=r"^1 failed; the same command tries again\n  tiny/resid\.1/topk/4: a bug$"):
            typed(patch, sweep, *FEW)
    typed(monkeypatch, sweep, *FEW)
    assert "collecting activations of 10 SAEs and controls: 0 of " in capsys.readouterr().err
    assert len(stage.collected(sweep)) == 10 and (sweep / "study/study.json").is_file()


@pytest.mark.slow
@pytest.mark.process
def test_a_killed_study_resumes_from_its_last_save_to_the_same_files(sweep, tmp_path):  # noqa: F811
    whole = shutil.copytree(sweep, tmp_path / "whole")
    stage.collect([whole], asked(), RESOURCES)
    script = tmp_path / "study.py"
    script.write_text("import saesweep.study.text as text\ntext.PORTION = 100\n"
                      "from saesweep.study.__main__ import main\nmain()\n")
    words = [sys.executable, str(script), str(sweep), *FEW]
    process = warm.popen([*words, "save_minutes=1e-9"], tmp_path, ENV)
    while len(list(sweep.rglob("part-*.safetensors"))) < 10:
        assert process.poll() is None
        time.sleep(0.03)
    process.kill()
    process.communicate()
    assert list(sweep.rglob("part-*.safetensors")) and not list(sweep.rglob("hits.safetensors"))
    ended = warm.run(words, tmp_path, ENV)
    assert ended.returncode == 0, ended.stderr
    for name, content in written(whole).items():
        assert name == "study/study.yaml" or written(sweep)[name] == content, name
