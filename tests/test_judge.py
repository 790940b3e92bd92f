"""Latents explained and judged as a whole: scores of judges that know and that do not, controls, files, resuming."""
import numpy as np
import pandas as pd
import pytest
from judge_server import Direct, Server
from judged import judged, latent, records, settings, some

from saesweep.errors import UsageError
from saesweep.study.judge import judge as whole
from saesweep.study.judge import settings as settings_of
from saesweep.study.judge.controls import controlled, shuffled
from saesweep.study.judge.judge import columns, judge

TASKS = ["detection", "fuzz", "simulate", "intruder_lm"]


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    """Requests go straight to the stand-in that was entered last, and need no package."""
    servers, enter = [], Server.__enter__
    monkeypatch.setattr(Server, "__enter__", lambda self: servers.append(self) or enter(self))
    monkeypatch.setattr(whole, "model_of", lambda node, name, seed: Direct(servers[-1], name))
    monkeypatch.setattr(settings_of, "_package", lambda: None)


def test_an_explainer_that_knows_the_rule_scores_near_one_and_its_controls_chance(tmp_path):
    with Server() as server:
        found = judged(server, tmp_path, some(), tasks=TASKS, controls=1.0)
    assert list(found.columns) == columns(TASKS) and found["latent"].tolist() == list(range(6))
    assert found["explanation"].tolist() == [f"the token w{word}" for word in "abcdef"]
    assert set(found["explainer"]) == {"openai:standin"} == set(found["judge"])
    for task in ("detection", "fuzz", "intruder_lm"):
        assert (found[task] == 1).all()
    assert (found["detection_same_token"] == 1).all() and (found["simulate"] > 0.8).all()
    for task, chance in (("detection", 0.5), ("fuzz", 0.5), ("simulate", 0)):
        assert (found[f"{task}_shuffled"] == chance).all() and (found[f"{task}_none"] == chance).all()
    assert not found.filter(like="_failed").to_numpy().any() and (found["judge_reason"] == "").all()


def test_an_explainer_that_knows_nothing_scores_chance(tmp_path):
    with Server(knows=False) as server:
        found = judged(server, tmp_path, some(), tasks=["detection", "fuzz", "simulate"])
    assert (found[["detection", "fuzz"]] == 0.5).all().all() and (found["simulate"] == 0).all()


def test_controls_are_asked_of_a_share_of_each_sae(tmp_path):
    latents = some(20) + some(5, control="random")
    with Server() as server:
        found = judged(server, tmp_path, latents, controls=0.1)
    assert found.groupby(found["control"].isna())["detection_none"].count().to_dict() == {False: 1, True: 2}
    assert found["detection"].notna().all() and set(found["control"].dropna()) == {"random"}


def test_the_latents_of_a_control_do_not_depend_on_their_order_and_grow_with_the_share():
    latents = some(20)
    ids = {share: {one.latent for one in controlled(latents[::-1], share, 0)} for share in (0.1, 0.5, 1.0)}
    assert ids[0.1] == {one.latent for one in controlled(latents, 0.1, 0)} and len(ids[0.1]) == 2
    assert ids[0.1] < ids[0.5] < ids[1.0]


def test_a_shuffled_explanation_is_another_one():
    latents, texts = some(4), {0: "x", 1: "x", 2: "y", 3: "x"}
    others = shuffled(latents, texts, 0)
    assert all(others[number] != texts[number] for number in texts)
    assert shuffled(latents, {0: "x", 1: "x"}, 0) == {}


def test_failed_and_unread_answers_are_missing_with_their_share_and_never_a_score(tmp_path):
    with Server() as server:
        server.faults = ["", *["unread", "no text", "cut"] * 3]
        found = judged(server, tmp_path, some(1), concurrency=1, controls=0).iloc[0]
    assert found["detection_failed"] == pytest.approx(9 / 30) and found["detection"] == 1
    missing = [row for row in records(tmp_path, "answers.jsonl") if row["said"] is None]
    assert len(missing) == 9


def test_a_latent_without_an_explanation_has_no_score_and_a_reason(tmp_path):
    with Server() as server:
        server.faults = ["no text"]
        found = judged(server, tmp_path, some(2), concurrency=1, tasks=["detection", "intruder_lm"], controls=0)
    assert found["explanation_failed"].tolist() == [1, 0] and found["judge_reason"].tolist() == ["no explanation", ""]
    assert np.isnan(found["detection"][0]) and found["detection"][1] == 1 and (found["intruder_lm"] == 1).all()


