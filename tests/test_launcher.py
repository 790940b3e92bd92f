"""The grouped launcher, through the command line. The training is a stand-in (tests/standin/run.py)."""
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest
import warm
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from omegaconf import OmegaConf
from standin import run
from standin.cli import ENV, Seen, train

from hydra_plugins.saesweep import sources
from saesweep.storage import checkpoints
from saesweep.sweep import known_folders

pytestmark = pytest.mark.slow
PLACE = Path("outputs/default/standin/resid.1")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch, hydra_restore_singletons, without_figures):
    monkeypatch.chdir(tmp_path)
    yield
    sources.register()  # Hydra's test suites clear all resolvers


def files(folder):
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def test_hydra_discovers_the_launcher():
    assert "GroupedLauncher" in [plugin.__name__ for plugin in Plugins.instance().discover(Launcher)]


@pytest.fixture
def version_base_of_hydras_suite(hydra_restore_singletons):
    hydra.version.setbase("1.1")  # the suite expects jobs that change into their folder


@pytest.mark.usefixtures("version_base_of_hydras_suite")
@pytest.mark.parametrize("launcher_name, overrides", [("grouped", ["hydra.launcher.run=null"])])
class TestHydrasLauncherSuite(LauncherTestSuite):
    pass


@pytest.mark.parametrize(
    "task_launcher_cfg, extra_flags", [({}, ["-m", "hydra/launcher=grouped", "hydra.launcher.run=null"])]
)
class TestHydrasIntegrationSuite(IntegrationTestSuite):
    pass


def test_each_job_is_composed_once(monkeypatch):
    composed, load = [], ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", lambda loader, config, words: (
        composed.append(words[0]) or load(loader, config, words)))
    assert train("-m", "arch=flat,round", "sparsity=16", "plan=true").code == 0
    assert composed == ["arch=flat", "arch=round"]


def test_jobs_are_trained_as_one_group_and_have_a_folder_each(capsys):
    assert train("-m", "arch=flat,round", "sparsity=16,32").code == 0
    out = capsys.readouterr().out
    assert "4 SAEs to train in 1 group" in out and out.count("training 4 SAEs") == 1
    assert (PLACE.parents[1] / "pareto.csv").read_text().count("\n") == 5
    for arch in ("flat", "round"):
        for sparsity in (16, 32):
            job = PLACE / arch / str(sparsity)
            assert "training 4 SAEs" in (job / "train.log").read_text()
            config = OmegaConf.load(job / ".hydra/config.yaml")
            assert (config.arch.name, config.sparsity) == (arch, sparsity)


def test_a_group_writes_the_same_files_as_the_basic_launcher():
    assert train("-m", "arch=flat,round", "sparsity=16", "name=together").code == 0
    assert train("-m", "arch=flat,round", "sparsity=16", "name=alone", "hydra/launcher=basic").code == 0
    assert files("outputs/together") == files("outputs/alone")
    records = [Path(f"outputs/{name}/standin/resid.1/round/16/.hydra") for name in ("together", "alone")]
    for file in ("config.yaml", "resolved.yaml"):
        together, alone = ((record / file).read_text() for record in records)
        assert together.replace("together", "alone") == alone
    settings = [OmegaConf.load(record / "hydra.yaml").hydra for record in records]
    for one in settings:
        del one.launcher, one.runtime.output_dir, one.runtime.choices, one.overrides, one.sweep.dir, one.run.dir
        one.job.override_dirname = ""
    assert settings[0] == settings[1]


def test_callbacks_are_called_for_every_job_with_its_status():
    Seen.started.clear(), Seen.ended.clear()
    train("-m", "arch=flat,round", "text.fail=round", "+hydra.callbacks.seen._target_=standin.cli.Seen")
    assert Seen.started == ["flat", "round"]
    assert sorted(Seen.ended) == ["flat COMPLETED", "round FAILED"]


@pytest.mark.parametrize(
    "words, groups",
    [
        (["arch=flat,round", "sparsity=4,8", "width=64,128", "name=w${width}"], 1),
        (["site=resid,mlp", "layer=0,2", "seed=0,1"], 1),
        (["name=a${tokens}", "tokens=1000,2000"], 2),
        (["name=a${stream_seed}", "stream_seed=0,1", "arch=flat,round"], 2),
        (["name=a${evaluation.forward_tokens}", "evaluation.forward_tokens=64,128,256"], 3),
        (["name=a${text.sleep}", "text.sleep=0,0.01"], 2),
    ],
)
def test_jobs_share_a_group_if_they_differ_only_in_keys_of_an_sae(words, groups, capsys):
    assert train("-m", "plan=true", *words).code == 0
    assert f"in {groups} group" in capsys.readouterr().out


