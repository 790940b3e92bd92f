"""A rating session's folder, its blind pages, and its server."""
import http.client
import json
import re
import stat
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from made_ratings import DOCUMENTS, choose, rateable
from standin.cli import ROOT

from saesweep.errors import UsageError
from saesweep.study import rate
from saesweep.study.people import answers, page
from saesweep.study.people.files import COLUMNS
from saesweep.study.people.payload import evenly, tenths
from saesweep.study.people.prepare import prepare, write_pages
from saesweep.study.people.server import RatingServer
from saesweep.study.people.session import open_session, read_key, read_session
from saesweep.study.people.settings import PER_SESSION, settings
from saesweep.study.pieces import Piece

RATE = settings({"features": 4, "common": 0.25, "repeated": 0.1})
ANSWER = {"answer": "yes", "explanation": "the word", "seconds": 3.5, "at": 1000}


@pytest.fixture
def study(tmp_path):
    return tmp_path / "outputs/made/study"


def test_the_key_tells_every_name_and_is_kept_with_the_study(study):
    session, pages = prepare(study, rateable(), ["ann", "bob"], RATE)
    key = {(given.rater, given.name): given for given in read_key(session)}
    for rater, content in pages.items():
        assert [(rater, item["item"]) for item in content["items"]] == [names for names in key if names[0] == rater]
    assert {given.arch for given in key.values()} == {"jumprelu", "topk"}
    assert stat.S_IMODE((session.folder / "secret").stat().st_mode) == 0o600
    assert read_session(study) == session and session.secret.hex() not in (session.folder / "key.csv").read_text()


def test_a_page_tells_nothing_of_the_sae(study):
    session, pages = prepare(study, rateable(), ["ann"], RATE)
    (file,) = write_pages(session, pages)
    text = file.read_text()
    for forbidden in ("jumprelu", "topk", "random", "resid", "control", "secret", "threshold", "frequency", "histogram", 
                      "density", "fires", session.secret.hex(), "outputs", "sparsity", "quickstart", "L0"):
        assert forbidden not in text, forbidden
    assert file.name == "rate_ann.html"
    for item in pages["ann"]["items"]:
        assert item.keys() == {"item", "top", "spread"}
        for window in item["top"] + item["spread"]:
            assert window.keys() == {"text", "tenths", "at"} and set(window["tenths"]) <= set(range(11))


def leaves(value, path=""):
    """(where, value) of all texts and numbers of JSON."""
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in leaves(one, f"{path}/{key}")]
    return [leaf for one in value for leaf in leaves(one, path)] if isinstance(value, list) else [(path, value)]


@pytest.mark.parametrize("answers", [None, []])
def test_all_that_a_page_holds_is_text_of_documents_tenths_places_and_names_made_from_the_secret(study, answers):
    session, pages = prepare(study, rateable(), ["ann"], RATE)
    parts, empty = (re.split('(?<=id="data">)|(?=</script>)', page.html(content, answers), maxsplit=2)
                    for content in (pages["ann"], {}))
    assert (parts[0], parts[2]) == (empty[0], empty[2]), "the rest of the page is the same for every study"
    assert "<!--" not in empty[0] and "<title>Rating</title>" in empty[0]
    found: dict[str, set] = {}
    for where, value in leaves(json.loads(parts[1])):
        found.setdefault(where, set()).add(value)
    assert found.pop("/study") == {session.study} and found.pop("/rater") == {"ann"}
    assert found.pop("/items/item") == {given.name for given in read_key(session)}
    assert re.fullmatch("[0-9a-f]{12}", session.study) and re.fullmatch("[0-9a-f]{12}", pages["ann"]["items"][0]["item"])
    words = set("".join(DOCUMENTS)) | set("⏎→\\x")
    for group in ("top", "spread"):
        assert set("".join(found.pop(f"/items/{group}/text"))) <= words
        assert found.pop(f"/items/{group}/tenths") <= set(range(11)) and found.pop(f"/items/{group}/at") <= set(range(32))
    assert found == {}


