"""The rating page in Chromium: two raters by keyboard, offline and served."""
import json
from threading import Thread

import chromium
import pytest
from made_ratings import rateable
from test_page import CONTRAST

from saesweep.study import report
from saesweep.study.people.prepare import prepare, write_pages
from saesweep.study.people.server import RatingServer
from saesweep.study.people.settings import settings

pytestmark = [pytest.mark.slow, pytest.mark.browser]

RATE = settings({"features": 3, "common": 0.34, "repeated": 0.1})  # 8 items


@pytest.fixture(scope="module")
def window():
    with chromium.browser() as browser:
        yield browser


@pytest.fixture
def browser(window, tmp_path):
    """Afterwards: nothing in the console, and nobody was asked for anything but the server's own page."""
    window.read_logs()
    window.console, window.requests = [], []
    window.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    yield window
    window.read_logs()
    assert window.console == [] and all(url.startswith("http://127.0.0.1:") for url in window.requests)


@pytest.fixture
def offline(browser, tmp_path):
    """The page of ann, opened from its file."""
    session, pages = prepare(tmp_path / "study", rateable(), ["ann"], RATE)
    (file,) = write_pages(session, pages)
    browser.file, browser.study = file, session.study
    yield browser.open(file)
    assert browser.read_logs().requests == []


def press(browser, *keys):
    from selenium.webdriver import ActionChains, Keys

    ActionChains(browser.driver).send_keys(*(getattr(Keys, key, key) for key in keys)).perform()


def text(browser, selector):
    return browser.one(selector).text


def stored(browser):
    return browser.run("return [...answers.values()].map(({answer}) => answer)")


def test_the_answers_of_an_offline_page_are_saved_as_a_file(offline, tmp_path):
    assert text(offline, "#place") == "Latent 1 of 8" and offline.run("return get('how').open"), "how to rate, at first"
    press(offline, "1", *"the word self", "ENTER")
    assert not offline.run("return get('how').open")
    press(offline, "2", "ENTER", "3", "ENTER")
    assert text(offline, "#place") == "Latent 4 of 8" and text(offline, "#status") == "Latent 3: no. 3 rated."
    press(offline, "s", *"not my language", "ENTER")
    for _ in range(4):
        press(offline, "3", "ENTER")
    assert text(offline, "#done-title") == "All rated. Thank you." and "send the file" in text(offline, "#done-words")
    offline.one("#save").click()
    file = tmp_path / f"ratings_ann_{offline.study}.json"
    offline.wait(file.is_file)
    content = json.loads(file.read_text())
    assert (content["study"], content["rater"]) == (offline.study, "ann")
    found = [(entry["answer"], entry["explanation"]) for entry in content["answers"]]
    assert found[:4] == [("yes", "the word self"), ("maybe", ""), ("no", ""), ("skip", "not my language")] and len(found) == 8
    assert all(entry["seconds"] >= 0 and entry["at"] > 1.6e12 for entry in content["answers"])


def test_yes_and_skip_need_a_line_and_nothing_is_an_answer_by_itself(offline):
    press(offline, "ENTER")
    assert text(offline, "#problem") == "Choose yes, maybe, no or skip."
    press(offline, "1", "ENTER")
    assert text(offline, "#problem") == "Write the meaning in one line." and text(offline, "#place") == "Latent 1 of 8"
    assert offline.run("return [document.activeElement.id, document.activeElement.ariaInvalid]") == ["explanation", "true"]
    press(offline, " ", "ENTER", "ESCAPE", "s", "ENTER")
    assert text(offline, "#problem") == "Write why you skip it." and stored(offline) == []
    press(offline, "ESCAPE", "2", "1", "2", "3", "u", "ENTER")
    assert text(offline, "#status") == "Latent 1: maybe. 1 rated." and stored(offline) == ["maybe"]
    assert offline.run("return [...answers.values()][0].explanation").strip() == "123u", "keys are typed in the field"


def test_undo_shows_the_last_latent_again_with_what_was_answered(offline):
    press(offline, "1", *"self", "ENTER", "3", "ENTER")
    press(offline, "u", "u")
    assert text(offline, "#place") == "Latent 1 of 8" and stored(offline) == [None, None]
    assert offline.run("return [choice(), line.value, get('undo').disabled]") == ["yes", "self", True]
    press(offline, "ENTER")
    assert text(offline, "#place") == "Latent 2 of 8" and offline.run("return choice()") == "no"
    press(offline, "2", "ENTER")
    assert stored(offline) == ["yes", "maybe"]


def test_a_page_that_is_opened_again_goes_on_where_it_was(offline):
    press(offline, "3", "ENTER", "3", "ENTER")
    offline.open(offline.file)
    assert text(offline, "#place") == "Latent 3 of 8" and offline.run("return get('progress').value") == 2
    press(offline, "u")
    offline.open(offline.file)
    assert text(offline, "#place") == "Latent 2 of 8" and offline.run("return choice()") == "no"


def test_where_the_browser_keeps_nothing_the_page_says_so(offline):
    offline.run("Storage.prototype.setItem = () => { throw new Error('full') }")
    press(offline, "3", "ENTER")
    assert "This browser keeps nothing: save your answers" in text(offline, "#status") and offline.run("return atRisk()")
    offline.one("#save").click()
    assert offline.run("return atRisk()") is False