def test_the_same_command_trains_only_the_missing_saes(capsys):
    train("-m", "arch=flat", "sparsity=16")
    written = (PLACE / "flat/16/eval.json").stat().st_mtime_ns
    capsys.readouterr()
    assert train("-m", "arch=flat", "sparsity=16,32").code == 0
    out = capsys.readouterr().out
    assert "1 SAE to train in 1 group, 1 already finished" in out and "training 1 SAEs" in out
    assert (PLACE / "flat/16/eval.json").stat().st_mtime_ns == written
    assert train("-m", "arch=flat", "sparsity=16,32").code == 0
    assert "training" not in capsys.readouterr().out


def test_a_job_without_a_readable_eval_json_is_trained_again():
    train("-m", "arch=flat", "sparsity=16")
    for text in (None, "{"):
        (PLACE / "flat/16/eval.json").unlink() if text is None else (PLACE / "flat/16/eval.json").write_text(text)
        (PLACE / "flat/16/metrics.csv").write_text("an interrupted run")
        assert train("-m", "arch=flat", "sparsity=16").code == 0
        assert json.loads((PLACE / "flat/16/eval.json").read_text())["l0"] == 16
        assert "interrupted" not in (PLACE / "flat/16/metrics.csv").read_text()


def test_existing_results_with_other_settings_are_refused_with_keys_and_values():
    train("-m", "arch=flat", "sparsity=16,32")
    kept = (PLACE / "flat/16/.hydra/config.yaml").read_text()
    ended = train("-m", "arch=flat,round", "sparsity=16", "tokens=2000", "activations.center=false")
    assert ended.code == 1
    assert "outputs/default/standin/resid.1/flat/16 was trained with other settings" in ended.error
    assert "tokens: 225000 there, 2000 here" in ended.error
    assert "activations.center: true there, false here" in ended.error
    assert "overwrite=true" in ended.error and "flat/32" not in ended.error
    assert (PLACE / "flat/16/.hydra/config.yaml").read_text() == kept and not (PLACE / "round").exists()


def test_loggers_and_trainer_are_not_settings_of_an_sae():
    train("-m", "arch=flat", "sparsity=16")
    assert train("-m", "arch=flat", "sparsity=16", "trainer.enable_model_summary=true", "logger.csv.name=other").code == 0


def test_all_saes_of_a_figure_have_the_same_settings():
    train("-m", "arch=flat", "sparsity=16")
    refused = train("-m", "arch=flat,round", "sparsity=32", "width=2048")
    assert refused.code == 1 and "width: 4096 there, 2048 here" in refused.error and "flat/16" in refused.error
    assert train("-m", "arch=round", "sparsity=32", "width=2048", "overwrite=true").code == 1  # flat/16 would keep its settings
    assert not (PLACE / "round").exists()
    assert train("-m", "arch=flat,round", "sparsity=32", "seed=1").code == 0
    assert train("-m", "arch=flat", "sparsity=16", "width=2048", "layer=2").code == 0  # another figure
    assert train("arch=round", "sparsity=16", "context=64").code == 1


def test_all_saes_of_a_curve_have_the_same_settings_of_the_architecture():
    train("-m", "arch=flat", "sparsity=16")
    refused = train("-m", "arch=flat", "sparsity=32", "arch.optimizer.lr=0.5")
    assert refused.code == 1 and "arch.optimizer.lr: 0.001 there, 0.5 here" in refused.error
    assert train("-m", "arch=round", "sparsity=32", "arch.optimizer.lr=0.5").code == 0
    assert train("-m", "arch=flat", "sparsity=32", "arch.coefficient=0.1").code == 0


def test_fixed_coefficients_are_swept_like_targets():
    assert train("-m", "arch=flat", "arch.coefficient=0.001,0.01", "seed=0,1").code == 0
    names = ["coefficient_0.001", "coefficient_0.001.1", "coefficient_0.01", "coefficient_0.01.1"]
    assert sorted(folder.name for folder in (PLACE / "flat").iterdir()) == names
    refused = train("-m", "arch=flat", "sparsity=16,32", "arch.coefficient=0.001")
    assert refused.code == 1 and "one sparsity alone" in refused.error
    refused = train("-m", "arch=flat", "sparsity=16", "arch.coefficient=0.1")  # its training would start from it
    assert refused.code == 1 and "sparsity: 32 there, 16 here" in refused.error


def test_the_plan_shows_fixed_coefficients(capsys):
    train("-m", "arch=flat", "sparsity=16", "plan=true")
    assert " 16 " in capsys.readouterr().out
    train("-m", "arch=flat", "arch.coefficient=0.001,0.01", "plan=true")
    out = capsys.readouterr().out
    assert "λ 0.001" in out and "λ 0.01" in out and "flat/coefficient_0.01" in out