def test_the_place_of_a_latent_says_nothing_without_the_secret(tmp_path):
    orders = []
    for name in ("a", "b", "c"):
        session, _ = prepare(tmp_path / name / "study", rateable(), ["ann"], RATE)
        orders.append([given.item for given in read_key(session)])
    assert len({str(order) for order in orders}) > 1
    assert len({frozenset(item._replace(repeated=False) for item in order) for order in orders}) == 1


def test_the_examples_of_all_strengths_go_from_strong_to_weak(study):
    mixed = replace(rateable(), choose=lambda of, latent: {name: ps[::-1] for name, ps in choose(of, latent).items()})
    _, pages = prepare(study, mixed, ["ann"], RATE)
    for item in pages["ann"]["items"]:
        at = [window["tenths"][window["at"]] for window in item["spread"]]
        assert at == sorted(at, reverse=True) and len(at) > 3


def test_two_latents_that_differ_in_scale_and_threshold_look_the_same(study):
    """The first latents of both SAEs are active on the same tokens, one a thousand times as strongly as the other."""
    _, pages = prepare(study, rateable(), ["ann"], settings({"features": 1, "common": 1.0, "control": 0, "repeated": 0}))
    a, b = pages["ann"]["items"]
    assert a["item"] != b["item"] and (a["top"], a["spread"]) == (b["top"], b["spread"])


def test_activations_are_shown_as_tenths_of_the_largest_rounded_up():
    shares = {0: 0, 1e-4: 1, 0.1: 1, 0.1001: 2, 0.95: 10, 1: 10}
    assert {share: tenths(Piece("a", share)) for share in shares} == shares
    assert evenly(range(50), 20)[:4] == [0, 3, 5, 8] and evenly(range(50), 20)[-1] == 49 and evenly([1, 2], 20) == [1, 2]


def test_a_page_forbids_the_network_and_holds_no_markup_of_the_text(study):
    _, pages = prepare(study, rateable(), ["ann"], RATE)
    text = page.html(pages["ann"])
    assert "default-src 'none'" in text and "connect-src 'none'" in text and "unsafe-eval" not in text
    assert not re.search(r"https?://|<link|\bsrc=|url\(", text)
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in data and "</script>" in json.dumps(json.loads(data)), "the made text holds </script>"
    assert "connect-src 'self'" in page.html(pages["ann"], [])


def test_a_rater_may_come_later_and_nobody_elses_latents_change(study):
    first, _ = prepare(study, rateable(), ["ann"], RATE)
    before = read_key(first)
    second, pages = prepare(study, rateable(), ["bob"], RATE)
    assert second.raters == ("ann", "bob") and second.study == first.study and set(pages) == {"bob"}
    assert [given for given in read_key(second) if given.rater == "ann"] == before


def test_other_settings_are_refused_once_raters_have_their_latents(study):
    prepare(study, rateable(), ["ann"], RATE)
    with pytest.raises(UsageError, match=r"rate.features=5: .* was begun with other settings"):
        open_session(study, ["ann"], settings({"common": 0.25, "repeated": 0.1}))


@pytest.mark.parametrize("name", ["../x", "", "a b", "<b>", "-x"])
def test_a_name_that_is_no_part_of_a_files_name_is_refused(study, name):
    with pytest.raises(UsageError, match="--raters"):
        open_session(study, [name], RATE)


def test_without_a_session_or_its_secret_it_is_said_how_to_begin(study):
    with pytest.raises(UsageError, match=r"begin with saesweep rate .*made --raters"):
        read_session(study)
    session, _ = prepare(study, rateable(), ["ann"], RATE)
    (session.folder / "secret").unlink()
    with pytest.raises(UsageError, match="without it no rating can be told to its latent"):
        read_session(study)


def test_static_pages_are_announced_with_what_they_can_show(tmp_path):
    said = []
    rate.run(tmp_path, rateable(), ["ann", "bob"], RATE, static=True, say=said.append)
    assert said[0] == "Each of 2 raters gets 10 items:" and "a true difference of" in said[3]
    assert said[4].startswith(str(tmp_path / "study/rate/rate_ann.html: send it")) and len(said) == 6
    typed = rate.arguments(["outputs/default", "--raters", "r1,r2"])
    assert (typed.sweep, typed.raters, typed.static, typed.port) == (Path("outputs/default"), ["r1", "r2"], False, 0)


# the server