def test_excerpts_are_text_with_a_mark_on_each_active_token(offline):
    for _ in range(8):
        lines = offline.run("return [...document.querySelectorAll('li')].map(e => e.textContent)")
        marks = offline.run("return [...document.querySelectorAll('mark')].map(e => [e.textContent, e.title])")
        assert len({words.strip() for words, _ in marks}) == 1 and {title for _, title in marks} > {"up to 100% of the largest"}
        assert all("class A" in line or "</script>" in line for line in lines)
        assert len(offline.all("mark.at")) == len(lines)
        press(offline, "3", "ENTER")
    assert not offline.all("main script, img")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_everything_has_a_name_and_contrast_and_fits(offline, scheme, width):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    offline.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    offline.open(offline.file, width=width, height=740, phone=width < 500)
    try:
        assert offline.run("return get('how').open")
        press(offline, "1", "ENTER")
        assert offline.run(CONTRAST) == []
        assert offline.run("return getComputedStyle(document.body).backgroundColor") == {
            "light": "rgb(255, 255, 255)", "dark": "rgb(22, 22, 22)"}[scheme]
        assert offline.run("return document.documentElement.scrollWidth") == width
        roles = {"radio", "textbox", "button", "DisclosureTriangle"}
        controls = offline.controls(lambda found: roles == {role for role, _ in found})
        assert all(name.strip() for _, name in controls)
    finally:
        offline.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_without_a_script_the_page_says_what_it_needs(offline):
    assert "Rating needs JavaScript" in text(offline.open(offline.file, script=False), "body")


# served


@pytest.fixture
def server(tmp_path):
    server = RatingServer(*prepare(tmp_path / "study", rateable(), ["ann", "bob"], RATE))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def visit(browser, url):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    browser.driver.get(url)


def lines(server, rater):
    file = server.session.answers / f"{rater}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def read_and_press(browser, rater):
    """A rule about the word that has the frame in all excerpts; bob is less sure of one of the words."""
    (word,) = set(browser.run("return [...document.querySelectorAll('mark.at')].map(e => e.textContent.trim())"))
    if rater == "bob" and word == "</script>":
        press(browser, "2", "ENTER")
    elif word < "j":
        press(browser, "1", *f"the word {word}", "ENTER")
    else:
        press(browser, "3", "ENTER")


def test_two_raters_who_read_the_page_agree_beyond_chance(browser, tmp_path, capsys):
    """On 12 latents: both say yes to 4 and no to 6, of the other 2 one says maybe."""
    session, pages = prepare(tmp_path / "study", rateable(), ["ann", "bob"], settings({"features": 6, "common": 1.0}))
    for rater, file in zip(session.raters, write_pages(session, pages), strict=True):
        browser.open(file)
        while text(browser, "#place") != "Rating":
            read_and_press(browser, rater)
        browser.one("#save").click()
    saved = [tmp_path / f"ratings_{rater}_{session.study}.json" for rater in session.raters]
    browser.wait(lambda: all(file.is_file() for file in saved))
    report.main([str(tmp_path), *map(str, saved)])
    assert "Pairs of raters, Cohen's quadratic kappa: ann and bob 0.91 [" in capsys.readouterr().out
    found = json.loads((tmp_path / "study/agreement.json").read_text())["agreement"]
    assert found["latents"] == 12 and found["krippendorff_ordinal"]["value"] > 0.7
    assert found["fleiss"]["kappa"]["value"] == pytest.approx(0.7073, abs=5e-5)
    assert found["cohen_quadratic"][0]["kappa"]["value"] == pytest.approx(1 / 1.1, abs=5e-5)


def test_two_raters_rate_through_the_server_and_their_ratings_are_read_back(browser, server, tmp_path, capsys):
    for rater, keys in (("ann", "1"), ("bob", "2")):
        visit(browser, server.urls()[rater])
        for number in range(8):
            assert text(browser, "#place") == f"Latent {number + 1} of 8"
            press(browser, keys, *"word", "ENTER")
        browser.wait(lambda rater=rater: len(lines(server, rater)) == 8)
        assert "answers are with the server" in text(browser, "#done-words")
    assert [{entry["answer"] for entry in lines(server, rater)} for rater in ("ann", "bob")] == [{"yes"}, {"maybe"}]
    report.main([str(tmp_path)])
    said = capsys.readouterr().out
    assert said.startswith("2 raters gave 16 answers about 10 latents of the SAEs; 0 of them are skips.")
    assert "jumprelu and topk are not told apart: 0 points" in said
    assert "Of 2 latents shown twice to a rater, 2 got the same answer: 100% [34, 100]." in said
    assert len((tmp_path / "study/ratings.csv").read_text().splitlines()) == 17
    visit(browser, server.urls()["bob"])
    assert text(browser, "#done-title") == "All rated. Thank you."


def test_an_answer_that_is_taken_back_while_it_is_sent_is_sent_again(browser, server):
    visit(browser, server.urls()["ann"])
    browser.run("window.really = fetch; fetch = (...all) => new Promise(go => setTimeout(go, 500)).then(() => really(...all))")
    press(browser, "3", "ENTER", "u")
    browser.wait(lambda: browser.run("return unsent.size") == 0)
    assert [entry["answer"] for entry in lines(server, "ann")] == ["no", None]


def test_an_answer_goes_to_the_server_even_if_it_was_given_while_the_server_was_away(browser, server):
    visit(browser, server.urls()["ann"])
    browser.run("window.really = fetch; fetch = () => Promise.reject(new Error('away'))")
    press(browser, "3", "ENTER")
    browser.wait(lambda: text(browser, "#problem").startswith("The server does not answer."))
    assert lines(server, "ann") == [] and browser.run("return atRisk()")
    browser.run("fetch = window.really")
    press(browser, "2", "ENTER", "u")
    browser.wait(lambda: len(lines(server, "ann")) == 3 or browser.run("return unsent.size") == 0)
    assert {entry["answer"] for entry in lines(server, "ann")} >= {"no", None} and text(browser, "#problem") == ""
    visit(browser, server.urls()["ann"])
    assert text(browser, "#place") == "Latent 2 of 8" and browser.run("return choice()") == "maybe"
