"""The client of a server with OpenAI's chat completions, against a stand-in that fails in every way that one does."""
import traceback

import pytest
from judge_server import Server
from judged import latent, settings

from saesweep.errors import UsageError
from saesweep.study.judge.asking import Asker
from saesweep.study.judge.cache import ResponseCache, request_key
from saesweep.study.judge.detection import DETECTION
from saesweep.study.judge.messages import Answer, Failure, Request
from saesweep.study.judge.openai_client import RateLimit

pytest.importorskip("openai")
CANARY = "sk-canary0123456789abcdefCANARY"
YES = "the token wd"
SENT = {"model", "messages", "max_tokens", "temperature", "seed", "logprobs", "top_logprobs"}


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)  # seconds; else half a second


def client(server, **more):
    from saesweep.study.judge.openai_client import OpenAIModel

    node = settings(**{"model": "standin", "base_url": server.url, "retries": 1, "timeout": 10, "give_up_after": 100} | more)
    return OpenAIModel(node, "standin", seed=0)


def requests(count=1):
    return [question.request for question in DETECTION.ask(latent(3), YES, 10, 0)[:count]]


def answers(server, count=1, **more):
    found = dict(client(server, **more).complete(requests(count)))
    return [found[number] for number in range(count)]


def test_a_request_has_the_parameters_that_make_it_repeatable_and_the_key_in_its_header_alone():
    with Server() as server:
        (answer,) = answers(server, body={"top_k": 1})
    (body,), (headers,) = server.bodies, server.headers
    assert set(body) == SENT | {"top_k"} and (body["temperature"], body["seed"], body["max_tokens"]) == (0, 0, 3)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert headers["authorization"] == f"Bearer {CANARY}" and CANARY not in str(body)
    assert answer == Answer("yes", {"yes": pytest.approx(-0.01), "No": pytest.approx(-2.30, abs=0.01)})


def test_free_text_is_asked_for_without_logprobs():
    with Server() as server:
        list(client(server).complete([Request("", "Description:", 30)]))
    assert set(server.bodies[0]) == SENT - {"logprobs", "top_logprobs"} and server.bodies[0]["max_tokens"] == 30


@pytest.mark.parametrize("fault, reason", [
    ("no choices", "an answer without choices"), ("null choices", "an answer without choices"),
    ("no text", "an answer without text"),
    ("other object", "an answer without choices"), ("list", "an answer that is no chat completion"),
    ("choice of text", "an answer that is no chat completion"), ("page", "an answer that is no chat completion"),
    ("400", "BadRequestError 400"), ("broken", "JSONDecodeError"),
])
def test_an_answer_that_is_none_is_a_failure(fault, reason):
    with Server() as server:
        server.faults = [fault]
        assert answers(server) == [Failure(reason)]
    assert len(server.bodies) == 1


@pytest.mark.parametrize("fault", ["429", "500", "503", "lost", "late"])
def test_a_passing_fault_is_tried_again(fault):
    with Server() as server:
        server.faults = [fault]
        assert answers(server, timeout=0.4 if fault == "late" else 10)[0].text == "yes"
    assert len(server.bodies) == 2


@pytest.mark.slow
@pytest.mark.parametrize("fault, reason", [
    ("429", "RateLimitError 429"), ("500", "InternalServerError 500"), ("lost", "APIConnectionError"),
    ("late", "APITimeoutError"),
])
def test_a_lasting_fault_is_a_failure_that_repeats_nothing_of_the_server(fault, reason):
    with Server() as server:
        server.faults = [fault] * 2
        assert answers(server, timeout=0.4 if fault == "late" else 10) == [Failure(reason)]


def test_a_server_that_is_not_there_is_a_failure():
    with Server() as server:
        pass
    assert answers(server, retries=0) == [Failure("APIConnectionError")]


def test_an_answer_that_is_cut_off_says_so():
    with Server() as server:
        server.faults = ["cut"]
        assert answers(server) == [Answer("I think that the answ", None, cut=True)]


def test_a_server_without_logprobs_is_read_by_its_word():
    with Server(logprobs=False) as server:
        assert answers(server) == [Answer("yes")]


@pytest.mark.parametrize("refused, lost", [
    (["logprobs"], "P(yes) is 0 or 1"), (["seed"], "answers may differ"),
    (["temperature", "seed", "logprobs"], "drawn at random"), (["max_tokens"], "max_completion_tokens"),
])
def test_a_parameter_that_the_server_refuses_is_left_out_and_said_once(refused, lost, caplog):
    with Server(refuses=refused) as server:
        assert [one.text for one in answers(server, 3, concurrency=1)] == ["yes"] * 3
    assert len(server.bodies) == 3 + len(refused)
    last = set(server.bodies[-1])
    assert not set(refused) & last and ("max_completion_tokens" in last) == (refused == ["max_tokens"])
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("saesweep")]
    assert "\n".join(ours).count(lost) == 1 and len(ours) == len(refused)


