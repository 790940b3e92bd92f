"""A model of conf/model on this machine as explainer and judge: batches, probabilities, greedy text, special tokens."""
from copy import deepcopy

import pytest
import torch
from judged import latent, settings

from saesweep.lm import models
from saesweep.study.judge.choice import probabilities
from saesweep.study.judge.compose import conf_model
from saesweep.study.judge.judge import judge
from saesweep.study.judge.local import LocalModel, batches
from saesweep.study.judge.messages import Failure, Request
from saesweep.study.judge.tasks import YES_NO

pytestmark = pytest.mark.slow

CHOICE = Request("Say yes or no.", "a", 3, YES_NO)


@pytest.fixture(scope="module")
def model():
    found = deepcopy(conf_model("tiny"))
    found["source"]["random"]["max_position_embeddings"] = 512
    return found


@pytest.fixture(scope="module")
def lm(model):
    return models.load(model)


@pytest.fixture
def local(model, lm):
    return LocalModel(settings("local", model="tiny", batch=120), model, lm)


def ids(text):
    return [1, *(byte + 3 for byte in text.encode())]


def test_the_probability_of_a_choice_is_that_of_the_next_token(local, lm):
    ((number, answer),) = local.complete([CHOICE])
    logits = lm.module(torch.tensor([ids("Say yes or no.\n\na\n")])).logits[0, -1].float().log_softmax(-1)
    expected = float(logits[[ord("y") + 3, ord("Y") + 3]].logsumexp(0))
    assert number == 0 and answer.logprobs["yes"] == pytest.approx(expected, abs=1e-4)
    assert answer.text == max(YES_NO, key=answer.logprobs.__getitem__)
    assert sum(probabilities(answer, YES_NO).values()) == pytest.approx(1)


def test_prompts_of_different_lengths_in_one_batch_have_the_answers_that_each_has_alone(local):
    requests = [CHOICE._replace(content="a" * (1 + 7 * number % 40)) for number in range(9)]
    together = dict(local.complete(requests))
    for number, request in enumerate(requests):
        ((_, alone),) = local.complete([request])
        assert together[number].logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_text_is_written_greedily(local, lm):
    ((_, answer),) = local.complete([Request("Go", "on", 8)])
    prompt, written = ids("Go\n\non\n"), []
    for _ in range(8):
        written.append(int(lm.module(torch.tensor([[*prompt, *written]])).logits[0, -1].argmax()))
    expected = written[: next((n for n, one in enumerate(written) if one < 3), 8)]
    assert answer.text == lm.tokenizer.decode(expected) and answer.cut == (len(expected) == 8)


def test_a_prompt_that_is_too_long_is_a_failure(local):
    found = dict(local.complete([CHOICE._replace(content="a" * 600), CHOICE]))
    assert found[0] == Failure("a prompt longer than the model's context") and found[1].logprobs


def test_special_tokens_come_from_the_template_alone(model, lm):
    def encode(texts):
        return [[2 if character == "§" else ord(character) % 256 + 3 for character in text] for text in texts]

    tokenizer = type(lm.tokenizer)(encode, 1, frozenset(range(3)), 259, lm.tokenizer.decode, 512)
    local = LocalModel(settings("local", model="tiny", template="§{prompt}§"), model, type(lm)(lm.module, tokenizer))
    assert local._ids(Request("a", "§b", 1)) == [1, 2, *encode(["a\n\nb"])[0], 2]


def test_batches_are_of_similar_length_and_no_larger_than_asked():
    lengths = [10, 50, 12, 200, 11, 49]
    assert list(batches(range(6), lengths, 100)) == [[0, 4, 2], [5, 1], [3]]


def test_latents_are_judged_by_a_local_model_and_its_identity_is_part_of_the_key(local, model, tmp_path, monkeypatch):
    monkeypatch.setattr("saesweep.study.judge.judge.model_of", lambda node, name, seed: local)
    node = settings("local", model="tiny", controls=0, explain="rules", windows=2)
    one = latent(0, rule="x")
    found = judge([one], node, jobs={"a": tmp_path}, cache=tmp_path / "c.sqlite", seed=0).iloc[0]
    assert found["judge"] == "local:tiny" and found["explainer"] == "rules"
    assert 0 <= found["detection"] <= 1 or found["detection_failed"] > 0.5
    assert local.parameters(CHOICE)["model"]["source"] == model["source"]
