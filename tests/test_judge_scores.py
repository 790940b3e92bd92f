"""The tasks of a judge on made-up windows: what is asked, how answers are read, and what the scores are."""
import math
import random

import numpy as np
import pytest
from judge_server import Server
from judged import latent, window

from saesweep.study.examples import evenly as spread
from saesweep.study.judge.all_tasks import TASKS
from saesweep.study.judge.choice import probabilities
from saesweep.study.judge.messages import Answer, Failure
from saesweep.study.judge.metrics import auroc, balanced_accuracy, pearson, spearman
from saesweep.study.judge.simulation import read
from saesweep.study.judge.tasks import YES_NO, Question, scored
from saesweep.study.judge.windows import Window, enough

TRUTH = np.array([True, True, False, False])


def asked(task, explanation, one=None, count=10):
    return TASKS[task].ask(one or latent(3), explanation, count, 0)


def score(task, answer, explanation="the token wd", **more):
    """The scores where `answer` is what the judge says to a request."""
    questions = asked(task, explanation, **more)
    return scored(TASKS[task], questions, [TASKS[task].read(one, answer(one.request)) for one in questions])


def standin(**more):
    """As the stand-in server answers, without a server in between."""
    server = Server(**more)
    server.server_close()
    return lambda request: Answer(server.answer({"messages": request.messages}))


def test_a_simulation_is_scored_as_the_reference_scores_it():
    truth, predicted = np.array([0, 0, 1, 3, 5, 10]), np.array([0, 1, 0, 2, 6, 9])
    assert pearson(truth, predicted) == pytest.approx(0.9673, abs=5e-5)
    assert spearman(truth, predicted) == pytest.approx(0.8676, abs=5e-5)


def test_the_auroc_is_the_share_of_pairs_in_order_and_ties_are_half():
    assert auroc(TRUTH, np.array([0.9, 0.2, 0.2, 0.1])) == (1 + 0.5 + 1 + 1) / 4


def test_the_balanced_accuracy_does_not_reward_the_commoner_answer():
    truth = np.array([True] + [False] * 9)
    assert balanced_accuracy(truth, np.zeros(10)) == 0.5  # 0.9 of the answers are right
    assert balanced_accuracy(TRUTH, np.array([0.9, 0.4, 0.4, 0.1])) == 0.75


@pytest.mark.parametrize("constant", [0.0, 0.5, 1.0])
def test_a_prediction_that_is_always_the_same_scores_chance(constant):
    said = np.full(4, constant)
    assert auroc(TRUTH, said) == 0.5 and balanced_accuracy(TRUTH, said) == 0.5
    assert pearson(TRUTH.astype(float), said) == 0 and spearman(TRUTH.astype(float), said) == 0


def test_there_is_no_score_of_one_class_or_of_a_truth_that_does_not_vary():
    assert math.isnan(auroc(np.ones(3, bool), np.arange(3.0))) and math.isnan(balanced_accuracy(np.zeros(3, bool), np.ones(3)))
    assert math.isnan(pearson(np.zeros(3), np.arange(3.0)))


@pytest.mark.parametrize("task, expected", [
    ("detection", {"": 1, "_balanced": 1, "_same_token": 1, "_failed": 0}), ("fuzz", {"": 1, "_balanced": 1, "_failed": 0}),
    ("intruder_lm", {"": 1, "_failed": 0}),
])
def test_a_judge_that_knows_the_rule_scores_one(task, expected):
    assert score(task, standin()) == expected


def test_a_simulation_that_knows_the_rule_is_near_one_though_values_differ():
    scores = score("simulate", standin())
    assert 0.8 < scores[""] < 1 and scores["_spearman"] > 0.9 and scores["_failed"] == 0


@pytest.mark.parametrize("task", ["detection", "fuzz", "simulate"])
def test_a_wrong_explanation_and_none_score_chance(task):
    for explanation in ("the token we", None):
        assert score(task, standin(), explanation)[""] == (0 if task == "simulate" else 0.5)


