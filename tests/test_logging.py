"""metrics.csv, offline W&B runs, TensorBoard and MLflow, read back from their files and compared value by value."""

import csv
import importlib.util
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from offline import OFFLINE, finished_run, keys, read, refuse_network_and_logins, saes
from omegaconf import OmegaConf
from small import ARCHS, job
from standin.cli import ROOT, composed, train

from saesweep import old_names
from saesweep.config.check import check
from saesweep.config.schema import wandb_mode
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.loggers.identity import MemberInfo
from saesweep.loggers.sweep_logger import SweepLogger
from saesweep.loggers.wandb_runs import SummaryRun, flush, sync_command
from saesweep.loggers.wandb_sae import FINAL
from saesweep.sweep.group_setup import LocalGroup, logger_of

KEYS = ["loss", "l0", "fvu"]

pytestmark = pytest.mark.usefixtures("without_wandb_login")


def sweep_logger(members, csv, wandb):
    return SweepLogger(members, {"csv": {"name": "csv"} if csv else None, "wandb": wandb})


def member(sweep, arch="topk", sparsity=32, **more):
    config = {"name": sweep.name, "seed": 0, "layer": 9, "sparsity": sparsity, "tokens": 1000, "model": {"name": "lm"},
              "arch": {"name": arch, "k_aux": 320, "optimizer": {"lr": 3e-4}}, "site": {"name": "resid"},
              "activations": {"center": True}, "trainer": {"precision": "32-true"}, **more}
    folder = sweep / "lm" / "resid.9" / arch / str(sparsity)
    return MemberInfo(folder=folder, config=config, sweep=sweep.name, model="lm", site="resid", layer=9, arch=arch,
                      sparsity=sparsity, seed=0)