@contextmanager
def served(study, raters=("ann", "bob")):
    server = RatingServer(*prepare(study, rateable(), raters, RATE))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(server, method="GET", path=None, body=None, **headers):
    """(status, text)"""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    path = f"/{server.tokens['ann']}/" if path is None else path
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, given)
    reply = connection.getresponse()
    found = reply.status, reply.read().decode()
    connection.close()
    return found


def names(server, rater="ann"):
    return [item["item"] for item in server.payloads[rater]["items"]]


def test_each_answer_is_on_the_disk_when_the_server_replies(study, monkeypatch):
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    with served(study) as server:
        item, other = names(server)[:2]
        assert ask(server, "POST", body=ANSWER | {"item": item}) == (204, "")
        assert ask(server, "POST", body=ANSWER | {"item": other, "answer": "no", "explanation": ""}) == (204, "")
        lines = (server.session.answers / "ann.jsonl").read_text().splitlines()
    assert [json.loads(line)["answer"] for line in lines] == ["yes", "no"] and len(synced) == 2
    assert json.loads(lines[0]) == {"study": server.session.study, "rater": "ann", "item": item, **ANSWER}


def test_a_page_that_is_opened_again_has_the_answers_so_far_even_after_a_line_was_cut_off(study):
    with served(study) as server:
        item, other = names(server)[:2]
        ask(server, "POST", body=ANSWER | {"item": item})
    file = server.session.answers / "ann.jsonl"
    file.write_bytes(file.read_bytes() + b'{"study": "cut o')
    with served(study) as server:
        ask(server, "POST", body=ANSWER | {"item": other})
        ask(server, "POST", body=ANSWER | {"item": item, "answer": None, "before": "yes", "at": 2000})
        data = json.loads(ask(server)[1].partition('id="data">')[2].partition("</script>")[0])
    assert {entry["item"]: entry["answer"] for entry in data["answers"]} == {item: None, other: "yes"}


def test_wrong_tokens_other_hosts_and_other_pages_are_refused(study):
    with served(study) as server:
        token, port = server.tokens["ann"], server.server_port
        assert ask(server)[0] == 200 and ask(server, Host=f"localhost:{port}")[0] == 200
        assert {ask(server, path=path)[0] for path in ("/", "/x/", f"/{token}", f"/{token}/x", "/%C3%A9/")} == {404}
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}"):
            assert ask(server, Host=host)[0] == 403, host
        body = ANSWER | {"item": names(server)[0]}
        assert ask(server, "POST", body=body, Origin="http://evil.example")[0] == 403
        assert ask(server, "POST", body=body, Origin="null")[0] == 403
        assert ask(server, "POST", path="/wrong/", body=body)[0] == 404
        assert not (server.session.answers / "ann.jsonl").exists()
        assert server.server_address[0] == "127.0.0.1" and server.tokens["ann"] != server.tokens["bob"]


def test_what_is_no_answer_is_refused_and_not_written(study):
    with served(study) as server:
        item = names(server)[0]
        bobs = next(name for name in names(server, "bob") if name not in names(server))
        for body in ({"item": bobs}, {"item": item, "answer": "perhaps"}, {"item": item, "explanation": " "},
                     {"item": item, "explanation": "x" * 301}, {"item": item, "seconds": -1}, {"item": item, "at": True}):
            assert ask(server, "POST", body=ANSWER | body)[0] == 400, body
        assert ask(server, "POST", body=b"no JSON")[0] == 400 and ask(server, "POST", body=b"[1]")[0] == 400
        assert ask(server, "POST", body=b"x" * 70000)[0] == 413
        assert ask(server, "POST", body=ANSWER | {"item": item}, Content_Type="text/plain")[0] == 415
        assert not (server.session.answers / "ann.jsonl").exists()


def test_an_answer_keeps_only_its_known_fields():
    assert answers.checked(ANSWER | {"item": "a", "path": "/etc"}, {"a"}) == ANSWER | {"item": "a"}


def test_the_page_of_the_docs_names_every_key_of_the_draw_and_every_column():
    text = (ROOT / "docs/rating.md").read_text()
    assert all(f"`{key}`" in text for key in (*PER_SESSION, "top", "spread", "delta") if key != "seed")
    assert f"{', '.join(COLUMNS)};" in text