def test_a_checkpoint_is_kept_for_the_same_settings_in_any_group():
    train("-m", "arch=flat", "sparsity=16,32")
    save = PLACE / "flat/16/checkpoint/7-00000000.safetensors"
    for words, kept in ((["sparsity=16,64"], True), (["sparsity=16,32,64", "tokens=2000", "overwrite=true"], False)):
        (PLACE / "flat/16/eval.json").unlink()
        shutil.rmtree(PLACE / "flat/16/sae")
        (PLACE / "flat/16/metrics.csv").write_text("so far")
        save.parent.mkdir(exist_ok=True)
        save.write_text("half way")
        assert train("-m", "arch=flat", "sparsity=16", "tokens=2000").code == 1
        assert train("-m", "arch=flat", *words).code == 0
        assert save.exists() == kept
        assert ("so far" in (PLACE / "flat/16/metrics.csv").read_text()) == kept


def test_saes_that_ran_out_of_memory_together_are_planned_in_smaller_groups(capsys):
    train("-m", "arch=flat", "sparsity=16")
    (PLACE / "flat/16/eval.json").unlink()
    checkpoints.halve_group_size([PLACE / "flat/16"] * 4)
    assert train("-m", "plan=true", "arch=flat", "sparsity=16,32,64").code == 0
    out = capsys.readouterr().out
    assert "3 SAEs to train in 2 groups" in out and "2 SAEs (2 at a time: more run out of memory)" in out


def test_an_sae_that_ran_out_of_memory_may_be_trained_with_a_smaller_width():
    train("-m", "arch=flat", "sparsity=16")
    (PLACE / "flat/16/eval.json").unlink()
    shutil.rmtree(PLACE / "flat/16/sae")
    checkpoints.halve_group_size([PLACE / "flat/16"] * 4)
    assert train("-m", "arch=flat", "sparsity=16", "width=2048").code == 0


def test_overwrite_replaces_results_and_keeps_the_users_files():
    train("-m", "arch=flat", "sparsity=16")
    (PLACE / "flat/16/notes.txt").write_text("mine")
    (PLACE / "flat/16/sae/old").write_text("stale")
    (PLACE / "flat/16/study").mkdir()
    (PLACE / "flat/16/study/hits.safetensors").write_text("of the old SAE")
    assert train("-m", "arch=flat", "sparsity=16", "tokens=2000", "overwrite=true").code == 0
    assert json.loads((PLACE / "flat/16/eval.json").read_text())["tokens"] == 2000
    assert (PLACE / "flat/16/notes.txt").read_text() == "mine" and not (PLACE / "flat/16/sae/old").exists()
    assert not (PLACE / "flat/16/study").exists()


def test_a_folder_without_a_hydra_record_is_refused():
    (PLACE / "flat/16/sae").mkdir(parents=True)
    ended = train("-m", "arch=flat", "sparsity=16")
    assert ended.code == 1 and "no .hydra folder" in ended.error and (PLACE / "flat/16/sae").is_dir()


def test_two_jobs_with_one_folder_are_refused():
    ended = train("-m", "arch=flat", "log_tokens=1000,2000")  # it is the same SAE
    assert ended.code == 1 and "2 jobs of this sweep have the folder" in ended.error and not PLACE.exists()
    assert "log_tokens is not in its name" in ended.error and "'name=log_tokens_${log_tokens}'" in ended.error
    assert "a `name:` of its own" in train("-m", "arch=flat,round", "arch.name=same").error


def folders(place=PLACE):
    return sorted(f"{file.parents[1].name}/{file.parent.name}" for file in place.glob("*/*/eval.json"))


def test_any_key_is_swept_and_named_by_its_last_part(capsys):
    words = ["-m", "arch=flat", "tokens=1000,2000", "arch.optimizer.lr=1e-3,2e-3"]
    assert train(*words, "hydra/launcher=basic").code == 0
    assert folders() == [f"flat,tokens={tokens},lr={lr}/32" for tokens in (1000, 2000) for lr in (0.001, 0.002)]
    before = {file: file.stat().st_mtime_ns for file in PLACE.glob("*/*/eval.json")}
    capsys.readouterr()
    assert train(*words, "hydra.sweeper.max_batch_size=1").code == 0
    assert "training" not in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in PLACE.glob("*/*/eval.json")} == before
    table = (PLACE.parents[1] / "pareto.csv").read_text().splitlines()
    assert len(table) == 5 and table[0].startswith("model,site,layer,arch,variant,")
    assert ",flat,tokens=1000 lr=0.001," in table[1]


