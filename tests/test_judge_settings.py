"""The settings of conf/explainer, their checks, and the plan of what they cost."""
from pathlib import Path

import pytest
from judged import CONF, settings

from saesweep.config.study_schema import EXPLAINERS, TASKS
from saesweep.errors import UsageError
from saesweep.study.judge import all_tasks
from saesweep.study.judge import settings as module
from saesweep.study.judge.compose import conf_model, explainer_settings
from saesweep.study.judge.plan import plan, require_affordable
from saesweep.study.judge.settings import sends_text_to

SECRET = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def has_openai(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())


def openai(**more):
    return settings(**{"model": "m"} | more)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_file_passes_and_is_named_as_it_calls_itself(file):
    more = {"model": "smollm2_135m"} if file.stem in ("openai", "local") else {}
    assert settings(file.stem, **more)["name"] == file.stem and file.stem in EXPLAINERS


@pytest.mark.parametrize("more, message", [
    ({"model": None}, r"explainer.model=null: write explainer.model=..., the name of a model at https://api.openai.com/v1"),
    ({"concurency": 4}, r"explainer.concurency=4: there is no key explainer.concurency; did you mean concurrency\?"),
    ({"tasks": ["detecton"]}, r"explainer.tasks=\['detecton'\]: must be a list, such as \[detection\], of detection, fuzz"),
    ({"tasks": ["fuzz", "fuzz"]}, "must be a list"), ({"tasks": "fuzz"}, "must be a list"),
    ({"controls": 1.5}, r"explainer.controls=1.5: must be at least 0 and at most 1"),
    ({"windows": 0}, "explainer.windows=0: must be at least 1"), ({"windows": 2.5}, "must be a whole number"),
    ({"explain": "rule"}, "explainer.explain=rule: must be model or rules"),
    ({"base_url": "127.0.0.1:8000"}, r"must be an address such as http://127.0.0.1:8000/v1"),
    ({"base_url": f"https://me:{SECRET}@host/v1"}, "explainer.base_url: has a password in its address"),
    ({"api_key": SECRET}, "explainer.api_key: would be written down"), ({"body": {"token": SECRET}}, "explainer.body.token"),
    ({"key_variable": SECRET}, "explainer.key_variable: must be the name of an environment variable"),
    ({"price": {"input": 1}}, "explainer.price.output: is missing; add it to conf/explainer"),
])
def test_a_mistake_names_key_value_and_fix_and_shows_no_secret(more, message):
    with pytest.raises(UsageError, match=message) as error:
        openai(**more)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("node, message", [
    ({"name": "opnai"}, "explainer.name=opnai: must be none or rules or openai or local"),
    ({"name": "rules", "model": "m"}, "explainer.model=m: there is no key"), ({}, "explainer.name=null: must be text"),
])
def test_an_explainer_that_is_none_is_refused(node, message):
    with pytest.raises(UsageError, match=message):
        module.check_explainer(node)


def test_what_is_typed_takes_the_place_of_what_the_file_says():
    node, others = explainer_settings(["tokens=3", "explainer=openai", "explainer.model=a/b", "explainer.tasks=[fuzz,simulate]",
                                       "explainer.price.input=1", "explainer.base_url=http://127.0.0.1:8000/v1"])
    assert others == ["tokens=3"] and node["tasks"] == ["fuzz", "simulate"] and node["price"] == {"input": 1, "output": None}
    assert (node["name"], node["model"], node["base_url"]) == ("openai", "a/b", "http://127.0.0.1:8000/v1")
    assert explainer_settings(["features=1"]) == ({"name": "none"}, ["features=1"])