def metrics(index, tokens):
    return {"loss": 1.0 / (index + tokens), "l0": 32 + index * math.pi, "fvu": float("nan") if index == 1 else 0.1}


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three members of one sweep, logged alternately in one process; the second fails. No test changes their folders."""
    folder = tmp_path_factory.mktemp("trained")
    members = [member(folder / "study", arch) for arch in ("jumprelu", "gated", "topk")]
    with pytest.MonkeyPatch.context() as patch:
        refuse_network_and_logins(patch, folder)
        logger = sweep_logger(members, csv=True, wandb=OFFLINE)
        for tokens in range(100, 40_100, 100):
            for index in range(3):
                logger.log_member(index, metrics(index, tokens), tokens)
        logger.finish(0, {"l0": 32.5, "fvu": 0.125, "ce_sae": 2.5, "delta_loss": None}, None)
        logger.finish(1, None, "NaN after 40000 tokens")
        logger.finish(2, {"l0": 32, "fvu": 0.1, "ce_sae": 2.75}, None)
        flush()
    return members


def same(a, b):
    return a == b or (math.isnan(float(a)) and math.isnan(float(b)))


@pytest.mark.parametrize("mode, wanted", [("dryrun", "offline"), ("run", "online"), ("disabled", "disabled"), ("", "online")])
def test_WANDB_MODE_may_have_its_older_names(mode, wanted, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert wandb_mode(None) == wanted and wandb_mode("offline") == "offline"


def test_an_unknown_WANDB_MODE_is_refused_by_the_check_of_the_config(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "foo")
    words = ("model=synthetic", "logger=wandb")
    with pytest.raises(UsageError, match=r"WANDB_MODE=foo .*online, offline, disabled"):
        check(OmegaConf.to_container(composed(*words, always=()), resolve=True))


@pytest.mark.slow
def test_every_logged_value_is_in_the_csv_and_in_the_wandb_run(trained):
    for index, one in enumerate(trained):
        header, *curve = rows(one.folder)
        history = read(one.folder)["history"]
        assert header == ["tokens", *KEYS] and len(curve) == len(history) == 400
        for row, logged in zip(curve, history, strict=True):
            tokens = int(row[0])
            assert logged["tokens"] == tokens
            for key, text in zip(KEYS, row[1:], strict=True):
                value = metrics(index, tokens)[key]
                assert same(float(text), value) and same(float(logged[f"train/{key}"]), value)


@pytest.mark.slow
def test_each_run_of_a_process_has_its_own_name_config_and_group(trained):
    for one in trained:
        run = read(one.folder)
        assert run["group"] == "study" and run["job_type"] == "sae" and run["project"] == "saesweep"
        assert run["name"] == f"lm/resid.9/{one.arch}/32" and set(run["tags"]) == {one.arch, "resid", "layer 9"}
        config = run["config"]
        assert [config[key] for key in ("model", "site", "layer", "arch", "sparsity", "seed", "tokens")] == [
            "lm", "resid", 9, one.arch, 32, 0, 1000]
        assert config["settings"]["arch"] == {"name": one.arch, "k_aux": 320, "optimizer": {"lr": 3e-4}}
        assert config["settings"]["activations"] == {"center": True}
    assert len({read(one.folder)["id"] for one in trained}) == 3


def test_an_sae_with_a_fixed_coefficient_is_logged_without_a_target(tmp_path):
    settings = job(None, "arch=relu", "arch.coefficient=0.05", "seed=2") | {"logger": {"csv": {"name": "csv"}}}
    folder = tmp_path / "study/lm/resid.9/relu/coefficient_0.05.2"
    (one,) = logger_of(LocalGroup([settings], [folder], settings, Resources())).members
    shown = one.shown()
    assert (shown["sparsity"], shown["aim"], shown["seed"]) == (None, "coefficient_0.05.2", 2)
    assert shown["settings"]["arch"]["coefficient"] == 0.05


def test_training_metrics_are_plotted_against_tokens(trained):
    assert read(trained[0].folder)["steps"]["train/*"] == "tokens"


def test_final_metrics_are_the_summary_and_a_failure_is_the_exit_code(trained):
    good, bad, _ = (read(one.folder) for one in trained)
    assert {key: value for key, value in good["summary"].items() if key.startswith("eval/")} == {
        "eval/l0": 32.5, "eval/fvu": 0.125, "eval/delta_loss": None}
    assert good["exit"] == 0 and "failed" not in good["summary"]
    assert bad["exit"] == 1 and bad["summary"]["failed"] == "NaN after 40000 tokens"


@pytest.mark.slow
def test_a_member_that_fails_before_its_first_row_is_logged_as_failed(tmp_path):
    one = member(tmp_path / "study")
    sweep_logger([one], csv=True, wandb=OFFLINE).finish(0, None, "out of memory")
    assert read(one.folder)["exit"] == 1 and not (one.folder / "metrics.csv").exists()


def test_the_run_id_is_determined_by_the_settings_of_the_job(tmp_path):
    def run_id(base, **more):
        one = member(base / "study", **more)
        sweep_logger([one], csv=False, wandb=OFFLINE).finish(0, {}, None)
        return read(one.folder)["id"]

    first = run_id(tmp_path / "a")
    assert first == run_id(tmp_path / "b"), "the same job in another folder is the same run"
    elsewhere = {"trainer": {"name": "ddp", "devices": 2, "precision": "32-true"}, "save_minutes": 5, "cache": {"name": "disk"}}
    assert first == run_id(tmp_path / "c", **elsewhere), "a job that resumes with more devices is the same run"
    others = [{"tokens": 2000}, {"sparsity": 64}, {"arch": "relu"}]
    assert len({first, *(run_id(tmp_path / str(i), **other) for i, other in enumerate(others))}) == 4


def test_without_the_wandb_logger_wandb_is_not_imported_and_writes_no_file(fresh, found_fresh):
    assert found_fresh["wandb after the csv logger"] is False
    assert [file.name for file in (fresh / "logged").iterdir()] == ["metrics.csv"]


def test_without_the_csv_logger_no_csv_is_written(tmp_path):
    one = member(tmp_path / "study")
    logger = sweep_logger([one], csv=False, wandb=OFFLINE)
    logger.log_member(0, {"l0": 1.0}, 5)
    logger.finish(0, {}, None)
    assert not (one.folder / "metrics.csv").exists() and len(read(one.folder)["history"]) == 1


def test_each_row_is_on_disk_as_soon_as_it_is_logged(tmp_path):
    one = member(tmp_path / "study")
    logger = sweep_logger([one], csv=True, wandb=None)
    for count in (1, 2, 3):
        logger.log_member(0, {"l0": 1.5}, count * 512)
        assert rows(one.folder) == [["tokens", "l0"], *([str(512 * i), "1.5"] for i in range(1, count + 1))]


def test_a_resumed_curve_drops_later_rows_and_an_incomplete_last_row(tmp_path):
    one = member(tmp_path / "study")
    logger = sweep_logger([one], csv=True, wandb=None)
    for tokens in (100, 200, 300):
        logger.log_member(0, {"l0": float(tokens)}, tokens)
    with (one.folder / "metrics.csv").open("a") as file:
        file.write("40")
    sweep_logger([one], csv=True, wandb=None).log_member(0, {"l0": 7.0}, 200)
    assert rows(one.folder) == [["tokens", "l0"], ["100", "100.0"], ["200", "7.0"]]


def test_a_run_from_the_start_replaces_the_old_curve_and_its_columns(tmp_path):
    one = member(tmp_path / "study")
    sweep_logger([one], csv=True, wandb=None).log_member(0, {"l0": 1.0, "fvu": 2.0}, 100)
    sweep_logger([one], csv=True, wandb=None).log_member(0, {"loss": 3.0}, 100)
    assert rows(one.folder) == [["tokens", "loss"], ["100", "3.0"]]
    assert [file.name for file in one.folder.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("changed", [{"l0": 1.0, "new": 2.0}, {}, {"fvu": 1.0}])
def test_the_first_row_determines_the_keys(tmp_path, changed):
    logger = sweep_logger([member(tmp_path / "study")], csv=True, wandb=None)
    logger.log_member(0, {"l0": 1.0}, 100)
    with pytest.raises(UsageError, match="its columns are l0, but the metrics are now"):
        logger.log_member(0, changed, 200)


def test_lightnings_own_metrics_are_logged_to_every_members_run(tmp_path):
    members = [member(tmp_path / "study", arch) for arch in ("topk", "gated")]
    logger = sweep_logger(members, csv=True, wandb=OFFLINE)
    logger.log_metrics({"lr": 0.5}, step=3)
    for index, one in enumerate(members):
        logger.finish(index, {}, None)
        assert read(one.folder)["history"][0]["group/lr"] == 0.5


def test_without_a_login_the_runs_are_offline_and_nothing_is_printed(tmp_path, capfd):
    one = member(tmp_path / "study")
    logger = sweep_logger([one], csv=True, wandb={**OFFLINE, "mode": None})
    logger.log_member(0, {"l0": 1.0}, 5)
    logger.finish(0, {"l0": 1.0}, None)
    assert read(one.folder)["exit"] == 0
    assert capfd.readouterr() == ("", "")


def test_mode_online_without_a_login_falls_back_to_offline_with_a_warning(tmp_path, caplog):
    one = member(tmp_path / "study")
    sweep_logger([one], csv=True, wandb={**OFFLINE, "mode": "online"}).finish(0, {}, None)
    assert read(one.folder)["exit"] == 0
    assert "nobody is logged in" in caplog.text


def test_WANDB_MODE_is_used_if_the_config_has_no_mode(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    without_mode, explicit = member(tmp_path / "a"), member(tmp_path / "b")
    sweep_logger([without_mode], csv=True, wandb={**OFFLINE, "mode": None}).finish(0, {}, None)
    sweep_logger([explicit], csv=True, wandb=OFFLINE).finish(0, {}, None)
    assert not (without_mode.folder / "wandb").exists() and (explicit.folder / "wandb").exists()


def test_a_mistyped_mode_is_refused_before_training(tmp_path):
    with pytest.raises(UsageError, match=r"logger\.wandb\.mode=onlin .*online, offline, disabled"):
        sweep_logger([member(tmp_path / "study")], csv=True, wandb={**OFFLINE, "mode": "onlin"})


def test_the_sync_command_names_every_offline_run_of_the_sweep(tmp_path):
    sweep = tmp_path / "my study"
    assert sync_command(sweep) is None
    for arch in ("topk", "gated"):
        sweep_logger([member(sweep, arch)], csv=True, wandb=OFFLINE).finish(0, {}, None)
    SummaryRun(OFFLINE, sweep).finish(0)
    shell = sync_command(sweep).replace("wandb sync", "printf '%s\\n'")
    listed = subprocess.run(shell, shell=True, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(listed) == sorted(str(file.parent) for file in sweep.rglob("run-*.wandb")) and len(listed) == 3


def test_there_is_no_sync_command_once_all_runs_are_synced(tmp_path):
    one = member(tmp_path / "study")
    sweep_logger([one], csv=True, wandb=OFFLINE).finish(0, {}, None)
    (file,) = one.folder.rglob("run-*.wandb")
    assert sync_command(tmp_path / "study").endswith("/study/*/*/*/*/wandb/offline-run-*")
    file.with_name(f"{file.name}.synced").touch()
    assert sync_command(tmp_path / "study") is None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wandb", path=os.path.dirname(sys.executable)) is None, reason="no wandb command")
def test_the_wandb_command_accepts_the_sync_command(tmp_path, monkeypatch):
    one = member(tmp_path / "study")
    sweep_logger([one], csv=True, wandb=OFFLINE).finish(0, {}, None)
    command = sync_command(tmp_path / "study").replace("wandb sync", "wandb sync --dry-run")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "Would sync 1 run" in done.stdout + done.stderr


def test_the_recovery_of_a_known_dictionary_is_in_the_summary(tmp_path):
    one = member(tmp_path / "study")
    sweep_logger([one], csv=True, wandb=OFFLINE).finish(0, {"l0": 32.0, "recovery": 0.75}, None)
    assert read(one.folder)["summary"]["eval/recovery"] == 0.75


def test_a_run_has_at_most_25_keys_whatever_the_architecture(reference_sweep):
    assert {folder.parent.name for folder in saes(reference_sweep)} == set(ARCHS)
    for folder in saes(reference_sweep):
        found = keys(read(folder))
        assert len(found) <= 25, f"{folder.parent.name}: {sorted(found)}"
        assert {"tokens", "train/l0", "train/fvu", "train/dead", "train/tokens_per_second"} <= found
        assert {f"eval/{key}" for key in FINAL} <= found


def test_the_wandb_run_of_a_trained_sae_equals_its_files(reference_sweep):
    for folder in saes(reference_sweep):
        run, numbers = read(folder), json.loads((folder / "eval.json").read_text())
        header, *curve = rows(folder)
        assert len(curve) == len(run["history"]) == 5
        for row, logged in zip(curve, run["history"], strict=True):
            found = {key: value for key, value in logged.items() if not key.startswith("_")}
            keys_here = ["tokens", *(f"train/{key}" for key in header[1:])]
            assert found == dict(zip(keys_here, map(float, row), strict=True))
        assert {key: run["summary"][f"eval/{key}"] for key in FINAL} == {key: numbers[key] for key in FINAL}


def test_a_runs_notes_are_the_command_that_trains_its_sae_again(reference_sweep):
    for folder in saes(reference_sweep):
        program, script, *words = shlex.split(read(folder)["notes"])
        assert (program, script) == ("python", "train.py")
        again = OmegaConf.to_container(composed(*words, always=()), resolve=True)
        resolved = OmegaConf.to_container(OmegaConf.load(folder / ".hydra/resolved.yaml"))
        assert old_names.renewed(again) == resolved and again["arch"]["name"] == folder.parent.name


def test_the_folder_of_a_finished_sae_is_an_artifact_only_with_artifacts_true(reference_sweep, tmp_path):
    for folder in saes(reference_sweep):
        (artifact,) = read(folder)["artifacts"]
        assert artifact.type == "sae" and artifact.name == f"default-tiny-mlp.0-{folder.parent.name}-4"
        files = {entry.path: entry.local_path for entry in artifact.manifest.contents}
        assert set(files) == {"cfg.json", "sae_weights.safetensors"}
        assert Path(files["cfg.json"]).samefile(folder / "sae/cfg.json"), "the file is not copied"
    one = member(tmp_path / "study")
    sweep_logger([one], csv=True, wandb=OFFLINE).finish(0, {"l0": 1.0}, None)
    assert read(one.folder)["artifacts"] == []


def test_offline_runs_have_no_url(reference_sweep):
    assert not list(reference_sweep.rglob("url.txt"))


@pytest.mark.slow
def test_after_a_resume_no_row_is_logged_twice(tmp_path):
    one, kinds = member(tmp_path / "study"), ("wandb", "tensorboard")
    for count, numbers in ((300, None), (500, {"l0": 9.0})):  # the second resumes from a checkpoint at 200
        logger = SweepLogger([one], {"csv": {"name": "csv"}, "wandb": OFFLINE, "tensorboard": yaml("tensorboard")})
        for tokens in range(100 if numbers is None else 300, count + 1, 100):
            logger.log_member(0, {"l0": tokens / 7}, tokens)
        logger.finish(0, numbers, None)
        time.sleep(1.1)  # the file names of W&B and TensorBoard have a resolution of a second
    expected = [(tokens, tokens / 7) for tokens in range(100, 501, 100)]
    runs = [finished_run(file) for file in sorted(one.folder.glob("wandb/offline-run-*/run-*.wandb"))]
    assert len(runs) == 2 and len({run["id"] for run in runs}) == 1
    assert [(row["tokens"], row["train/l0"]) for run in runs for row in run["history"]] == expected
    assert scalars(one.folder, "train/l0") == [(tokens, pytest.approx(value)) for tokens, value in expected]
    assert [(int(row[0]), float(row[1])) for row in rows(one.folder)[1:]] == expected
    assert all((one.folder / kind / "logged.json").is_file() for kind in kinds)


def yaml(kind):
    return OmegaConf.to_container(OmegaConf.load(ROOT / f"conf/logger/{kind}.yaml"))


def scalars(folder, key):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars(key)]


def test_tensorboard_has_the_metrics_of_every_sae_by_tokens(reference_sweep):
    for folder in saes(reference_sweep):
        header, *curve = rows(folder)
        for i, key in enumerate(header[1:], 1):
            expected = [(int(row[0]), pytest.approx(float(row[i]), rel=1e-6)) for row in curve]
            assert scalars(folder, f"train/{key}") == expected, "TensorBoard stores single precision"
        numbers = json.loads((folder / "eval.json").read_text())
        for key in ("l0", "fvu", "dead", "ce_sae"):
            assert scalars(folder, f"eval/{key}") == [(numbers["tokens"], pytest.approx(numbers[key], rel=1e-6))]
        assert folder.parent.name in (folder / "tensorboard/hparams.yaml").read_text()


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed (pip install '.[mlflow]')")
def test_mlflow_has_a_run_per_sae_and_continues_it_after_a_resume(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient

    members = [member(tmp_path / "study", arch) for arch in ("topk", "gated")]
    for first, last, numbers in ((100, 300, None), (300, 400, {"l0": 9.0, "coefficient": None})):
        logger = SweepLogger(members, {"mlflow": yaml("mlflow")})
        for tokens in range(first, last + 1, 100):
            for index in range(2):
                logger.log_member(index, {"l0": tokens / 7 + index}, tokens)
        if numbers:
            logger.finish(0, numbers, None)
            logger.finish(1, None, "NaN after 400 tokens")
    client = MlflowClient(f"sqlite:///{tmp_path}/study/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id], order_by=["attributes.run_name DESC"])
    assert [run.info.run_name for run in runs] == ["lm/resid.9/topk/32", "lm/resid.9/gated/32"]
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert runs[0].data.tags["arch"] == "topk" and runs[0].data.params["settings/arch/k_aux"] == "320"
    for index, run in enumerate(runs):
        history = client.get_metric_history(run.info.run_id, "train/l0")
        assert [(row.step, row.value) for row in history] == [(t, t / 7 + index) for t in range(100, 401, 100)]
    assert runs[0].data.metrics["eval/l0"] == 9.0 and "eval/coefficient" not in runs[0].data.metrics
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_any_lightning_logger_is_a_yaml_and_each_sae_has_its_own_instance(tmp_path):
    node = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "{sweep_folder}/curves", "name": "{arch}-{sparsity}",
            "version": "{seed}"}
    members = [member(tmp_path / "study", arch) for arch in ("topk", "gated")]
    logger = SweepLogger(members, {"mine": node})
    for index in range(2):
        logger.log_member(index, {"l0": 1.0 + index}, 512)
        logger.finish(index, {"fvu": 0.5}, None)
    for index, arch in enumerate(("topk", "gated")):
        written = (tmp_path / f"study/curves/{arch}-32/version_0/metrics.csv").read_text().splitlines()
        assert written[1:] == [f"512,{1.0 + index},"] or written[0] == "eval/fvu,step,train/l0", written


@pytest.mark.parametrize(
    "kind, node, word",
    [
        ("mine", {"save_dir": "x"}, r"logger\.mine\._target_: is missing"),
        ("mine", {"_target_": "os.system"}, r"logger\.mine\._target_=os\.system: must be the dotted path"),
        ("mine", {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dr": "x"},
         r"no key logger\.mine\.save_dr; did you mean save_dir"),
        ("tensorboard", {"save_dir": "{fodler}"}, r"save_dir=\{fodler\}: in braces there can be \{folder\}"),
        ("tensorboard", {"needs": "no_such_package"}, r"logger=tensorboard: needs the package no_such_package: pip install"),
        ("comet", {"_target_": "lightning.pytorch.loggers.CometLogger", "api_key": "abc"}, r"logger\.comet\.api_key: would be"),
        ("mlflow", {"tracking_uri": "https://me:abc@host/x"}, r"logger\.mlflow\.tracking_uri: has a password in its address"),
        ("wandb", {"live_seconds": 0}, r"logger\.wandb\.live_seconds=0: must be above 0"),
        ("wandb", {"projct": "x"}, r"there is no key logger\.wandb\.projct; did you mean project"),
    ],
)
def test_a_mistake_in_a_loggers_yaml_is_refused_before_training_without_its_secret(kind, node, word):
    known = yaml(kind) if (ROOT / f"conf/logger/{kind}.yaml").is_file() else {}
    config = OmegaConf.to_container(composed("arch=flat"), resolve=True)
    with pytest.raises(UsageError, match=word) as error:
        check({**config, "logger": {kind: known | node}})
    assert "abc" not in str(error.value)


def test_a_secret_on_the_command_line_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, capfd, hydra_restore_singletons
):
    secret = "0123456789abcdef"
    monkeypatch.chdir(tmp_path)
    ended = train("-m", "arch=flat", f"+logger.comet.api_key={secret}")
    out, err = capfd.readouterr()
    assert ended.code == 1 and "logger.comet.api_key" in ended.error and secret not in ended.error + out + err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind, node", [
    ("wandb", OFFLINE | {"project": "a/b"}),
    ("mine", {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "/dev/null/x"}),
])
def test_a_failing_logger_is_reported_once_and_the_others_continue(tmp_path, caplog, kind, node):
    one = member(tmp_path / "study")
    logger = SweepLogger([one], {kind: node, "csv": {"name": "csv"}})
    for tokens in (100, 200):
        logger.log_member(0, {"l0": 1.0}, tokens)
    logger.finish(0, {"l0": 1.0}, None)
    flush()
    messages = [line.getMessage() for line in caplog.records if "continues without it" in line.getMessage()]
    assert len(messages) == 1 and messages[0].startswith(f"logger={kind} of lm/resid.9/topk/32: ")
    assert len(rows(one.folder)) == 3
