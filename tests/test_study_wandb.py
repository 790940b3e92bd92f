"""A training that ends with its study for real, and what the study puts on W&B."""
import shutil
import sys

import made_pages
import pandas as pd
import pytest
import warm
from offline import OFFLINE, finished_run, saes
from small import command, weights, write_text
from standin.cli import ENV
from studied import written

from saesweep.loggers import wandb_runs, wandb_study
from saesweep.storage import sweep_table
from saesweep.storage.exact_csv import read_csv
from saesweep.study import __main__ as study_command
from saesweep.study.snippets import COLUMNS, RANKS, snippets

FEW = ("tokens=3000", "features=10", "dense_tokens=300", "device=cpu", "forward_tokens=128", "min_fires=10", "min_documents=5")
TRAINED = ("arch=jumprelu,topk", "logger=[csv,wandb]", "logger.wandb.mode=offline")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of two SAEs, trained with study=rules by the command line; no test changes it."""
    folder = tmp_path_factory.mktemp("trained")
    words = command(write_text(folder, 200), *TRAINED, "study=rules", *(f"study.{word}" for word in FEW))
    done = warm.run(words, folder, ENV, figures=True)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder / "outputs/default"


@pytest.mark.slow
def test_the_study_of_a_training_is_that_of_the_command(sweep, tmp_path, monkeypatch, capsys):
    copy = tmp_path / "outputs/default"
    shutil.copytree(sweep, copy, ignore=lambda _, names: {"study"} & {*names})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    before = sorted(copy.rglob("*run-*-*"))
    monkeypatch.setattr(sys, "argv", ["saesweep study", "outputs/default", *FEW])
    study_command.main()
    there, here = written(sweep), written(copy)
    assert there.keys() == here.keys() and [name for name in there if there[name] != here[name]] == []
    assert (copy / "pareto.csv").read_bytes() == (sweep / "pareto.csv").read_bytes()
    said = capsys.readouterr().out.split("\n\nto upload")[0].replace(str(tmp_path), str(sweep.parents[1]))
    assert f"study of outputs/default\n{said}" in (sweep.parents[1] / "stdout").read_text()
    assert sorted(copy.rglob("*run-*-*")) == before, "W&B is disabled"


@pytest.mark.slow
@pytest.mark.process
def test_a_study_changes_no_bit_of_the_weights(sweep, tmp_path):
    done = warm.run(command(str(sweep.parents[1] / "text.jsonl"), "arch=jumprelu,topk"), tmp_path, ENV)
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "outputs/default") == weights(sweep)


def newest(folder):
    """The run that the study has opened, and the one before it."""
    first, last = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    return finished_run(first), finished_run(last), last.parent


@pytest.mark.slow
def test_the_runs_of_the_saes_have_the_scores_of_pareto_csv(sweep):
    df = read_csv(sweep / "pareto.csv").set_index("path")
    for folder in saes(sweep):
        first, last, _ = newest(folder)
        row = df.loc[folder.relative_to(sweep).as_posix()]
        assert last["id"] == first["id"] and last["name"] == first["name"] and last["history"] == []
        assert last["summary"]["study/rule"] == row["rule"] and last["summary"]["study/rule_control"] == row["rule_control"]
        assert {key: value for key, value in last["summary"].items() if key.startswith("eval/")} == {
            key: value for key, value in first["summary"].items() if key.startswith("eval/")}


@pytest.mark.slow
def test_the_summary_run_has_the_scores_as_columns_and_a_table_of_latents(sweep):
    first, last, folder = newest(sweep)
    assert last["id"] == first["id"] and last["exit"] == 0
    shown = {key: pd.read_json((folder / "files" / last["history"][-1][f"{key}/path"]).open(), orient="split")
             for key in ("pareto", "latents")}
    df = sweep_table.table(sweep)
    assert list(shown["pareto"].columns) == list(df.columns) and shown["pareto"]["rule"].tolist() == pytest.approx(df["rule"])
    latents = shown["latents"]
    assert list(latents.columns) == list(COLUMNS) and latents.groupby("path").size().tolist() == [5, 5]
    assert latents["rank"].tolist() == [*RANKS] * 2 and latents["window_1"].str.count("«").tolist() == [1] * 10
    for _, some in latents.groupby("path"):
        assert some["rule"].is_monotonic_decreasing
    assert (folder / "files" / last["history"][-1]["page/path"]).read_bytes() == (sweep / "pareto.html").read_bytes()


@pytest.mark.slow
def test_the_snippets_of_a_latent_mark_the_token_that_fires():
    made = made_pages.made().saes
    for one in made:
        one.collected.config["model"]["source"] = {"hub": "any"}
    df = snippets(made)
    assert list(df.columns) == list(COLUMNS) and df["path"].nunique() == 4 and df["rank"].nunique() == 5
    best = df.loc[df["rank"] == "best"].iloc[0]
    assert best["rule"] == df.loc[df["path"] == best["path"], "rule"].max()
    some = df.loc[df["latent"].isin([0, 1])]
    assert len(some) and all(f"«{made_pages.VOCABULARY[int(row['latent'])]}»" in row["window_1"] for _, row in some.iterrows())


@pytest.mark.parametrize("chosen, now, mode", [
    (None, None, None), ("offline", None, "offline"), ("online", "offline", "offline"), ("online", "dryrun", "offline"),
    ("online", "disabled", "off"), (None, "disabled", "off"), ("disabled", None, "off"), ("offline", "online", "offline"),
])
def test_WANDB_MODE_has_precedence_over_the_mode_of_the_training(chosen, now, mode, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if now:
        monkeypatch.setenv("WANDB_MODE", now)
    found = wandb_study.chosen_of({"logger": {"wandb": OFFLINE | {"mode": chosen}}})
    assert found is None if mode == "off" else found == OFFLINE | {"mode": mode}
    assert wandb_study.chosen_of({"logger": {"csv": {}}}) is None is wandb_study.chosen_of({})


def test_only_runs_that_are_recorded_are_added_to(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_runs, "submit", pytest.fail)
    config = {"logger": {"wandb": OFFLINE}}
    wandb_study.upload(tmp_path, {tmp_path / "job": config}, {}, pd.DataFrame())
    for name in ("offline-run-20260102_000000-b2", "run-20260103_000000-c3", "offline-run-20260101_000000-a1"):
        (tmp_path / "job/wandb" / name).mkdir(parents=True)
    assert wandb_study.recorded_id(tmp_path / "job") == "c3" and wandb_study.recorded_id(tmp_path) is None


def test_a_fault_of_wandb_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError("no room")

    monkeypatch.setattr(wandb_runs, "open_run", refuse)
    (tmp_path / "job/wandb/run-20260103_000000-c3").mkdir(parents=True)
    wandb_study.upload(tmp_path, {tmp_path / "job": {"logger": {"wandb": OFFLINE}}}, {}, pd.DataFrame())
    assert sum("has no scores of the study" in record.getMessage() for record in caplog.records) == 2


def test_the_run_of_an_sae_keeps_the_name_of_its_variant(tmp_path, monkeypatch):
    opened, job = [], tmp_path / "job"
    monkeypatch.setattr(wandb_runs, "open_run", lambda chosen, folder, **about: opened.append(about))
    (job / "wandb/run-20260103_000000-c3").mkdir(parents=True)
    config = {"name": "x", "model": {"name": "lm"}, "site": {"name": "resid"}, "layer": 9, "sparsity": 32, "seed": 0,
              "arch": {"name": "topk", "coefficient": None}, "logger": {"wandb": OFFLINE}}
    wandb_study.upload(tmp_path, {job: config}, {}, pd.DataFrame(), {job: "width=512"})
    assert (opened[0]["id"], opened[0]["group"], opened[0]["config"]["variant"]) == ("c3", "x width=512", "width=512")
