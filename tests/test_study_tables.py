"""The tables of a study on disk, in pareto.csv, in a notebook and in W&B."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from made_study import around, made, sae

import saesweep
from saesweep.errors import UsageError
from saesweep.storage import files, study_tables, sweep_table
from saesweep.study.comparison import summary
from saesweep.study.comparison.report import report, write


@pytest.mark.filterwarnings("error")
def test_numbers_are_read_back_to_the_last_bit(tmp_path):
    numbers = 10 ** np.random.default_rng(0).uniform(-12, 12, 5000)
    pd.DataFrame({"arch": "topk", "score": numbers}).to_csv(tmp_path / "scores.csv", index=False)
    assert (study_tables.read(tmp_path / "scores.csv")["score"] == numbers).all()


def sweep_of(folder, *saes):
    """The files of finished SAEs that sweep_table reads."""
    for one in saes:
        job = folder / one["path"]
        (job / ".hydra").mkdir(parents=True)
        names = f"model: {{name: lm}}\nsite: {{name: resid}}\nlayer: 9\narch: {{name: {one['arch']}}}\n"
        (job / files.RESOLVED).write_text(names + f"sparsity: {one['sparsity']}\nseed: {one['seed']}\n")
        (job / files.NUMBERS).write_text(json.dumps({"l0": one["l0"], "fvu": one["fvu"]}))
    return folder


SAES = [sae("topk", 16.0, rule=around(0.5, 40)), sae("topk", 32.0, rule=around(0.6, 40), coverage=0.7),
        sae("topk", 32.0, rule=around(0.2, 40, seed=1), control="random")]
SHARES = pd.DataFrame([{"path": one["path"], "control": one["control"], "dead": 0.1, "rare": 0.2, "eligible": 0.7,
                       } for one in SAES])


def written(folder):
    """A sweep with a study."""
    sweep = sweep_of(folder / "one", *(one for one in SAES if one["control"] is None))
    study_tables.write_summary(sweep / "study", summary.summary(made(*SAES), SHARES))
    return sweep


def test_the_summary_has_means_intervals_baselines_and_shares():
    found = summary.summary(made(*SAES), SHARES).set_index(["path", "control", "score"])
    row = found.loc[("lm/resid.9/topk/32", None, "rule")]
    assert (row["baseline"], row["difference"]) == pytest.approx((0.2, 0.4)) and row["low"] < 0.6 < row["high"]
    assert row["difference_low"] < 0.4 < row["difference_high"] and row["uniform"] == pytest.approx(0.6)
    assert (row["dead"], row["rare"], row["eligible"], row["insufficient"], row["failed"]) == (0.1, 0.2, 0.7, 0, 0)
    assert found.loc[("lm/resid.9/topk/32", None, "coverage"), "uniform"] == 0.7
    assert math.isnan(found.loc[("lm/resid.9/topk/32", "random", "rule"), "baseline"]) and len(found) == 4


def test_tables_are_read_as_they_were_written(tmp_path):
    same = {"path": "a", "arch": "topk", "sparsity": 16, "seed": 0, "latent": 3, "weight": 1 / 3, "eligible": True}
    rows = pd.DataFrame([{**same, "control": control, "rule": 0.1 + 0.2, "reason": None} for control in (None, "random")])
    study_tables.write_scores(tmp_path, rows)
    again = study_tables.read(tmp_path / study_tables.SCORES)
    assert list(again.columns) == [*study_tables.FEATURE, "rule", "reason"] and study_tables.score_names(again) == ["rule"]
    assert again["control"].tolist() == [None, "random"] and again["rule"].tolist() == [0.1 + 0.2] * 2
    assert again["eligible"].tolist() == [True, True]


def test_a_score_of_some_features_joins_the_table_by_sae_and_latent():
    rows = pd.DataFrame({"path": ["a", "a", "a"], "control": [None, None, "random"], "latent": [3, 4, 3]})
    found = study_tables.with_score(rows, "yes", {("a", "", 4): 0.5, ("a", "random", 3): 0.0})["yes"].tolist()
    assert math.isnan(found[0]) and found[1:] == [0.5, 0.0]


def test_pareto_csv_has_the_main_scores_only_where_there_is_a_study(tmp_path):
    bare = sweep_of(tmp_path / "bare", *SAES[:2])
    assert list(sweep_table.table(bare).columns) == sweep_table.COLUMNS
    df = sweep_table.table(written(tmp_path))
    main = ["rule", "rule_by_frequency", "rule_control", "coverage"]
    assert list(df.columns) == [*sweep_table.COLUMNS, *main]
    assert df["rule"].tolist() == pytest.approx([0.5, 0.6]) and df["coverage"].isna().tolist() == [True, False]
    assert df["rule_control"].tolist()[1] == pytest.approx(0.2)
    assert df[sweep_table.COLUMNS].to_csv() == sweep_table.table(bare).to_csv()


def test_the_study_of_several_sweeps_lies_in_a_folder_of_its_own(tmp_path):
    one, other = sweep_of(tmp_path / "a", SAES[0]), sweep_of(tmp_path / "b", SAES[1])
    base = tmp_path / "both"
    rows = summary.summary(made(*SAES[:2]), SHARES)
    rows["path"] = rows["path"].map({SAES[0]["path"]: f"../a/{SAES[0]['path']}", SAES[1]["path"]: f"../b/{SAES[1]['path']}"})
    study_tables.write_summary(base / "study", rows)
    assert sweep_table.table(one, other, base=base)["rule"].tolist() == pytest.approx([0.5, 0.6])


def test_the_table_in_a_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    df = saesweep.study("one")
    assert df["folder"].tolist() == ["one/lm/resid.9/topk/16", "one/lm/resid.9/topk/32"]
    assert df["rule"].tolist() == pytest.approx([0.5, 0.6]) and {"arch", "sparsity", "l0", "fvu"} <= set(df.columns)


def test_the_table_of_several_sweeps_has_nan_where_there_was_no_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, bare = written(tmp_path), sweep_of(tmp_path / "bare", SAES[0])
    df = saesweep.study(one, bare, one)
    assert df.set_index("folder")["rule"].to_dict() == pytest.approx(
        {"one/lm/resid.9/topk/16": 0.5, "one/lm/resid.9/topk/32": 0.6, "bare/lm/resid.9/topk/16": math.nan}, nan_ok=True)
    assert set(df["arch"]) == {"topk (one)", "topk (bare)"}
    columns = re.findall(r"^ {12}(.*?) {2,}", saesweep.study.__call__.__doc__, re.MULTILINE)
    documented = [name for names in columns for name in names.split(", ")]
    assert {name for name in df.columns if name not in documented} == {"rule_by_frequency", "rule_control"}
    assert set(study_tables.MAIN) <= {*documented} and {"<score>_by_frequency", "<score>_control"} <= {*documented}


def test_study_is_a_package_too():
    from saesweep import study
    from saesweep.study.comparison import means

    assert study is saesweep.study and study.comparison.means is means and callable(study)


def test_a_sweep_without_a_study_says_how_to_make_one(tmp_path):
    sweep_of(tmp_path / "bare", SAES[0])
    with pytest.raises(UsageError, match=r"bare: no SAE was studied; run saesweep study .*bare$"):
        saesweep.study(tmp_path / "bare")
    sweep_of(tmp_path / "too", SAES[0])
    with pytest.raises(UsageError, match=r"too: no SAE was studied; run saesweep study .*bare .*too --out .*both$"):
        saesweep.study(tmp_path / "bare", tmp_path / "too")
    with pytest.raises(UsageError, match="is not a folder"):
        saesweep.study(tmp_path / "none")
    with pytest.raises(UsageError, match="needs the folder of a sweep"):
        saesweep.study()


def test_the_keys_for_wandb_are_those_of_one_sae(tmp_path):
    sweep = written(tmp_path)
    keys = study_tables.wandb_keys(sweep, "lm/resid.9/topk/16")
    assert keys == pytest.approx({"study/rule": 0.5, "study/rule_by_frequency": 0.5})
    assert study_tables.wandb_keys(sweep, "lm/resid.9/gated/16") == {}
    assert study_tables.wandb_keys(tmp_path, "x") == {}


def test_an_sae_that_is_trained_anew_has_no_row_of_the_old_one(tmp_path):
    sweep, (one, other, _) = written(tmp_path), SAES
    before = (sweep / "study/summary.csv").read_text().splitlines()
    study_tables.forget(sweep, one["path"])
    left = (sweep / "study/summary.csv").read_text().splitlines()
    assert left == [line for line in before if not line.startswith(f"{one['path']},")] and 1 < len(left) < len(before)
    df = sweep_table.table(sweep).set_index("path")
    assert math.isnan(df.at[one["path"], "rule"]) and df.at[other["path"], "rule"] == pytest.approx(0.6)


def test_study_json_is_plain_json_whatever_is_missing(tmp_path):
    saes = [*SAES, sae("gated", 16.0, rule=np.full(40, math.nan)), sae("relu", 16.0, rule=around(0.5, 3), probe_1=0.4)]
    file = write(tmp_path, report(made(*saes), delta=0.05, primary=["rule"]))
    found = json.loads(file.read_text())
    assert file.name == "study.json" and found["delta"] == 0.05 and len(found["places"]) == 1
