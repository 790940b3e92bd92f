"""The sweep's summary run in W&B, during the sweep and at its end, read from its offline file and compared with pareto.csv."""

import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import warm
from offline import OFFLINE, read, saes, table
from omegaconf import OmegaConf
from standin import run
from standin.cli import ENV, train

from hydra_plugins.saesweep import sources
from saesweep.loggers.wandb_runs import submit
from saesweep.loggers.wandb_tables import standing
from saesweep.storage import sweep_table
from saesweep.sweep.wandb_summary import Summary

NUMBERS = ["l0", "fvu", "delta_loss"]

pytestmark = pytest.mark.usefixtures("without_wandb_login")


def test_the_pareto_table_of_the_offline_run_equals_pareto_csv(reference_sweep):
    last = read(reference_sweep)["history"][-1]
    shown = table(reference_sweep, last, "pareto")
    assert list(shown.columns) == sweep_table.COLUMNS and set(shown["state"]) == {"finished"}
    same(shown, pd.read_csv(reference_sweep / "pareto.csv"))


def same(shown, expected):
    """Equal bitwise; integers may be floats."""
    pd.testing.assert_frame_equal(
        shown.astype(object).where(shown.notna(), None), expected.astype(object).where(expected.notna(), None),
        check_exact=True, check_dtype=False,
    )


def test_the_runs_of_the_saes_have_the_points_of_the_pareto_curve(reference_sweep):
    runs = [read(folder) for folder in saes(reference_sweep)]
    points = pd.DataFrame([
        {"path": r["config"]["path"], "arch": r["config"]["arch"], **{key: r["summary"][f"eval/{key}"] for key in NUMBERS}}
        for r in runs
    ]).sort_values("path", ignore_index=True)
    expected = pd.read_csv(reference_sweep / "pareto.csv").sort_values("path", ignore_index=True)
    same(points, expected[["path", "arch", *NUMBERS]])


def test_the_curves_of_the_offline_run_equal_pareto_csv(reference_sweep):
    run, last = read(reference_sweep), read(reference_sweep)["history"][-1]
    expected = pd.read_csv(reference_sweep / "pareto.csv").sort_values("l0", kind="stable", ignore_index=True)
    for key in ("fvu", "delta_loss"):
        for kind, fields in (("against_l0", {"x": "l0", "y": key}), ("curves", {"x": "l0", "y": key, "stroke": "curve"})):
            panel = run["config"][f"_wandb/visualize/{key}_{kind}"]["panel_config"]
            assert panel["fieldSettings"] == fields
            drawn = table(reference_sweep, last, f"{key}_{kind}_table")
            same(drawn[["l0", key, "path"]], expected[["l0", key, "path"]])
            assert drawn["curve"].tolist() == expected["arch"].tolist()


def test_the_summary_run_ends_with_the_page_and_the_figures_of_the_sweep(reference_sweep):
    run, last = read(reference_sweep), read(reference_sweep)["history"][-1]
    assert (run["job_type"], run["group"], run["name"], run["exit"]) == ("pareto", "default", "default pareto", 0)
    (files,) = reference_sweep.glob("wandb/offline-run-*/files")
    for key, name in {"figure": "pareto.png", "page": "pareto.html"}.items():
        assert (files / last[f"{key}/path"]).read_bytes() == (reference_sweep / name).read_bytes()


@pytest.fixture
def started(tmp_path):
    """The folders of a sweep of three SAEs before training."""
    jobs = [tmp_path / "study/lm/resid.9" / arch / "32" for arch in ("topk", "gated", "relu")]
    for job in jobs:
        (job / ".hydra").mkdir(parents=True)
        config = {"model": {"name": "lm"}, "site": {"name": "resid"}, "arch": {"name": job.parent.name}}
        for name in ("config", "resolved"):
            OmegaConf.save(OmegaConf.create({**config, "layer": 9, "sparsity": 32, "seed": 0}), job / f".hydra/{name}.yaml")
    return jobs


def states(df):
    return dict(zip(df["arch"], df["state"], strict=True))


def finish(job, l0=32.5, fvu=0.1, delta_loss=None):
    (job / "eval.json").write_text(json.dumps({"l0": l0, "fvu": fvu, "delta_loss": delta_loss, "tokens": 1000}))


def test_the_state_of_every_sae_is_read_from_its_folder(started):
    topk, gated, relu = started
    sweep = topk.parents[3]
    assert states(standing(sweep, set(started))) == dict.fromkeys(("topk", "gated", "relu"), "unfinished")
    (topk / "metrics.csv").write_text("tokens,l0,fvu,loss_reconstruction,dead\n100,30.5,0.5,1.0,0.25\n200,31.5,0.25,1.0,0.0")
    finish(gated)
    (relu / "failed.txt").write_text("not finite\n")
    df = standing(sweep, set(started)).set_index("arch")
    assert df["state"].to_dict() == {"topk": "training", "gated": "finished", "relu": "failed"}
    assert df.loc["topk", ["tokens", "l0", "fvu", "dead"]].tolist() == [100, 30.5, 0.5, 0.25], "the last complete row"
    assert df.loc["gated", ["l0", "fvu", "tokens"]].tolist() == [32.5, 0.1, 1000]
    assert df.loc["relu", ["l0", "fvu"]].isna().all()
    assert states(standing(sweep))["topk"] == "unfinished", "no process trains it"


