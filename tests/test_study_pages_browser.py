"""The pages of a study in Chromium: find, sort and open latents, by keyboard too; no request, no error."""
import chromium
import fake_sweep
import made_pages
import pytest
from made_pages import tables

from saesweep.study import pages

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LATENTS = "features/topk/16/index.html"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    study = made_pages.made()
    made = tables(tmp_path_factory.mktemp("sweep") / "study", study)
    pages.write(study.saes, study.report, study.summary, made, command="saesweep study outputs/x")
    return made


@pytest.fixture(scope="module")
def window():
    with chromium.browser() as browser:
        yield browser
        browser.read_logs()
        assert browser.console == [] and browser.requests == []


def scored(folder) -> int:
    """How many latents have a page."""
    return len([file for file in (folder / LATENTS).parent.glob("*.html") if file.stem.isdigit()])


def shown(window) -> list[str]:
    return window.run("return [...document.querySelectorAll('#latents tbody tr')].filter(row => !row.hidden)"
                      ".map(row => row.querySelector('th a').textContent)")


def typed(window, field: str, words: str) -> None:
    box = window.one(f"#{field}")
    box.clear()
    box.send_keys(words)


def test_latents_are_found_by_number_and_enter_opens_one(window, folder):
    window.open(folder / LATENTS)
    count = scored(folder)
    assert len(shown(window)) == count > 5 and window.one("#status").text == f"{count} of {count} latents"
    typed(window, "number", "3")
    assert shown(window) == ["3"] and window.one("#status").text == f"1 of {count} latents"
    typed(window, "number", "3\n")
    window.wait(lambda: window.driver.title == "Latent 3 of topk 16")


def test_a_latent_that_is_not_scored_is_said_to_be_so(window, folder):
    window.open(folder / LATENTS)
    typed(window, "number", "99")
    said = f"Latent 99 is not among the {scored(folder)} scored ones."
    assert shown(window) == [] and window.one("#status").text == said


def test_latents_are_found_by_the_words_of_their_rules_and_explanations(window, folder):
    window.open(folder / LATENTS)
    typed(window, "words", "FIRES self")
    assert "0" in shown(window) and len(shown(window)) < scored(folder)
    typed(window, "words", "the word self")
    assert shown(window) == ["0"]
    typed(window, "words", "nothing like it")
    assert shown(window) == []


def column(window, key: str) -> tuple[int, list[str]]:
    """Number and texts of a column."""
    at = window.run("return [...document.querySelectorAll('#latents thead th')].findIndex(head => head.dataset.key === "
                    "arguments[0])", key)
    return at, window.run("return [...document.querySelectorAll('#latents tbody tr')].map(row => "
                          "row.cells[arguments[0]].textContent)", at)


def test_a_column_sorts_down_then_up_by_keyboard(window, folder):
    window.open(folder / LATENTS)
    at, _ = column(window, "frequency")
    for direction, sign in (("descending", -1), ("ascending", 1)):
        window.all("#latents thead button")[at].send_keys("\n")
        values = [float(text) for text in column(window, "frequency")[1]]
        assert values == sorted(values, key=lambda value: sign * value) and len(values) == scored(folder)
        assert window.all("#latents thead th")[at].get_attribute("aria-sort") == direction


def test_missing_numbers_stay_last_in_both_directions(window, folder):
    window.open(folder / LATENTS)
    at, _ = column(window, "rule_recall")
    for _ in range(2):
        window.all("#latents thead button")[at].click()
        texts = column(window, "rule_recall")[1]
        missing = texts.count("-")
        assert missing and texts[-missing:] == ["-"] * missing


def test_the_index_of_all_finds_a_latent_in_every_sae(window, folder):
    window.open(folder / "features/index.html")
    typed(window, "number", "2")
    assert shown(window) == ["2"] * 4
    typed(window, "words", "jumprelu 32\n")
    window.wait(lambda: window.driver.title == "Latent 2 of jumprelu 32")


def test_without_a_script_the_tables_are_there_and_the_form_is_not(window, folder):
    window.open(folder / LATENTS, script=False)
    names = [name for role, name in window.controls(lambda found: len(found) >= 4) if role == "link"]
    assert {"0", "1", "Study", "All latents"} <= set(names)
    assert not [role for role, _ in window.controls() if role in ("textbox", "button")]
    window.open(folder / "features/topk/16/0.html", script=False)
    assert "fires on `self`" in window.one(".rule").text


def test_text_of_documents_never_runs(window, folder):
    for file in ("study.html", LATENTS, "features/topk/16/3.html"):
        title = window.open(folder / file).driver.title
        assert title != "run" and not window.all("main script, main img")


def test_a_mark_of_the_figures_leads_to_the_latents_of_its_sae(window, folder):
    window.open(folder / "study.html")
    links = window.all("figure svg a")
    assert links and links[0].get_attribute("aria-label").startswith(("topk at L0", "jumprelu at L0"))
    window.run("arguments[0].focus()", links[0])
    links[0].send_keys("\n")
    window.wait(lambda: window.driver.title.startswith("Latents of "))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("file", ["study.html", LATENTS, "features/topk/16/0.html"])
def test_no_page_is_wider_than_the_window(window, folder, file, width):
    window.open(folder / file, width=width, phone=width < 500)
    assert window.run("return document.documentElement.scrollWidth") <= width


def test_the_share_of_a_token_is_shown_under_the_pointer(window, folder):
    window.open(folder / "features/topk/16/0.html")
    mark = window.one("mark.s10")
    window.run("arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", mark)
    assert mark.get_attribute("title") == "up to 100% of the largest activation"


def test_the_page_of_the_sweep_links_to_the_latents_where_there_is_a_study(window, tmp_path):
    sweep = fake_sweep.Sweep()
    sweep.details[0] = sweep.details[0]._replace(latents="study/features/top k/16/index.html")
    window.open(fake_sweep.write(tmp_path, sweep))
    window.run("document.querySelector('#numbers [data-sae=\"0\"]').click()")
    link = [a for a in window.all(".links a") if a.text == "Latents"]
    assert len(link) == 1 and link[0].get_attribute("href").endswith("/study/features/top%20k/16/index.html")
    window.run("document.querySelector('#numbers [data-sae=\"1\"]').click()")
    assert "Folder" in window.one(".links").text and "Latents" not in window.one(".links").text