def test_a_latent_with_too_few_windows_has_no_score_and_a_reason(tmp_path):
    few = latent(0)
    few = few._replace(test=few.test | {"random": [], "same_token": []})
    with Server() as server:
        found = judged(server, tmp_path, [few]).iloc[0]
    assert np.isnan(found["detection"]) and found["judge_reason"] == "detection: too few windows"
    assert np.isnan(found["detection_failed"]) and len(server.bodies) == 1


def test_what_was_asked_and_answered_is_in_the_folder_of_the_sae(tmp_path):
    with Server() as server:
        judged(server, tmp_path, some(2) + some(2, control="pca"), controls=0.5)
    explained = records(tmp_path, "explanations.jsonl")
    assert [(row["control"], row["latent"]) for row in explained] == [(None, 0), (None, 1), ("pca", 0), ("pca", 1)]
    assert explained[1] == {"control": None, "latent": 1, "explainer": "openai:standin", "explanation": "the token wb"}
    answers = pd.DataFrame(records(tmp_path, "answers.jsonl"))
    assert list(answers.columns) == ["control", "latent", "task", "condition", "group", "truth", "said"]
    assert answers["condition"].value_counts().to_dict() == {"own": 120, "shuffled": 60, "none": 60}


def test_rules_are_judged_without_asking_for_explanations(tmp_path):
    with Server() as server:
        ruled = [one._replace(rule=f"the token w{word}") for one, word in zip(some(2), "ab", strict=True)]
        found = judged(server, tmp_path, [*ruled, latent(2)], explain="rules", controls=0)
    assert found["detection"].tolist()[:2] == [1, 1] and np.isnan(found["detection"][2]) and len(server.bodies) == 60
    assert set(found["explainer"]) == {"rules"} and set(found["judge"]) == {"openai:standin"}


def test_without_a_model_the_rules_are_the_explanations_and_nothing_is_asked(tmp_path):
    ruled = latent(0, rule="fires on `self`")
    found = judge([ruled], settings("rules"), jobs={}, cache=tmp_path / "none.sqlite", seed=0)
    assert found.to_dict("records") == [{"path": "a", "control": None, "latent": 0, "explainer": "rules",
                                         "explanation": "fires on `self`"}]
    bare = judge([ruled], settings("none"), jobs={}, cache=tmp_path / "none.sqlite", seed=0)
    assert list(bare) == ["path", "control", "latent"]
    assert not list(tmp_path.iterdir())


def test_the_judge_can_be_another_model(tmp_path):
    with Server() as server:
        found = judged(server, tmp_path, some(2), judge="other", controls=0)
    models = pd.Series([body["model"] for body in server.bodies])
    assert models.value_counts().to_dict() == {"other": 60, "standin": 2} and set(found["judge"]) == {"openai:other"}


def test_only_the_first_latents_of_each_sae_are_judged(tmp_path):
    with Server() as server:
        found = judged(server, tmp_path, some(9)[::-1] + some(9, "b"), latents=2)
    assert found[["path", "latent"]].to_numpy().tolist() == [["a", 8], ["a", 7], ["b", 0], ["b", 1]]


def test_a_rerun_asks_nothing_and_finds_the_same(tmp_path):
    with Server() as server:
        first = judged(server, tmp_path, some(), tasks=TASKS, controls=0.5)
        files = {file: file.read_bytes() for file in (tmp_path / "a/study").iterdir()}
        asked = len(server.bodies)
        pd.testing.assert_frame_equal(first, judged(server, tmp_path, some(), tasks=TASKS, controls=0.5))
    assert len(server.bodies) == asked and set(server.asked.values()) == {1}
    assert files == {file: file.read_bytes() for file in (tmp_path / "a/study").iterdir()}


def test_more_windows_ask_only_what_they_add(tmp_path):
    with Server() as server:
        judged(server, tmp_path, [latent(0, count=20)], windows=10, controls=0, tasks=["detection"])
        before = len(server.bodies)
        judged(server, tmp_path, [latent(0, count=20)], windows=20, controls=0, tasks=["detection"])
    assert before == 31 and len(server.bodies) <= 61 and set(server.asked.values()) == {1}


def test_too_many_requests_are_refused_before_the_first(tmp_path):
    with Server() as server, pytest.raises(UsageError, match=r"max_requests=100: 6 latents need up to 246 requests; lower"):
        judged(server, tmp_path, some(6), max_requests=100)
    assert not server.bodies
