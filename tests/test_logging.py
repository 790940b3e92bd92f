"""metrics.csv and the offline W&B runs, read back from their files and compared value by value."""

import csv
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest

from saesweep import logging as saelogging
from saesweep import pareto
from saesweep.errors import UsageError
from saesweep.logging import MemberInfo, SweepLogger, log_sweep, sync_command

OFFLINE = {"name": "wandb", "project": "saesweep", "entity": None, "mode": "offline"}
KEYS = ["loss", "l0", "fvu"]


@pytest.fixture(autouse=True)
def no_network_and_no_account(monkeypatch, tmp_path):
    """Only the unix sockets and this machine's own ports stay open; nobody is logged in."""
    connect = socket.socket.connect

    def refuse(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"), f"network: {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    saelogging._logged_in.cache_clear()


def records(file):
    """The protobuf records of a .wandb file: 7 bytes, then LevelDB's log: 32 KiB blocks of framed fragments."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while len(data) - at >= 7:
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        size, kind = struct.unpack_from("<HB", data, at + 4)
        if at + 7 + size > len(data):
            return  # still being written
        first, last = kind in (1, 2), kind in (1, 4)
        whole = (b"" if first else whole) + data[at + 7 : at + 7 + size]
        at += 7 + size
        if last:
            yield Record.FromString(whole)


def values(items):
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def read(folder):
    """What one finished offline run holds; W&B's own process writes the file's end shortly after finish() returns."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    for _ in range(200):
        if "exit" in (run := parse(file)):
            return run
        time.sleep(0.05)
    raise AssertionError(f"{file} was not finished within 10 seconds")


def parse(file):
    run = {"config": {}, "history": [], "summary": {}, "steps": {}}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            about = record.run
            run |= {"id": about.run_id, "name": about.display_name, "group": about.run_group, "tags": list(about.tags),
                    "job_type": about.job_type, "project": about.project}  # fmt: skip
            run["config"] |= values(about.config.update)
        elif kind == "config":
            run["config"] |= values(record.config.update)
        elif kind == "history":
            run["history"].append(values(record.history.item))
        elif kind == "summary":
            run["summary"] |= values(record.summary.update)
        elif kind == "metric":
            run["steps"][record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
    return run


def member(sweep, arch="topk", sparsity=32, **more):
    config = {"name": sweep.name, "seed": 0, "layer": 9, "sparsity": sparsity, "tokens": 1000, "model": {"name": "lm"},
              "arch": {"name": arch, "k_aux": 320, "optimizer": {"lr": 3e-4}}, "site": {"name": "resid"},
              "activations": {"center": True}, **more}  # fmt: skip
    folder = sweep / "lm" / "resid.9" / arch / str(sparsity)
    return MemberInfo(folder=folder, config=config, sweep=sweep.name, model="lm", site="resid", layer=9, arch=arch,
                      sparsity=sparsity, seed=0)  # fmt: skip


def metrics(index, tokens):
    return {"loss": 1.0 / (index + tokens), "l0": 32 + index * math.pi, "fvu": float("nan") if index == 1 else 0.1}


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.reader(file))


@pytest.fixture
def trained(tmp_path):
    """Three members of one sweep, logged in turn in one process; the second fails."""
    members = [member(tmp_path / "study", arch) for arch in ("jumprelu", "gated", "topk")]
    logger = SweepLogger(members, csv=True, wandb=OFFLINE)
    for tokens in range(100, 40_100, 100):
        for index in range(3):
            logger.log_member(index, metrics(index, tokens), tokens)
    logger.finish(0, {"l0": 32.5, "fvu": 0.125, "ce_sae": None}, None)
    logger.finish(1, None, "NaN after 40000 tokens")
    logger.finish(2, {"l0": 32, "fvu": 0.1, "ce_sae": 2.75}, None)
    return members


def same(a, b):
    return a == b or (math.isnan(float(a)) and math.isnan(float(b)))


def test_every_logged_value_stands_in_the_csv_and_in_the_wandb_run_alike(trained):
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


def test_runs_of_one_process_keep_their_own_names_configs_and_groups(trained):
    for one in trained:
        run = read(one.folder)
        assert run["group"] == "study" and run["job_type"] == "sae" and run["project"] == "saesweep"
        assert run["name"] == f"lm/resid.9/{one.arch}/32" and set(run["tags"]) == {one.arch, "resid", "layer 9"}
        config = run["config"]
        assert [config[key] for key in ("model", "site", "layer", "arch", "sparsity", "seed", "tokens")] == [
            "lm", "resid", 9, one.arch, 32, 0, 1000]  # fmt: skip
        assert config["settings"]["arch"] == {"name": one.arch, "k_aux": 320, "optimizer": {"lr": 3e-4}}
        assert config["settings"]["activations"] == {"center": True}
    assert len({read(one.folder)["id"] for one in trained}) == 3


def test_training_metrics_are_drawn_against_tokens(trained):
    assert read(trained[0].folder)["steps"]["train/*"] == "tokens"


def test_final_numbers_are_the_summary_and_a_failure_is_the_runs_exit_code(trained):
    good, bad, _ = (read(one.folder) for one in trained)
    assert {key: value for key, value in good["summary"].items() if key.startswith("eval/")} == {
        "eval/l0": 32.5, "eval/fvu": 0.125, "eval/ce_sae": None}  # fmt: skip
    assert good["exit"] == 0 and "failed" not in good["summary"]
    assert bad["exit"] == 1 and bad["summary"]["failed"] == "NaN after 40000 tokens"


def test_a_member_that_fails_before_its_first_row_still_says_so(tmp_path):
    one = member(tmp_path / "study")
    SweepLogger([one], csv=True, wandb=OFFLINE).finish(0, None, "out of memory")
    assert read(one.folder)["exit"] == 1 and not (one.folder / "metrics.csv").exists()


def test_the_run_id_is_the_jobs_and_changes_with_its_settings(tmp_path):
    def run_id(base, **more):
        one = member(base / "study", **more)
        SweepLogger([one], csv=False, wandb=OFFLINE).finish(0, {}, None)
        return read(one.folder)["id"]

    first = run_id(tmp_path / "a")
    assert first == run_id(tmp_path / "b"), "the same job elsewhere is the same run"
    others = [{"tokens": 2000}, {"sparsity": 64}, {"arch": "relu"}]
    assert len({first, *(run_id(tmp_path / str(i), **other) for i, other in enumerate(others))}) == 4


def test_without_the_wandb_logger_nothing_of_it_is_imported_or_written(tmp_path):
    script = (
        "import sys; from pathlib import Path; from saesweep.logging import MemberInfo, SweepLogger\n"
        "m = MemberInfo(Path(sys.argv[1]), {}, 's', 'lm', 'resid', 9, 'topk', 32, 0)\n"
        "logger = SweepLogger([m], csv=True, wandb=None)\n"
        "logger.log_member(0, {'l0': 1.0}, 5); logger.finish(0, {'l0': 1.0}, None)\n"
        "assert 'wandb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_no_csv_is_written_where_none_is_wanted(tmp_path):
    one = member(tmp_path / "study")
    logger = SweepLogger([one], csv=False, wandb=OFFLINE)
    logger.log_member(0, {"l0": 1.0}, 5)
    logger.finish(0, {}, None)
    assert not (one.folder / "metrics.csv").exists() and len(read(one.folder)["history"]) == 1


def test_each_row_is_on_disk_as_soon_as_it_is_logged(tmp_path):
    one = member(tmp_path / "study")
    logger = SweepLogger([one], csv=True, wandb=None)
    for count in (1, 2, 3):
        logger.log_member(0, {"l0": 1.5}, count * 512)
        assert rows(one.folder) == [["tokens", "l0"], *([str(512 * i), "1.5"] for i in range(1, count + 1))]


def test_a_resumed_curve_drops_the_rows_after_the_point_of_resume_and_a_torn_last_row(tmp_path):
    one = member(tmp_path / "study")
    logger = SweepLogger([one], csv=True, wandb=None)
    for tokens in (100, 200, 300):
        logger.log_member(0, {"l0": float(tokens)}, tokens)
    with (one.folder / "metrics.csv").open("a") as file:
        file.write("40")
    SweepLogger([one], csv=True, wandb=None).log_member(0, {"l0": 7.0}, 200)
    assert rows(one.folder) == [["tokens", "l0"], ["100", "100.0"], ["200", "7.0"]]


def test_a_run_from_the_start_begins_a_new_curve_whatever_the_old_columns(tmp_path):
    one = member(tmp_path / "study")
    SweepLogger([one], csv=True, wandb=None).log_member(0, {"l0": 1.0, "fvu": 2.0}, 100)
    SweepLogger([one], csv=True, wandb=None).log_member(0, {"loss": 3.0}, 100)
    assert rows(one.folder) == [["tokens", "loss"], ["100", "3.0"]]
    assert [file.name for file in one.folder.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("changed", [{"l0": 1.0, "new": 2.0}, {}, {"fvu": 1.0}])
def test_keys_are_fixed_by_the_first_row(tmp_path, changed):
    logger = SweepLogger([member(tmp_path / "study")], csv=True, wandb=None)
    logger.log_member(0, {"l0": 1.0}, 100)
    with pytest.raises(AssertionError, match="metrics changed"):
        logger.log_member(0, changed, 200)


def test_lightnings_own_metrics_reach_every_members_run(tmp_path):
    members = [member(tmp_path / "study", arch) for arch in ("topk", "gated")]
    logger = SweepLogger(members, csv=True, wandb=OFFLINE)
    logger.log_metrics({"lr": 0.5}, step=3)
    for index, one in enumerate(members):
        logger.finish(index, {}, None)
        assert read(one.folder)["history"][0]["group/lr"] == 0.5


def test_without_an_account_the_runs_are_offline_and_nothing_is_printed(tmp_path, capfd):
    one = member(tmp_path / "study")
    logger = SweepLogger([one], csv=True, wandb={**OFFLINE, "mode": None})
    logger.log_member(0, {"l0": 1.0}, 5)
    logger.finish(0, {"l0": 1.0}, None)
    assert read(one.folder)["exit"] == 0
    assert capfd.readouterr() == ("", "")


def test_online_without_an_account_stays_offline_and_says_so(tmp_path, caplog):
    one = member(tmp_path / "study")
    SweepLogger([one], csv=True, wandb={**OFFLINE, "mode": "online"}).finish(0, {}, None)
    assert read(one.folder)["exit"] == 0
    assert "nobody is logged in" in caplog.text


def test_wandb_mode_of_the_environment_counts_where_the_config_is_silent(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    silent, explicit = member(tmp_path / "a"), member(tmp_path / "b")
    SweepLogger([silent], csv=True, wandb={**OFFLINE, "mode": None}).finish(0, {}, None)
    SweepLogger([explicit], csv=True, wandb=OFFLINE).finish(0, {}, None)
    assert not (silent.folder / "wandb").exists() and (explicit.folder / "wandb").exists()


def test_a_mistyped_mode_is_refused_before_training(tmp_path):
    with pytest.raises(UsageError, match=r"logger\.wandb\.mode=onlin .*online, offline, disabled"):
        SweepLogger([member(tmp_path / "study")], csv=True, wandb={**OFFLINE, "mode": "onlin"})


def finished_sweep(sweep):
    for arch, fvu in {"topk": 0.1, "gated": 0.2}.items():
        folder = member(sweep, arch).folder
        (folder / ".hydra").mkdir(parents=True)
        groups = f"model: {{name: lm}}\nsite: {{name: resid}}\narch: {{name: {arch}}}\n"
        (folder / ".hydra" / "config.yaml").write_text(f"layer: 9\nsparsity: 32\nseed: 0\n{groups}")
        (folder / "eval.json").write_text(json.dumps({"l0": 32.0, "fvu": fvu, "delta_loss": None}))
    return pareto.write(sweep)


def test_the_sweeps_summary_run_holds_the_table_the_curves_and_both_figures(tmp_path):
    df = finished_sweep(tmp_path / "study")
    log_sweep(tmp_path / "study", df, OFFLINE)
    run = read(tmp_path / "study")
    assert (run["job_type"], run["group"], run["name"], run["exit"]) == ("pareto", "study", "study pareto", 0)
    logged = run["history"][0]
    panel = run["config"]["_wandb/visualize/fvu_against_l0"]["panel_config"]
    assert panel["fieldSettings"] == {"x": "l0", "y": "fvu"} and logged["fvu_against_l0_table/nrows"] == len(df) == 2
    (files,) = (tmp_path / "study").glob("wandb/offline-run-*/files")
    table = json.loads((files / logged["pareto/path"]).read_text())
    assert table["columns"] == list(df.columns)
    assert [row[table["columns"].index("fvu")] for row in table["data"]] == df["fvu"].tolist()
    for key, name in {"figure": "pareto.png", "page": "pareto.html"}.items():
        assert (files / logged[f"{key}/path"]).read_bytes() == (tmp_path / "study" / name).read_bytes()


def test_the_sync_command_names_every_offline_run_of_the_sweep(tmp_path):
    sweep = tmp_path / "my study"
    assert sync_command(sweep) is None
    for arch in ("topk", "gated"):
        SweepLogger([member(sweep, arch)], csv=True, wandb=OFFLINE).finish(0, {}, None)
    log_sweep(sweep, pareto.write(sweep), OFFLINE)
    shell = sync_command(sweep).replace("wandb sync", "printf '%s\\n'")
    listed = subprocess.run(shell, shell=True, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(listed) == sorted(str(file.parent) for file in sweep.rglob("run-*.wandb")) and len(listed) == 3


def test_the_sync_command_ends_when_everything_is_sent(tmp_path):
    one = member(tmp_path / "study")
    SweepLogger([one], csv=True, wandb=OFFLINE).finish(0, {}, None)
    (file,) = one.folder.rglob("run-*.wandb")
    assert sync_command(tmp_path / "study").endswith("/study/*/*/*/*/wandb/offline-run-*")
    file.with_name(f"{file.name}.synced").touch()
    assert sync_command(tmp_path / "study") is None


@pytest.mark.skipif(shutil.which("wandb", path=os.path.dirname(sys.executable)) is None, reason="no wandb command")
def test_wandbs_own_command_accepts_it(tmp_path, monkeypatch):
    one = member(tmp_path / "study")
    SweepLogger([one], csv=True, wandb=OFFLINE).finish(0, {}, None)
    command = sync_command(tmp_path / "study").replace("wandb sync", "wandb sync --dry-run")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    monkeypatch.setenv("PATH", path)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "Would sync 1 run" in done.stdout + done.stderr