def test_the_settings_of_each_folder_are_read_once_for_all_jobs_and_all_batches_of_a_search(monkeypatch):
    found, known = [], known_folders.files
    counting = SimpleNamespace(
        settings=lambda job: found.append(job.parent.name) or known.settings(job), settings_file=known.settings_file)
    monkeypatch.setattr(known_folders, "files", counting)
    train("-m", "arch=flat", "width=1024,2048")
    assert train("-m", "arch=flat", "width=512,3072").code == 0
    assert sorted(found) == ["flat,width=1024", "flat,width=2048"]
    assert train("-m", "arch=flat", "width=128,256").code == 0
    assert sorted(found) == ["flat,width=1024", "flat,width=2048", "flat,width=3072", "flat,width=512"]


def test_an_sae_keeps_its_folder_when_the_sweep_grows_by_a_key():
    train("-m", "arch=flat", "sparsity=16")
    assert train("-m", "arch=flat", "sparsity=16", "width=2048,4096").code == 0  # 4096 is there
    assert folders() == ["flat,width=2048/16", "flat/16"]
    assert train("-m", "arch=flat", "sparsity=16", "width=8192").code == 0  # now the folders of this sweep name the width
    assert train("arch=flat", "sparsity=16", "width=2048", "tokens=2000").code == 1  # and nothing else
    assert train("arch=flat", "sparsity=16").code == 0
    assert folders() == ["flat,width=2048/16", "flat,width=8192/16", "flat/16"]


def test_an_override_of_one_architecture_leaves_the_others_alone(capsys):
    assert train("-m", "arch=flat,round", "flat.optimizer.lr=1e-3,2e-3", "round.width=2048").code == 0
    assert "3 SAEs to train in 1 group" in capsys.readouterr().out
    assert folders() == ["flat,lr=0.001/32", "flat,lr=0.002/32", "round,lr=0.001/32"]
    assert OmegaConf.load(PLACE / "round,lr=0.001/32/.hydra/config.yaml").width == 2048
    words = OmegaConf.load(PLACE / "flat,lr=0.002/32/.hydra/overrides.yaml")
    assert "arch.optimizer.lr=0.002" in words and "width=2048" not in words


@pytest.mark.parametrize("word, part", [
    ("flta.optimizer.lr=0.1", "flta.optimizer.lr=0.1: there is no architecture flta; did you mean flat.optimizer.lr?"),
    ("flta.optimizer.lr=0.1,1", "there is no architecture flta; did you mean flat.optimizer.lr?"),
    ("flat.optimizer.lrr=0.1", "flat.optimizer.lrr=0.1: there is no key arch.optimizer.lrr; did you mean arch.optimizer.lr?"),
    ("topk.k_aux=1", "topk.k_aux=1: is for arch=topk, and this sweep has arch=flat,round"),
])
def test_a_mistyped_override_of_one_architecture_is_refused(word, part):
    refused = train("-m", "arch=flat,round", word)
    assert refused.code == 1 and part in refused.error and not Path("outputs").exists()


def test_every_invalid_job_of_a_sweep_is_named_before_a_folder_is_made():
    ended = train("-m", "arch=flat", "sparsity=16,5000", "layer=1,9")
    assert ended.code == 1
    assert "sparsity=5000" in ended.error and "layer=9" in ended.error and not PLACE.exists()


def test_a_failed_sae_is_reported_and_the_others_are_kept(capsys):
    ended = train("-m", "arch=flat,round", "sparsity=16,32", "text.fail=round")
    out = capsys.readouterr()
    assert ended.code == 1
    assert "2 of 4 SAEs failed" in out.err and "resid.1/round/16: RuntimeError: not finite" in out.err
    assert "not finite" in (PLACE / "round/16/train.log").read_text()
    rows = (PLACE.parents[1] / "pareto.csv").read_text().splitlines()[1:]
    assert [("failed" in row, "finished" in row) for row in rows].count((True, False)) == 2 and len(rows) == 4


def test_a_failed_group_does_not_stop_the_next(capsys):
    ended = train("-m", "arch=flat", "text.mistake=true,false", "name=m${text.mistake}")
    err = capsys.readouterr().err
    assert ended.code == 1 and "1 of 2 SAEs failed" in err
    assert "text=standin: too short" in err and "Traceback" not in err
    assert Path("outputs/mFalse/pareto.csv").exists() and not Path("outputs/mTrue/pareto.csv").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    "words, number, code", [(["-m", "sparsity=16,32"], signal.SIGINT, 130), (["sparsity=16"], signal.SIGTERM, 143)]
)
def test_a_signal_ends_the_program_with_its_exit_code(words, number, code):
    command = [sys.executable, run.__file__, *words, "text.sleep=60", "arch=flat", "logger=csv"]
    with warm.popen(command, Path.cwd(), ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while "started" not in process.stdout.readline():
            assert process.poll() is None, process.stderr.read()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == code, out + err
    assert "Traceback" not in err and "interrupted" in err and not (PLACE / "flat/16/eval.json").exists()
