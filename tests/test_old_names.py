"""Compatibility with the layout before the packages: module names, and the folder of an SAE trained then (old_layout/)."""
import runpy
import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf
from standin.cli import ROOT, composed

from saesweep import old_names
from saesweep.config.check import check
from saesweep.loggers.identity import MemberInfo
from saesweep.storage import files
from saesweep.sweep import job_record
from saesweep.sweep.jobs import job_of

OLD_LAYOUT = ROOT / "tests/old_layout"
FOLDER = Path("outputs/ranks/synthetic/resid.0/topk/8")
NOW_PACKAGES = ("saesweep.training", "saesweep.evaluation", "saesweep.sweep.engines")


@pytest.fixture
def old_folder(tmp_path, monkeypatch):
    """The folder of an SAE that the old code trained, with settings and metrics and without weights."""
    shutil.copytree(OLD_LAYOUT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return FOLDER


def test_every_moved_module_is_imported_by_its_old_name():
    for old, new in old_names.NEW.items():
        module = import_module(new)
        assert old in NOW_PACKAGES or import_module(old) is module, old
        assert module.__spec__.name == new == module.__name__


@pytest.mark.parametrize("package, name", [*zip(NOW_PACKAGES, ("SAESweep", "Subject", "Engine"), strict=True)])
def test_a_package_with_the_name_of_an_old_module_has_the_modules_names(package, name):
    assert getattr(import_module(package), name) is getattr(import_module(old_names.NEW[package]), name)
    with pytest.raises(AttributeError):
        import_module(package).no_such_name  # noqa: B018


def test_an_unknown_module_raises_ModuleNotFoundError():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'saesweep\.modles'"):
        import_module("saesweep.modles")


@pytest.mark.parametrize("module", ["saesweep.pareto", "saesweep.dashboard", "saesweep.sweep.join"])
def test_a_documented_command_runs_by_its_old_name(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # runpy would leave checked modules for programs without checks
    for name in (module, old_names.NEW[module]):
        monkeypatch.delitem(sys.modules, name, raising=False)  # as in a new process
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert end.value.code == 0 and f"usage: saesweep {module.split('.')[-1]}" in capsys.readouterr().out


@pytest.mark.parametrize("old, new", [
    ("saesweep.strategies.PerMember", "saesweep.training.strategies.PerMember"),
    ("saesweep.strategies.PerRank", "saesweep.training.strategies.PerRank"),
    ("saesweep.sweep.before.Refuse", "saesweep.sweep.preflight.Refuse"),
    ("saesweep.sweep.run.train_group", "saesweep.sweep.group.train_group"),
])
def test_classes_and_functions_in_configs_are_found_by_their_old_names(old, new):
    assert old_names.current(old) == old_names.current(new) == new
    assert get_object(old) is get_object(new)


def test_the_old_name_of_a_strategy_is_replaced_by_the_new_one():
    words = ("model=synthetic", "arch=topk", "trainer=ddp_sim")
    old, new = (job_of(composed(*words, *more, always=(), whole=True), single=True).settings
                for more in (["trainer.strategy._target_=saesweep.strategies.PerMember"], []))
    assert old == new and old["trainer"]["strategy"]["_target_"] == "saesweep.training.strategies.PerMember"
    assert check(old) is None


def test_an_sae_of_the_old_code_is_finished_and_has_the_same_settings(old_folder):
    """Given the values that were the default."""
    then = ("activations.window=65536", "activations.passes=1", "evaluation.lm_tokens=2048", "evaluation.lm_blocks=null",
            "evaluation.forward_tokens=512", "arch.optimizer.lr=2e-3", "arch.optimizer.betas=[0.9,0.999]",
            "arch.optimizer.clip_by_previous=false")
    job = job_of(composed(*OmegaConf.load(old_folder / files.OVERRIDES), *then, always=(), whole=True), single=True)
    assert job.folder == Path.cwd() / old_folder
    assert job_record.differences(job) == [] and job_record.finished(job)["fvu"] == pytest.approx(0.4767, abs=1e-4)
    later = {"study": {"name": "none"}, "explainer": {"name": "none"}, "list_room": False}
    assert job.settings == files.settings(old_folder) | later


def test_the_wandb_run_of_an_sae_has_the_id_of_the_old_code(old_folder):
    member = MemberInfo(old_folder, files.settings(old_folder), "ranks", "synthetic", "resid", 0, "topk", 8, 0)
    assert member.id == "78f3b51573fa6284"
