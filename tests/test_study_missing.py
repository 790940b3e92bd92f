"""A judge's failures and people's answers in the tables: missing values with their count, and equal weights."""
import math

import numpy as np
import pandas as pd
import pytest
from made_study import made, sae

from saesweep.storage import study_tables
from saesweep.study.comparison import catalogue
from saesweep.study.comparison.missing import asked, missing
from saesweep.study.comparison.summary import summary

NAN = math.nan


@pytest.fixture
def features():
    """Six latents, of which a judge was asked of the first five; the second was not explained, one has too few windows."""
    return pd.DataFrame({
        "rule": [0.5] * 6, "detection": [0.9, NAN, NAN, NAN, 0.7, NAN], "detection_failed": [0.0, NAN, 0.8, NAN, 0.2, NAN],
        "explanation_failed": [0.0, 1.0, 0.0, 0.0, 0.0, NAN], "yes": [1.0, 0.0, NAN, NAN, NAN, NAN]})


def test_failures_are_counted_and_are_neither_scores_nor_insufficient(features):
    assert asked(features, "detection").tolist() == [True] * 5 + [False]
    found = missing(features, "detection")
    assert found["failed"] == 2 and found["insufficient"] == pytest.approx(1 / 5)
    assert found["failed_answers"] == pytest.approx((0 + 0.8 + 0.2) / 3)
    assert missing(features, "rule") == {"insufficient": 0, "failed": 0, "failed_answers": None}
    assert "detection_failed" not in study_tables.score_names(features)


def test_a_score_of_the_first_latents_alone_has_equal_weights():
    weights = [1.0, 9.0, 9.0]
    study = made(sae(rule=[0.0, 1.0, 1.0], yes=[0.0, 1.0, NAN], weight=weights))
    values = {name: number.value for (name, mean), (number,) in study.numbers.items() if number and mean == "uniform"}
    assert values == pytest.approx({"rule": 18 / 19, "yes": 0.5})


def test_the_summary_counts_failures_and_has_no_row_for_them():
    study = made(sae(detection=[0.9, NAN, 0.7], detection_failed=[0.0, 1.0, 0.0], explanation_failed=[0.0] * 3))
    found = summary(study, pd.DataFrame({"path": [], "control": []}))
    assert found["score"].tolist() == ["detection"] and found["failed"].tolist() == [1]


def test_every_score_of_a_judge_has_a_name_and_verdicts_on_three_scores_are_corrected():
    from saesweep.study.judge.all_tasks import TASKS
    from saesweep.study.judge.judge import columns

    assert set(catalogue.TASKS) == set(TASKS) and catalogue.PRIMARY == ("rule", "coverage", "yes")
    names = study_tables.score_names(pd.DataFrame(columns=columns(list(TASKS))))
    mine = [name for name in names if name not in ("path", "control", "latent")]
    assert mine and all(catalogue.score(name).words != name.replace("_", " ") for name in mine)
    better = {name: catalogue.score(name).better for name in mine}
    controls = {name for name in mine if name.endswith(("_shuffled", "_none"))}
    assert {name for name, sign in better.items() if not sign} == controls


def test_ratings_join_the_tables_of_a_finished_study(tmp_path):
    from saesweep.study import comparing
    from saesweep.study.people.files import COLUMNS, ratings_csv
    from saesweep.study.people.read import Rating

    rows = [Rating("r", str(n), "a", "", "topk", n, answer, "", 1.0, False, False) for n, answer in enumerate(["yes", "no"])]
    (tmp_path / "ratings.csv").write_text(ratings_csv(rows))
    assert COLUMNS[2] == "path" and comparing.rated(tmp_path) == {("a", "", 0): 1.0, ("a", "", 1): 0.0}
    scores = pd.DataFrame({"path": ["a"] * 3, "control": [None] * 3, "latent": [0, 1, 2]}).astype({"control": object})
    found = comparing.with_ratings(scores, comparing.rated(tmp_path))
    assert found["yes"].tolist()[:2] == [1, 0] and np.isnan(found["yes"][2])
    assert "yes" not in comparing.with_ratings(found, {})
    assert comparing.again(tmp_path) is None