@pytest.mark.parametrize("status, key", [("401", "explainer.key_variable=OPENAI_API_KEY"), ("403", "explainer.key_variable"),
                                         ("404", "explainer.model=standin")])
def test_what_no_request_is_spared_ends_the_run_without_showing_the_key(status, key):
    with Server() as server, pytest.raises(UsageError, match=key) as error:
        server.faults = [status] * 30
        answers(server, 30, concurrency=2)
    assert CANARY not in "".join(traceback.format_exception(error.value))
    assert len(server.bodies) < 10


def test_no_more_requests_run_at_a_time_than_asked_for():
    with Server(delay=0.02) as server:
        answers(server, 12, concurrency=3)
    assert server.most_at_a_time == 3


def test_the_rate_limit_spaces_requests_evenly():
    now = [0.0]
    rate = RateLimit(120, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    times = []
    for _ in range(4):
        rate.wait()
        times.append(now[0])
    assert times == [0, 0.5, 1, 1.5]
    now[0] = 10.0  # what was not used is not saved up
    rate.wait()
    rate.wait()
    assert now[0] == 10.5
    RateLimit(None, clock=lambda: 0.0, sleep=lambda seconds: pytest.fail("waits")).wait()


def test_requests_leave_no_lines_in_the_log_of_a_job(caplog):
    caplog.set_level("INFO")
    with Server() as server:
        answers(server, 3)
    assert [record.getMessage() for record in caplog.records] == []


def test_text_for_this_machine_takes_no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Server() as server:
        assert answers(server)[0].text == "yes"


def test_text_leaves_this_machine_only_if_that_is_said_and_with_a_key(monkeypatch):
    from saesweep.study.judge.openai_client import OpenAIModel

    node = settings(model="m", base_url="https://judge.example/v1")
    with pytest.raises(UsageError, match=r"send_text=false: held-out text would be sent to judge\.example"):
        OpenAIModel(node, "m", 0)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match=r"OPENAI_API_KEY: set this environment variable to your key for judge\.example"):
        OpenAIModel(node | {"send_text": True}, "m", 0)


def asker(server, file, **more):
    node = {"give_up_after": 100} | more
    return Asker(client(server, **more), ResponseCache(file), node["give_up_after"], lambda done: None)


def test_nothing_is_asked_twice(tmp_path):
    wanted = requests(5)
    with Server() as server:
        first = asker(server, tmp_path / "responses.sqlite").ask([*wanted, wanted[0]])
        again = asker(server, tmp_path / "responses.sqlite").ask(wanted[::-1])
        assert first[:5] == again[::-1] and first[5] == first[0] and set(server.asked.values()) == {1}
        asker(server, tmp_path / "responses.sqlite").ask([wanted[0]._replace(content="another question")])
    assert len(server.bodies) == 6


def test_a_failure_is_asked_again_by_the_next_run_and_an_unread_answer_is_not(tmp_path):
    with Server() as server:
        server.faults = ["no text", "unread"]
        first = asker(server, tmp_path / "a.sqlite", concurrency=1).ask(requests(2))
        second = asker(server, tmp_path / "a.sqlite", concurrency=1).ask(requests(2))
    assert sorted(type(one).__name__ for one in first) == ["Answer", "Failure"]
    assert len(server.bodies) == 3 and all(isinstance(one, Answer) for one in second)


@pytest.mark.slow
def test_many_failures_in_a_row_end_the_run_and_what_was_answered_is_kept(tmp_path):
    with Server() as server:
        server.faults = ["", "", "", *["no text"] * 50]
        with pytest.raises(UsageError, match=r"give_up_after=5: .* an answer without text; .* run the same command again"):
            asker(server, tmp_path / "a.sqlite", give_up_after=5, concurrency=1).ask(requests(30))
        assert len(server.bodies) <= 10
        server.faults = []
        before = len(server.bodies)
        assert all(isinstance(one, Answer) for one in asker(server, tmp_path / "a.sqlite").ask(requests(30)))
    assert len(server.bodies) == before + 27


def test_a_response_belongs_to_model_parameters_and_messages():
    one = Request("a", "b", 3)
    key = request_key({"model": "m", "seed": 0}, one)
    assert key == request_key({"seed": 0, "model": "m"}, one) and len(key) == 64
    others = [request_key({"model": "n", "seed": 0}, one), request_key({"model": "m", "seed": 1}, one),
              request_key({"model": "m", "seed": 0}, one._replace(content="c"))]
    assert len({key, *others}) == 4