def test_an_intruder_that_is_always_the_same_scores_chance():
    for number in "12345":
        assert score("intruder_lm", lambda _, number=number: Answer(number))[""] == 0.2


def test_answers_without_a_word_are_missing_and_no_score():
    turns = iter(range(1000))
    half = score("detection", lambda request: standin()(request) if next(turns) % 2 else Failure("lost"))
    assert half[""] == 1 and half["_failed"] == 0.5
    few = score("detection", lambda request: Answer("perhaps"))
    assert math.isnan(few[""]) and few["_failed"] == 1


def test_one_answer_less_than_half_is_no_score():
    questions = asked("detection", "x")
    said = [None] * 16 + [1.0] * (len(questions) - 16)
    assert len(questions) == 30 and math.isnan(scored(TASKS["detection"], questions, said)[""])


@pytest.mark.parametrize("text, expected", [
    ("Yes", 1), ("yes.", 1), (" No", 0), ("**no**", 0), ("<think>yes or no</think>\nNo", 0), ("", None), ("maybe yes", None),
])
def test_the_first_word_of_an_answer_counts(text, expected):
    found = probabilities(Answer(text), YES_NO)
    assert found == (expected if expected is None else {"yes": expected, "no": 1 - expected})


def test_probabilities_come_from_all_spellings_of_a_choice():
    logprobs = {"Yes": math.log(0.3), " yes": math.log(0.1), "No": math.log(0.1), "Maybe": math.log(0.4)}
    assert probabilities(Answer("Maybe", logprobs), YES_NO) == {"yes": pytest.approx(0.8), "no": pytest.approx(0.2)}
    assert probabilities(Answer("no", {"Hm": -0.1}), YES_NO) == {"yes": 0, "no": 1}


def test_the_wrong_marks_of_fuzzing_are_as_many_silent_tokens_of_the_same_window():
    shown = [Window(tuple("abcdefgh"), np.array([0, 1.0, 2, 0, 0, 0, 0, 0]))] * 4
    one = latent(3, test={"decile": shown})
    for question in asked("fuzz", "x", one=one, count=4):
        text = question.request.content.split("excerpt ")[1]
        assert text.count("<<") == 2
        assert (("<<b>><<c>>" in text) is question.truth) and (question.truth or ("<<b>>" not in text and "<<c>>" not in text))


def test_fuzzing_leaves_out_a_window_with_too_few_silent_tokens():
    full = Window(tuple("abc"), np.array([1.0, 1, 0]))
    assert asked("fuzz", "x", one=latent(3, test={"decile": [full] * 10})) == []


def test_a_simulation_is_read_only_if_every_token_has_one_value():
    question = Question("decile", [0.0, 1.0], asked("simulate", "x")[0].request)
    assert read(question, Answer("1: 0\n2: 7.5")) == [0, 7.5]
    for text in ("1: 0", "1: 0\n2: 11", "1: 0\n2: 3\n2: 4", "2: 0\n1: 3", "", "0 7"):
        assert read(question, Answer(text)) is None
    assert read(question, Failure("late")) is None


def test_groups_of_windows_are_not_padded():
    few = latent(3)
    few = few._replace(test=few.test | {"random": few.test["random"][:4]})
    scores = score("detection", standin(), one=few)
    assert math.isnan(scores[""]) and scores["_same_token"] == 1
    assert asked("simulate", "x", one=few) == [] == asked("intruder_lm", None, one=few)
    assert asked("detection", "x", one=few._replace(test=few.test | {"decile": few.test["decile"][:4]})) == []


def test_windows_are_spread_over_the_deciles():
    windows = [window("x", value, random.Random(0)) for value in range(100)]
    assert [int(one.values.max()) for one in spread(windows, 4)] == [0, 33, 66, 99]
    assert enough(windows[:4], 9) == [] and len(enough(windows[:5], 9)) == 5