@pytest.mark.parametrize("words, message", [
    (["explainer=opnai"], r"explainer=opnai: there is no conf/explainer/opnai.yaml; did you mean openai\?"),
    (["explainer=x"], "choose one of none, rules, openai, local"),
    (["explainer.model=m"], "explainer.model=m: is a setting of an explainer; choose one with explainer=openai"),
    (["explainer=openai", "explainer.modl=m"], "there is no key explainer.modl; did you mean model"),
    (["explainer=openai", "explainer.model=${x}"], r"explainer.model: .*; a setting is explainer.key=value"),
])
def test_a_mistake_on_the_command_line_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        explainer_settings(words)


def test_whole_numbers_may_be_written_as_floats():
    assert openai(max_requests=1e4)["max_requests"] == 10_000


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the package openai: pip install -e '\.\[study\]'"):
        openai()
    assert settings("none") and settings("local", model="tiny")


@pytest.mark.parametrize("url, sent", [
    ("http://127.0.0.1:8000/v1", None), ("http://localhost/v1", None), ("http://[::1]:1/v1", None),
    ("http://127.0.0.1.example/v1", "127.0.0.1.example"), ("http://0.0.0.0/v1", "0.0.0.0"), ("https://10.0.0.1/v1", "10.0.0.1"),
    ("https://localhost.example/v1", "localhost.example"),
])
def test_text_leaves_the_machine_unless_the_address_is_its_own(url, sent):
    assert sends_text_to(openai(base_url=url)) == sent


def test_the_tasks_of_the_settings_are_those_there_are():
    assert tuple(all_tasks.TASKS) == TASKS


def test_a_local_model_is_a_file_of_conf_model():
    assert conf_model("tiny")["name"] == "tiny"
    with pytest.raises(UsageError, match=r"explainer.model=smolm2: there is no conf/model/smolm2.yaml; did you mean smollm2"):
        conf_model("smolm2")
    with pytest.raises(UsageError, match="is a known dictionary"):
        conf_model("synthetic")
    with pytest.raises(UsageError, match=r"template=Q: must have \{prompt\}"):
        settings("local", model="tiny", template="Q")


def test_the_plan_counts_requests_of_every_kind():
    assert plan([1], openai(controls=0)).requests == 1 + 30
    assert plan([10], openai()).requests == 10 * 31 + 60
    assert plan([100, 3], openai(latents=10))[:2] == (13, 13 * 31 + (1 + 1) * 60)
    everything = openai(tasks=["detection", "fuzz", "simulate", "intruder_lm"], windows=25, controls=1)
    assert plan([1], everything).requests == 1 + 75 + 50 + 50 + 25 + 2 * (75 + 50 + 50)
    assert plan([1], openai(explain="rules", controls=0)).requests == 30
    assert plan([7], settings("rules")).requests == 0 == plan([7], settings("none")).requests


def test_the_plan_says_tokens_money_and_where_the_text_goes():
    planned = plan([100], openai(price={"input": 0.5, "output": 2.0}))
    assert planned.money == pytest.approx((planned.prompt_tokens * 0.5 + planned.completion_tokens * 2) / 1e6)
    assert planned.completion_tokens == 50 * (30 + 30 * 3) + 5 * 60 * 3
    assert 100 < planned.prompt_tokens / planned.requests < 400
    assert planned.lines()[0].startswith("explainer: at most 1,850 requests for 50 latents, about ")
    assert planned.lines()[1] == "held-out text is sent to api.openai.com, which needs explainer.send_text=true"
    assert plan([100], openai(base_url="http://127.0.0.1/v1")).lines()[1:] == [] and plan([1], openai()).money is None


def test_too_many_requests_are_refused_with_what_to_lower():
    node = openai(max_requests=100)
    with pytest.raises(UsageError, match=r"max_requests=100: 6 latents need up to 246 requests; lower explainer.latents, .* or "
                                         r"write explainer.max_requests=246"):
        require_affordable(plan([6], node), node)
    require_affordable(plan([1], node), node)


def test_the_files_say_what_the_defaults_cost():
    said = Path(CONF / "openai.yaml").read_text()
    assert "about 37" in said and plan([50], openai()).requests == 37 * 50
    assert "cost 551" in said
