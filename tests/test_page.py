"""pareto.html: its text and tables, and every control in Chromium."""

import json
import math
import re
from html.parser import HTMLParser

import chromium
import fake_sweep
import numpy as np
import pandas as pd
import pytest
from fake_sweep import Sweep

from saesweep.report import page, style
from saesweep.report.page import tables, verdict_tables

HTML_NAME = "'</script><img src=x onerror=\"document.title='run'\">&$name"


class Parsed(HTMLParser):
    """Checks that tags are balanced; collects the rows of every table by its caption, and the levels of the headings."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.headings, self.caption, self.script = [], {}, [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "input", "br"}:
            self.open.append(tag)
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in {"td", "th"}:
            self.tables[self.caption][-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += data
        elif self.open and self.open[-1] == "script" and data.startswith("{"):
            self.script = data


def html(sweep, name="fake"):
    return page.html(sweep.df, sweep.comparison, sweep.details, name)


def data(sweep):
    return json.loads(Parsed(html(sweep)).script)


def gap(percent, low, high, verdict, a="jumprelu", b="topk"):
    values = {"value_a": 1 - percent / 100, "value_b": 1.0, "difference": percent / 100, "low": None, "high": None}
    values |= {"percent": percent, "percent_low": low, "percent_high": high, "verdict": verdict, "error": 0.0, "holm": False}
    return {"a": a, "b": b, "sparsity": 32, "l0": 32.0, "l0_a": 32.0, "l0_b": 32.0, "interpolated": None, **values,
            "slope_a": "own", "slope_b": "own", "varied": "3 seeds" if low is not None else None, "one_seed": False, "p": None}


def text(markup):
    return re.sub(r"<br>|&nbsp;|<small[^>]*>", " ", re.sub(r"<(?!br|small)[^>]*>", "", markup)).strip()


# Without a browser


@pytest.mark.parametrize("sweep", [Sweep(), Sweep(("mlp", "attn"), (5, 9), seeds=2, failed=3, unfinished=2)], ids=["9", "72"])
def test_tags_are_balanced_and_headings_descend_one_level_at_a_time(sweep):
    parsed = Parsed(html(sweep))
    assert parsed.open == [] and parsed.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(parsed.headings, parsed.headings[1:], strict=False))


def test_the_table_has_every_number_of_every_sae_without_a_script():
    sweep = Sweep(failed=1)
    header, *rows = Parsed(html(sweep)).tables["One row per SAE"]
    assert set(header) == set(sweep.df.columns) - {"unique_tokens"} and len(rows) == len(sweep.df) == 9
    for cells, row in zip(rows, sweep.df.to_dict("records"), strict=True):
        for key, cell in zip(header, cells, strict=True):
            expected = {True: "yes", False: "no"}[row[key]] if key == "on_front" else row[key]
            if isinstance(expected, str):
                assert cell == expected
            elif math.isnan(expected):
                assert cell == "-"
            else:
                assert float(cell) == pytest.approx(expected, rel=5e-4), key


def test_the_page_refers_to_no_address_but_the_runs_urls():
    found = set(re.findall(r"https?://[^\"\s]+|@import|<link|\bsrc=|\burl\(|fetch\(", html(Sweep())))
    assert found == {"https://wandb.ai/someone/fake/runs/abc123", "http://www.w3.org/2000/svg"}
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in html(Sweep())


def test_a_verdict_names_the_better_architecture_and_how_much_lower_it_is():
    assert text(verdict_tables._gap(gap(4.2, 3.6, 4.9, "better"), "fvu")) == "jumprelu 4.2% [3.6, 4.9]"
    reversed_ = text(verdict_tables._gap(gap(-25.0, -50.0, -1.0, "worse"), "fvu"))
    assert reversed_ == "topk 20.0% [1.0, 33.3]", "1 is 20% lower than 1.25"


def test_other_verdicts_are_shown_in_words():
    assert text(verdict_tables._gap(gap(0.4, -0.1, 0.9, "equal"), "fvu")) == "equal within 1% 0.4% [-0.1, 0.9]"
    assert text(verdict_tables._gap(gap(0.4, -0.1, 1.9, "open"), "fvu")) == "not significant 0.4% [-0.1, 1.9]"
    assert text(verdict_tables._gap(gap(-25.0, None, None, "none"), "fvu")) == "no interval -25.0%"
    assert 'class="undecided"' in verdict_tables._gap(gap(0.4, -0.1, 0.9, "equal"), "fvu")


def test_interpolation_is_noted_below_the_number():
    found = gap(4.2, 3.6, 4.9, "better") | {"interpolated": "topk", "l0_b": None}
    assert text(verdict_tables._gap(found, "fvu")) == "jumprelu 4.2% [3.6, 4.9] topk interpolated"


def means(*percents):
    verdict = lambda p: "better" if p > 1 else "worse" if p < -1 else "open"  # noqa: E731
    found = [gap(p, p - 1.0, p + 1.0, verdict(p)) | {"arch": arch, "mean": 0.1} for arch, p in percents]
    rows = [*found, {"arch": "topk", "mean": 0.1}]
    block = {"front": [], "curves": [], "reference": "topk", "mean_over_l0": [16.0, 64.2], "means": rows, "gaps": []}
    return block | {"on_other_text": []}


def comparison(*blocks):
    places = [{"model": "m", "site": "resid", "layer": i, "metrics": {"fvu": block}} for i, block in enumerate(blocks)]
    return {"places": places, "comparisons": 3}


def test_the_summary_of_one_hook_point_is_a_sentence_with_intervals():
    summary = text(verdict_tables.summary(comparison(means(("jumprelu", 0.2), ("gated", -5.3), ("new", 3.0)))))
    assert summary == (
        "Mean FVU over L0 16, 64.2, relative to topk 0.1000: jumprelu 0.1000, not significant: 0.2% [-0.8, 1.2]; "
        "gated 0.1000, 5.3% [4.3, 6.3] higher; new 0.1000, 3.0% [2.0, 4.0] lower.95% intervals over 3 seeds. "
        "3 comparisons; * marks those significant after Holm's correction."
    )


def test_the_summary_of_several_hook_points_counts_them():
    summary = text(verdict_tables.summary(comparison(*(means(("jumprelu", p), ("gated", -5.0)) for p in (0.2, 3.0, -0.5)))))
    expected = "Mean FVU at 3 hook points, relative to topk: jumprelu lower at 1, not significant at 2; gated higher at 3."
    assert summary.startswith(expected)


def test_hook_points_without_means_are_not_counted_and_different_texts_are_reported():
    without = means() | {"means": [], "reference": None, "mean_over_l0": [], "on_other_text": [["a", "b"], ["a", "c"]]}
    summary = text(verdict_tables.summary(comparison(means(("gated", -5.0)), means(("gated", -4.0)), without)))
    assert summary.startswith("Mean FVU at 2 hook points, relative to topk: gated higher at 2.")
    assert summary.endswith("Not compared, measured on different text: a and b; a and c.")


def test_the_page_of_a_sweep_with_one_seed_states_the_limitation():
    one = {"varied": "88 documents", "one_seed": True}
    block = means() | {"gaps": [gap(4.2, 3.6, 4.9, "better") | one]}
    summary = text(verdict_tables.summary(comparison(block)))
    assert "holds for these two SAEs on this text, and another seed may reverse it" in summary
    several = means() | {"gaps": [gap(4.2, 3.6, 4.9, "better")]}
    assert "for these two SAEs" not in text(verdict_tables.summary(comparison(several)))


def test_pairs_are_rows_and_l0_columns():
    sweep = Sweep(seeds=3)
    tables = Parsed(html(sweep)).tables
    header, *rows = tables["resid, layer 9: which has the lower FVU at each L0, and by what share of the other's"]
    assert header == ["pair", "16", "32", "64"]
    assert [row[0] for row in rows] == ["jumprelu or topk", "jumprelu or gated", "topk or gated"], "the better one is first"
    assert all(re.fullmatch(r"(jumprelu|topk).\d+\.\d%\*?\[.*\]", cell) for cell in rows[1][1:] + rows[2][1:])


def test_failed_and_unfinished_saes_are_listed_with_reason_or_tokens():
    sweep = Sweep(failed=1, unfinished=1)
    _, *rows = Parsed(html(sweep)).tables["SAEs without numbers"]
    assert sorted(row[1:] for row in rows) == [
        ["failed", "loss is nan after 20,480 tokens: lower arch.optimizer.lr"],
        ["unfinished", "120,320 tokens"],
    ]
    assert "9 SAEs: 7 finished, 1 failed, 1 unfinished" in html(sweep)


def test_a_finished_sae_whose_fvu_is_nan_is_listed():
    sweep = Sweep()
    sweep.df.loc[2, "fvu"] = math.nan
    _, row = Parsed(html(sweep)).tables["SAEs without numbers"]
    assert row[1:] == ["no number", "its l0 or fvu is not a number"]


def test_config_values_common_to_all_saes_are_written_once():
    config = data(Sweep())["config"]
    assert set(config["own"]) == {"arch.name", "sparsity", "arch.warm_start"} and len(config["same"]) == 79
    assert config["same"]["model.revision"] == "null" and config["own"]["arch.warm_start"][:2] == ["0.5", None]


def test_a_long_training_curve_is_thinned_to_60_rows_including_first_and_last():
    sweep = Sweep()
    tokens = data(sweep)["details"][0]["curve"]["tokens"]
    assert len(tokens) == 60 and (tokens[0], tokens[-1]) == (
        2048,
        pytest.approx(sweep.details[0].curve["tokens"].iloc[-1], rel=1e-4),
    )


def test_only_an_https_url_becomes_a_link_to_a_run():
    sweep = Sweep()
    sweep.details[0] = sweep.details[0]._replace(wandb="javascript:alert(1)")
    details = data(sweep)["details"]
    assert "wandb" not in details[0] and details[1]["wandb"].startswith("https://")


def test_the_histogram_counts_every_latent_once():
    rates = np.array([0.0, 0.0, 1e-7, 1.5e-6, 0.5e-2, 1.0])
    edges, counts, never, *_ = style.histogram(rates)
    assert (edges[0], edges[-1], len(edges)) == (-6, 0, 31) and np.diff(edges) == pytest.approx(0.2)
    assert never == 2 and counts.sum() == 4 and counts[0] == 2 and counts[-1] == 1
    assert counts[np.searchsorted(edges, math.log10(0.005)) - 1] == 1
    assert style.histogram(np.zeros(3))[2] == 3


def test_the_model_is_named_only_if_there_are_several():
    places = [("a", "resid", 9), ("b", "resid", 9)]
    assert (
        tables.title(places[0], places) == "a, resid, layer 9" and tables.title(places[0], places[:1]) == "resid, layer 9"
    )


def test_an_empty_sweep_has_a_page():
    sweep = Sweep()
    text = page.html(sweep.df.iloc[:0], {"places": [], "failed": [], "unfinished": []}, [], "fake")
    assert "No SAEs yet" in text and Parsed(text).open == []


# In Chromium


@pytest.fixture(scope="module")
def window():
    with chromium.browser() as browser:
        yield browser


@pytest.fixture
def browser(window):
    """A window; after each test, its console is empty and no address was requested."""
    window.read_logs()
    window.console, window.requests = [], []
    yield window
    window.read_logs()
    assert window.console == [] and window.requests == []


@pytest.fixture
def show(browser, tmp_path):
    def show(sweep, name="fake", **how):
        return browser.open(fake_sweep.write(tmp_path, sweep, name), **how)

    return show


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser.driver).send_keys(*keys).perform()


def key(name):
    from selenium.webdriver import Keys

    return getattr(Keys, name)


def click(browser, element):
    from selenium.webdriver import ActionChains

    ActionChains(browser.driver).move_to_element(element).click().perform()


def test_the_browser_fixture_detects_requests_and_errors(browser, tmp_path):
    script = "console.error('an error'); nothing()"
    (tmp_path / "errors.html").write_text(f"<img src='http://127.0.0.1:9/x'><script>{script}</script>")
    browser.open(tmp_path / "errors.html").read_logs()
    assert browser.requests == ["http://127.0.0.1:9/x"]
    for message in ("an error", "nothing is not defined"):
        assert any(message in line for line in browser.console)
    browser.console, browser.requests = [], []


def titles(browser):
    return [heading.text for heading in browser.all("#panels h3")]


def numbers(browser):
    """The SAEs whose points and table rows are visible."""
    points, rows = browser.run("""return [[...document.querySelectorAll("#panels .point")].map(p => +p.dataset.sae),
        [...document.querySelectorAll("#numbers tbody tr")].filter(r => !r.hidden).map(r => +r.id.slice(4))]""")
    assert set(points) == set(rows)
    return set(points)


def box(browser, value):
    return browser.one(f"#controls input[value='{value}']")


def test_every_metric_with_values_can_be_chosen_and_is_plotted(show):
    from selenium.webdriver.support.ui import Select

    sweep = Sweep()
    browser = show(sweep)
    select = Select(browser.one("#metric"))
    known = ("recovery", "parent_silent_with_child", "parent_silent_alone")  # with a known dictionary, which is not here
    assert [o.text for o in select.options] == [
        "FVU and delta loss",
        *(label for key, label in style.LABELS.items() if key not in ("l0", *known)),
    ]
    assert titles(browser) == ["resid, layer 9"] * 2
    for option in select.options[1:]:
        select.select_by_visible_text(option.text)
        (panel,) = browser.all("#panels svg.points")
        assert panel.get_attribute("aria-label").startswith(option.text) and len(browser.all(".point")) == 9
        shown = {part.get_attribute("data-metric") for part in browser.all("#verdicts > div") if part.is_displayed()}
        assert shown == {option.get_attribute("value")} & {"fvu", "delta_loss"}
        assert browser.one("#uncompared").is_displayed() == (not shown)


def test_sites_layers_and_architectures_can_be_deselected(show):
    sweep = Sweep(("resid", "mlp"), (5, 9), failed=2, unfinished=1)
    df, browser = sweep.df, show(sweep)
    assert (
        titles(browser) == ["mlp, layer 5", "mlp, layer 9", "resid, layer 5", "resid, layer 9"] and len(numbers(browser)) == 36
    )
    box(browser, "mlp").click()
    assert titles(browser) == ["resid, layer 5", "resid, layer 9"]
    box(browser, "5").click()
    assert titles(browser) == ["resid, layer 9"]
    box(browser, "gated").click()
    assert numbers(browser) == set(df.index[(df["site"] == "resid") & (df["layer"] == 9) & (df["arch"] != "gated")])
    browser.one("#verdicts [data-metric=fvu] summary").click()
    rows = [row.text for row in browser.all("#verdicts [data-metric=fvu] details tr[data-arch]") if row.is_displayed()]
    assert len(rows) == 1 and rows[0].startswith("jumprelu or topk")
    for arch in ("jumprelu", "topk"):
        box(browser, arch).click()
    assert browser.one("#panels").text == "Nothing is selected." and numbers(browser) == set()


def test_the_settings_that_tell_curves_apart_can_be_deselected(show):
    sweep = Sweep(archs=("topk width=512", "topk width=4096", "jumprelu width=512", "gated"))
    df, browser = sweep.df, show(sweep)
    legends = [legend.text for legend in browser.all("#controls legend")]
    assert legends == ["Curve", "Architecture", "width"] and len(numbers(browser)) == 12
    assert browser.run("return new Set([...document.querySelectorAll('#panels .line')].map(e => e.outerHTML)).size") == 8
    box(browser, "4096").click()
    assert numbers(browser) == set(df.index[df["arch"] != "topk width=4096"])
    box(browser, "jumprelu").click()
    assert numbers(browser) == set(df.index[df["arch"].isin(["topk width=512", "gated"])])
    rows = [row.text for row in browser.all("#verdicts [data-metric=fvu] details tr[data-arch]") if row.is_displayed()]
    assert len(rows) == 1 and "topk width=512" in rows[0] and "gated" in rows[0]


def test_saes_with_fixed_coefficients_are_points_or_marks_at_the_left_if_unfinished(show):
    sweep = Sweep(archs=("gated", "topk"), fixed=("gated",), seeds=2, unfinished=5)
    browser = show(sweep)
    assert len(numbers(browser)) == 12
    names = [point.get_attribute("aria-label") for point in browser.all("#panels section:first-child .point")]
    assert sum("gated, coefficient " in name for name in names) == sum("topk, sparsity " in name for name in names) == 6
    marks = [i for i, row in sweep.df.iterrows() if row["state"] == "unfinished" and row["arch"] == "gated"]
    edges = [browser.one(f".point[data-sae='{i}'] path").rect["x"] for i in marks]
    assert len(set(edges)) == len(edges) > 0 and min(edges) > browser.one("#panels svg.points").rect["x"] + 70


def test_a_page_with_only_unfinished_fixed_coefficients_has_panels(show):
    browser = show(Sweep(archs=("gated",), fixed=("gated",), unfinished=3))
    assert len(numbers(browser)) == 3 and titles(browser) == ["resid, layer 9"]


def test_a_button_selects_all_or_none_of_many_choices(show):
    browser = show(Sweep(archs=("jumprelu", "topk", "gated", "relu", "batchtopk")))
    button = browser.one("#controls button")
    button.click()
    assert not browser.all(".point")
    button.click()
    assert len(numbers(browser)) == 15


def positions_of(browser, metric="fvu"):
    """SAE -> the centre of its mark in the panel of the metric."""
    script = """return [...document.querySelectorAll(`.point[data-panel$=" ${arguments[0]}"]`)].map(p => {
        const ring = p.querySelector(".ring"); return [+p.dataset.sae, +ring.getAttribute("cx"), +ring.getAttribute("cy")] })"""
    return {sae: (x, y) for sae, x, y in browser.run(script, metric)}


def test_points_are_at_their_values_on_linear_and_logarithmic_axes(show):
    sweep = Sweep(archs=("topk",))
    sweep.df["fvu"] = [0.4, 0.2, 0.1]
    sweep.comparison = {"places": []}
    browser = show(sweep)
    (x0, y0), (x1, y1), (x2, y2) = positions_of(browser).values()
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and x0 < x1, "L0 is on a logarithmic axis"
    assert y1 - y0 == pytest.approx(2 * (y2 - y1), abs=0.3) and y0 < y1, "less error is lower"
    browser.one("#log").click()
    (_, y0), (_, y1), (_, y2) = positions_of(browser).values()
    assert y1 - y0 == pytest.approx(y2 - y1, abs=0.3) and y0 < y1
    tick = browser.run(
        "return [...document.querySelectorAll('#panels text')].find(t => t.textContent === '32').getAttribute('x')"
    )
    assert float(tick) == pytest.approx(x1, abs=0.2)


def test_a_logarithmic_axis_counts_the_points_at_or_below_0(show):
    from selenium.webdriver.support.ui import Select

    browser = show(Sweep(seeds=2))
    Select(browser.one("#metric")).select_by_value("dead")
    assert len(browser.all(".point")) == 18
    browser.one("#log").click()
    assert len(browser.all(".point")) == 9 and "9 at or below 0 not shown" in browser.one("#panels svg").get_property(
        "textContent"
    )


def test_seeds_are_small_points_around_a_mean_in_a_band(show):
    browser = show(Sweep(seeds=3))
    panel = browser.one("#panels svg")
    found = {kind: len(panel.find_elements("css selector", kind)) for kind in (".seed", ".mean", ".line", ".band")}
    assert found == {".seed": 27, ".mean": 9, ".line": 3, ".band": 3}
    alone = show(Sweep()).one("#panels svg")
    assert len(alone.find_elements("css selector", ".mark")) == 9 and not alone.find_elements("css selector", ".mean, .band")


def test_failed_and_unfinished_saes_are_marked_below_the_axis_at_their_target(show):
    sweep = Sweep(archs=("jumprelu", "topk"), seeds=2, failed=2, unfinished=2)
    browser = show(sweep)
    marks, df = positions_of(browser), sweep.df
    floor = browser.run("return document.querySelector('#panels svg').clientHeight") - 40
    rows = {state: {marks[i][1] for i in df.index[df["state"] == state]} for state in ("failed", "unfinished")}
    assert rows == {"failed": {floor - 27}, "unfinished": {floor - 9}}
    assert {"failed", "unfinished"} <= {t.text for t in browser.all("#panels section:first-child text")}
    ticks = """return Object.fromEntries([...document.querySelectorAll("#panels svg text")].map(
        t => [t.textContent, +t.getAttribute("x")]))"""
    at = browser.run(ticks)
    for i in df.index[df["state"] != "finished"]:
        assert abs(marks[i][0] - at[str(df["sparsity"][i])]) < 13


def test_a_card_shows_the_metrics_of_the_hovered_or_focused_point(show):
    from selenium.webdriver import ActionChains

    sweep = Sweep(archs=("topk",))
    browser = show(sweep)
    first, second = browser.all("#panels section:first-child .point")[:2]
    ActionChains(browser.driver).move_to_element(first).perform()
    card = browser.one("#card")
    assert card.text.splitlines()[0] == "topk, sparsity 16, seed 0"
    assert card.text.splitlines()[1:4] == ["l0", "16.00", "fvu"]
    assert len(browser.all(".point.hot")) == 2, "in both panels"
    browser.run("arguments[0].focus()", second)
    assert card.text.startswith("topk, sparsity 32, seed 0")
    press(browser, key("ESCAPE"))
    assert not card.is_displayed()


def opened(browser):
    dialog = browser.one("#detail")
    assert dialog.is_displayed()
    return dialog


def test_the_dialog_shows_the_saes_within_an_sae(show):
    sweep = Sweep()
    parts = [{"latents": "first 128", "l0": 9.5, "fvu": 0.31416}, {"latents": "8 largest", "l0": 8.0, "fvu": None}]
    sweep.details[0] = sweep.details[0]._replace(parts=parts)
    browser = show(sweep)
    click(browser, browser.one(".point[data-sae='0']"))
    found = opened(browser).text
    assert "Read in part" in found and found.index("Numbers") < found.index("Read in part") < found.index("Training")
    for words in ("first 128 latents", "l0 9.500, fvu 0.3142", "8 largest latents", "l0 8.000, fvu -"):
        assert words in found
    click(browser, browser.one(".point[data-sae='4']"))
    assert "Read in part" not in opened(browser).text


def test_a_click_opens_the_details_of_an_sae(show):
    sweep = Sweep()
    browser = show(sweep)
    row, details = sweep.df.loc[4], sweep.details[4]
    click(browser, browser.one(".point[data-sae='4']"))
    dialog = opened(browser)
    assert browser.one("#detail-title").text == f"{row['arch']}, sparsity {row['sparsity']}, seed 0"
    values = dict(browser.run("""return [...arguments[0].querySelectorAll("dt")].filter(dt => dt.checkVisibility())
        .map(dt => [dt.innerText, dt.nextElementSibling.innerText])""", dialog))
    for name in ("l0", "fvu", "delta_loss", "loss_recovered", "dead"):
        assert float(values[name]) == pytest.approx(row[name], rel=5e-4)
    assert values["arch.name"] == row["arch"], "settings that differ between SAEs are visible"
    assert not dialog.find_element("css selector", "details dl").is_displayed()
    dialog.find_element("css selector", "summary").click()
    assert "model.revision" in dialog.find_element("css selector", "details dl").text
    assert dialog.find_element("css selector", "code").text == details.command
    links = {a.text: a.get_dom_attribute("href") for a in dialog.find_elements("css selector", "a")}
    assert links == {"Folder": f"{row['path']}/", "W&B run": details.wandb}
    names = [figure.get_attribute("aria-label") for figure in dialog.find_elements("css selector", "svg[role=img]")]
    never = int((details.rates == 0).sum())
    assert [name.split()[0] for name in names] == ["fvu", "l0", "Firing"] and names[2].endswith(f"{never} never fired")
    assert f"{never} of 4096 latents never fired" in dialog.text


@pytest.mark.parametrize("allowed", [True, False])
def test_the_command_is_copied_with_and_without_the_clipboard_api(show, allowed):
    browser = show(Sweep())
    permitted = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.driver.execute_cdp_cmd("Browser.grantPermissions", permitted)
    click(browser, browser.one(".point[data-sae='4']"))
    browser.driver.execute_async_script("navigator.clipboard.writeText('before').then(arguments[0])")
    if not allowed:
        browser.run("navigator.clipboard.writeText = () => Promise.reject(new Error('no'))")
    browser.one("#detail pre + div button").click()
    browser.wait(lambda: browser.one("#detail [role=status]").text == "Copied.")
    copied = browser.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied.strip() == browser.one("#detail code").text


@pytest.mark.parametrize("how", ["escape", "button"])
def test_closing_returns_the_focus_to_the_point(show, how):
    browser = show(Sweep())
    click(browser, browser.one(".point[data-sae='4']"))
    press(browser, key("ESCAPE")) if how == "escape" else browser.one("#close").click()
    assert not browser.one("#detail").is_displayed()
    focus = browser.driver.switch_to.active_element
    assert focus.get_attribute("data-sae") == "4" and not browser.all(".shown")


def test_the_keyboard_moves_between_points_and_opens_them(show):
    browser = show(Sweep())
    browser.run("document.querySelector('#controls input[name=arch]:last-of-type').focus()")
    for _ in range(3):
        press(browser, key("TAB"))
    focus = browser.driver.switch_to.active_element
    labels = [p.get_attribute("aria-label") for p in browser.all("#panels section:first-child .point")]
    assert focus.get_attribute("aria-label") == labels[0] and labels[0].startswith("jumprelu, sparsity 16, seed 0: l0 ")
    press(browser, key("ARROW_RIGHT"), key("ARROW_DOWN"), key("ARROW_LEFT"))
    assert browser.driver.switch_to.active_element.get_attribute("aria-label") == labels[1]
    press(browser, key("END"))
    assert browser.driver.switch_to.active_element.get_attribute("aria-label") == labels[-1]
    press(browser, key("HOME"))
    press(browser, key("TAB"))
    second = browser.driver.switch_to.active_element
    assert second.get_attribute("data-panel") == "0 delta_loss", "one stop per panel"
    press(browser, key("ENTER"))
    opened(browser)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "detail-title"
    press(browser, key("ESCAPE"))
    assert browser.driver.switch_to.active_element.get_attribute("data-panel") == "0 delta_loss"


def test_with_the_dialog_open_another_point_or_seed_can_be_chosen(show):
    sweep = Sweep(seeds=3)
    browser = show(sweep)
    click(browser, browser.one(".point[data-sae='0']"))
    click(browser, browser.one(".point[data-sae='26']"))
    assert browser.one("#detail-title").text == "gated, sparsity 64, seed 2"
    assert [mark.get_attribute("id") or mark.get_attribute("data-sae") for mark in browser.all(".shown")] == [
        "26",
        "26",
        "sae-26",
    ]
    browser.one("#detail button[aria-label='Seed 1']").click()
    assert browser.one("#detail-title").text == "gated, sparsity 64, seed 1"
    assert browser.one("#detail button[aria-pressed=true]").text == "1"


def test_a_failed_sae_shows_its_reason_and_an_unfinished_one_its_tokens(show):
    sweep = Sweep(failed=1, unfinished=1)
    browser, df = show(sweep), sweep.df
    failed, unfinished = (int(df.index[df["state"] == state][0]) for state in ("failed", "unfinished"))
    click(browser, browser.one(f".point[data-sae='{failed}']"))
    assert "Failed: loss is nan after 20,480 tokens: lower arch.optimizer.lr\nTraceback of the step" in opened(browser).text
    press(browser, key("ESCAPE"))
    browser.one(f"section:has(td.reason) a[data-sae='{unfinished}']").click()
    assert "Unfinished, after 120320 tokens" in opened(browser).text
    press(browser, key("ESCAPE"))
    assert browser.driver.switch_to.active_element.get_attribute("data-sae") == str(unfinished)


def test_a_row_of_the_table_opens_its_sae(show):
    browser = show(Sweep())
    browser.one("#sae-7 th a").click()
    assert opened(browser) and browser.one("#detail-title").text == "topk, sparsity 64, seed 0"


CONTRAST = """
const channel = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const luminance = c => c.slice(0, 3).map(channel).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const colour = text => text.match(/[\\d.]+/g).map(Number);
const background = e => {
  if (!e) return [255, 255, 255];
  const c = colour(getComputedStyle(e).backgroundColor);
  return c.length < 4 || c[3] ? c : background(e.parentElement);
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), low = [];
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !e.checkVisibility?.() || ["SCRIPT", "OPTION"].includes(e.tagName)) continue;
  const style = getComputedStyle(e), ink = colour(e.closest("svg") ? style.fill : style.color);
  const [dark, bright] = [luminance(ink), luminance(background(e))].sort((a, b) => a - b);
  if ((bright + .05) / (dark + .05) < 4.5) low.push(walker.currentNode.textContent);
}
return low;
"""


@pytest.mark.parametrize("width", [1280, 360])
def test_every_control_has_an_accessible_name_and_every_text_enough_contrast(show, width):
    browser = show(Sweep(("resid", "mlp"), (5, 9), seeds=2, failed=2, unfinished=2), width=width, phone=width < 500)
    controls = browser.controls(lambda found: len(found) > 200)
    assert all(name.strip() for _, name in controls), [c for c in controls if not c[1].strip()]
    assert {"button", "link", "checkbox", "combobox"} <= {role for role, _ in controls}
    assert browser.run(CONTRAST) == []
    browser.run("open(0, document.querySelector(`.point[data-sae='0']`))")
    controls = browser.controls(lambda found: ("dialog", "jumprelu, sparsity 16, seed 0") in found)
    assert all(name.strip() for _, name in controls)
    assert browser.run(CONTRAST) == []


@pytest.fixture(scope="module")
def page_of_200(tmp_path_factory):
    """Of 200 SAEs at 9 hook points."""
    sweep = fake_sweep.sweep_of_200()
    assert len(sweep.df) == 200
    return fake_sweep.write(tmp_path_factory.mktemp("page"), sweep)


@pytest.mark.parametrize("opening", [False, True], ids=["page", "dialog"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser, page_of_200, opening):
    browser.open(page_of_200, width=360, height=740, phone=True)
    if opening:
        click(browser, browser.one(".point"))
        assert browser.run("return document.querySelector('#detail').matches(':modal')")
    assert browser.run("return [innerWidth, document.documentElement.scrollWidth, visualViewport.scale]") == [360, 360, 1]
    wide = """return [...document.querySelectorAll("body *")].filter(e => e.checkVisibility() && !e.closest(".scroll table")
        && e.getBoundingClientRect().right > 360.5).map(e => e.outerHTML.slice(0, 99))"""
    assert browser.run(wide) == []
    dialog = browser.one("#detail")
    assert not opening or browser.run("return arguments[0].scrollWidth <= arguments[0].clientWidth", dialog)


def test_a_page_of_200_saes_is_small_and_opens_in_under_2_seconds(browser, page_of_200):
    browser.open(page_of_200)
    assert len(titles(browser)) == 9 and len(numbers(browser)) == 200
    assert page_of_200.stat().st_size < 3e6
    assert browser.run("return performance.getEntriesByName('drawn')[0].startTime") < 2000


def test_without_javascript_text_and_tables_are_shown_and_controls_hidden(show):
    browser = show(Sweep(failed=1), script=False)
    seen = browser.one("body").text
    assert "The curves need JavaScript" in seen and "Pairs at each L0" in seen and "lower arch.optimizer.lr" in seen
    assert not browser.one("#controls").is_displayed() and not browser.one("#detail").is_displayed()


def test_names_are_escaped_everywhere(show):
    sweep = Sweep(archs=(HTML_NAME, "topk"), failed=1)
    sweep.details[0] = sweep.details[0]._replace(command=HTML_NAME, config={HTML_NAME: HTML_NAME}, reason=HTML_NAME)
    browser = show(sweep, HTML_NAME)
    assert browser.one("h1").text == f"{HTML_NAME}: reconstruction against sparsity"
    box_ = browser.all("#controls input[name=arch]")[1]
    assert box_.get_attribute("value") == HTML_NAME
    browser.run("open(0, document.querySelector(`.point[data-sae='0']`))")
    assert browser.one("#detail-title").text.startswith(HTML_NAME) and browser.one("#detail code").text == HTML_NAME
    box_.click()
    assert all(sweep.df["arch"][i] == "topk" for i in numbers(browser))
    assert not browser.all("img") and browser.driver.title.startswith("'</script>")


@pytest.mark.parametrize("case", ["one SAE", "no language model", "nothing", "all failed", "no training rows"])
def test_a_page_with_little_content_opens(show, case):
    sweep = {"no language model": Sweep(lm=False), "all failed": Sweep(failed=9)}.get(case) or Sweep(
        archs=("topk",), sparsities=(32,)
    )
    if case == "nothing":
        sweep.df, sweep.details, sweep.comparison = sweep.df.iloc[:0], [], {"places": []}
    if case == "no training rows":
        sweep.details[0] = sweep.details[0]._replace(curve=pd.DataFrame(), rates=None, config={})
    browser = show(sweep)
    assert browser.one("#panels").text
    for point in browser.all(".point")[:1]:
        click(browser, point)
        opened(browser)