def test_each_evaluation_updates_table_and_scatter_once(started):
    sweep = started[0].parents[3]
    summary = Summary(sweep, OFFLINE)
    summary.running |= set(started)
    for job in started:
        for _ in range(2):
            submit(summary.update).result()
        finish(job)
    submit(summary.update).result()
    submit(summary.close, True).result()
    history = read(sweep)["history"]
    assert [len(states(table(sweep, row, "pareto"))) for row in history] == [3] * 5
    finished = [sum(state == "finished" for state in states(table(sweep, row, "pareto")).values()) for row in history]
    assert finished == [0, 1, 2, 3, 3], "the last row is logged at the end"
    drawn = [len(table(sweep, row, "fvu_against_l0_table")) for row in history if "fvu_against_l0_table/path" in row]
    assert drawn == [1, 2, 3, 3]


def test_an_unreadable_file_is_a_warning_and_the_next_update_shows_it(started, caplog):
    sweep = started[0].parents[3]
    summary = Summary(sweep, OFFLINE)
    (started[0] / "eval.json").write_text("{")
    for _ in range(2):
        submit(summary.update).result()
    assert sum("is not up to date" in line.getMessage() for line in caplog.records) == 1
    finish(started[0])
    submit(summary.close, True).result()
    assert states(table(sweep, read(sweep)["history"][-1], "pareto"))["topk"] == "finished"


def test_an_error_of_wandb_is_a_warning(started, caplog):
    summary = Summary(started[0].parents[3], OFFLINE | {"project": "a/b"})
    submit(summary.update).result()
    submit(summary.close, True).result()
    assert "is not up to date" in caplog.text


def test_the_comparison_at_matched_l0_is_a_table_of_its_own(started):
    sweep = started[0].parents[3]
    gap = {"a": "gated", "b": "topk", "sparsity": 32, "l0": 32.0, "value_a": 0.1, "value_b": 0.2, "percent": -50.0,
           "low": None, "high": None, "interval": None}
    metrics = {"fvu": {"gaps": [gap, gap | {"sparsity": 64, "low": -55.0, "high": -45.0}]}, "delta_loss": {"gaps": []}}
    place = {"model": "lm", "site": "resid", "layer": 9, "metrics": metrics}
    (sweep / "pareto.json").write_text(json.dumps({"places": [place]}))
    submit(Summary(sweep, OFFLINE).close, True).result()
    shown = table(sweep, read(sweep)["history"][-1], "matched_l0")
    assert shown["metric"].tolist() == ["fvu", "fvu"] and shown["percent"].tolist() == [-50.0, -50.0]
    assert shown["low"].isna().tolist() == [True, False] and set(shown["site"]) == {"resid"}


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch, hydra_restore_singletons):
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "outputs/default"
    sources.register()


LOGGED = ("-m", "logger=[csv,wandb]", "logger.wandb.mode=offline", "arch=flat,round", "sparsity=16")


@pytest.mark.slow
def test_the_summary_run_shows_a_failed_sae(in_an_empty_folder):
    assert train(*LOGGED, "text.fail=round").code == 1
    shown = table(in_an_empty_folder, read(in_an_empty_folder)["history"][-1], "pareto")
    assert states(shown) == {"flat": "finished", "round": "failed"}


@pytest.mark.slow
def test_a_finished_sweep_and_a_plan_start_no_summary_run(in_an_empty_folder):
    assert train(*LOGGED, "plan=true").code == 0
    assert not (in_an_empty_folder / "wandb").exists()
    for _ in range(2):
        assert train(*LOGGED).code == 0
        assert len(list(in_an_empty_folder.glob("wandb/offline-run-*"))) == 1


@pytest.mark.slow
def test_a_single_run_has_a_summary_run(in_an_empty_folder):
    assert train("logger=[csv,wandb]", "logger.wandb.mode=offline", "arch=flat", "sparsity=16").code == 0
    assert states(table(in_an_empty_folder, read(in_an_empty_folder)["history"][-1], "pareto")) == {"flat": "finished"}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_after_a_signal_the_summary_run_is_closed_with_the_current_states(tmp_path, number, code):
    words = ["-m", "logger=[csv,wandb]", "logger.wandb.mode=offline", "arch=flat", "sparsity=16", "text.sleep=60", "name=study"]
    command = [sys.executable, run.__file__, *words]
    with warm.popen(command, tmp_path, ENV, figures=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while "started" not in process.stdout.readline():
            assert process.poll() is None
        while not list(tmp_path.glob("outputs/study/wandb/offline-run-*/run-*.wandb")):
            time.sleep(0.05)
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in out, out
    summary = read(tmp_path / "outputs/study")
    assert summary["exit"] == 1
    assert states(table(tmp_path / "outputs/study", summary["history"][-1], "pareto")) == {"flat": "unfinished"}
