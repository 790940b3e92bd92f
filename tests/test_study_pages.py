"""The pages of a study: what they say, without a browser."""
import itertools
import re
from html.parser import HTMLParser

import made_pages
import numpy as np
import pytest
from made_pages import EVIL, tables

from saesweep.storage import study_tables
from saesweep.study import pages
from saesweep.study.pages.histogram import logit_histogram

pytestmark = pytest.mark.slow

VOID = {"meta", "input", "br"}


class Parsed(HTMLParser):
    """Checks that tags are balanced; collects text, links, headings, and the rows of the tables by caption."""

    def __init__(self, file):
        super().__init__()
        self.open, self.links, self.headings, self.tables, self.caption, self.text = [], [], [], {}, "", ""
        self.scripts = 0
        self.feed(file.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)
        self.scripts += tag == "script"
        assert tag != "img"
        self.links += [value for key, value in attrs if tag == "a" and key == "href"]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.caption = "" if tag == "caption" else self.caption
        if tag == "tr":
            self.tables.setdefault(self.caption, []).append([])
        if tag in {"td", "th"}:
            self.tables[self.caption][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data):
        if "caption" in self.open:
            self.caption += data
        elif {"td", "th"} & set(self.open):
            self.tables[self.caption][-1][-1] += data
        if not {"script", "style"} & set(self.open):
            self.text += data


@pytest.fixture(scope="module")
def study():
    return made_pages.made()


@pytest.fixture(scope="module")
def folder(study, tmp_path_factory):
    made = tables(tmp_path_factory.mktemp("sweep") / "study", study)
    written = pages.write(study.saes, study.report, study.summary, made, command="saesweep study <x>")
    assert written == [made / "study.html", made / "features/index.html"]
    return made


def test_all_pages_are_written_and_every_link_leads_somewhere(study, folder):
    files = sorted(folder.rglob("*.html"))
    assert len(files) == 2 + sum(1 + len(sae.scores) for sae in study.saes)
    outside = {"pareto.html", "labels.csv"}
    for file in files:
        for link in Parsed(file).links:
            assert (file.parent / link).resolve().is_file() or link.split("/")[-1] in outside, (file, link)


def test_headings_descend_one_level_at_a_time(folder):
    for file in folder.rglob("*.html"):
        levels = Parsed(file).headings
        assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels)), file


def test_text_of_tokens_rules_and_explanations_is_never_markup(folder):
    for file in folder.rglob("*.html"):
        assert Parsed(file).scripts == (file.name != "study.html"), file  # the page's own
    page = Parsed(folder / "features/topk/16/0.html")
    assert EVIL.replace("\t", "→") in page.text and EVIL in page.text and "a⏎b" in page.text


def test_no_page_names_an_address(folder):
    for file in folder.rglob("*.html"):
        text = file.read_text()
        assert not re.findall(r"https?://|@import|<link|\bsrc=[\"'h]|\burl\(|fetch\(", text), file
        assert "default-src 'none'" in text


def test_a_latent_page_has_the_rule_its_numbers_and_those_of_the_control(study, folder):
    page, sae = Parsed(folder / "features/topk/16/0.html"), study.saes[0]
    row = sae.scores.set_index("latent").loc[0]
    assert row["rule_words"] == "fires on `self`" and "fires on `self`" in page.text
    assert f"r {row['rule']:.3f}; F1 {row['rule_f1']:.3f}; fires on 100% of the tokens where the rule holds." in page.text
    scores = {cells[0]: cells[1:] for cells in page.tables["Scores"]}
    means = study.summary.set_index(["path", "score"]).loc[("tiny/resid.1/topk/16", "rule")]
    means = means[means["control"].isna()].iloc[0]
    over = row["rule"] - means["baseline"]
    expected = [f"{value:.3f}" for value in (row["rule"], means["uniform"], means["baseline"], over)]
    assert scores["simulation by rules"] == expected
    assert f"Active on {100 * row['frequency']:.3g}% of the tokens" in page.text


def test_a_latent_page_draws_the_logits_of_all_words(folder):
    section = (folder / "features/topk/16/0.html").read_text().split("<h2>Logits</h2>")[1].split("</section>")[0]
    assert ('role="img" aria-label="Histogram of the logits of 40 words, less their mean, from -1 to 1.5; most in the bin from '
            '-0.5"') in section
    assert "<h3>All 40 words, less their mean</h3><svg" in section
    assert re.findall(r">(-?[\d.]+)</text>", section) == ["-1.0", "-0.5", "0.0", "0.5", "1.0", "1.5"]
    tops = [float(top) for top in re.findall(r"88V([\d.]+)h59.2V88z", section)]
    assert tops == [55.2, 6, 84.7, 74.9]  # 88 - 82 n / 25, of the four bins with words


def test_a_bar_of_one_word_among_many_is_seen_and_equal_logits_have_no_histogram():
    assert re.findall(r"V([\d.]+)h", logit_histogram(np.array([100_000, 0, 1]), -1.0, 0.5)) == ["6.0", "87.0"]
    assert logit_histogram(np.array([7, 0, 0]), 0.0, 0.5) == ""


def test_examples_are_the_strongest_with_their_values_and_marks(study, folder):
    text = (folder / "features/topk/16/0.html").read_text()
    top = study.saes[0].collected.test.top.values[0]
    shown = [float(value) for value in re.findall(r"<li><i>([\d.]+)</i>", text.split("</ol>")[0])]
    assert len(shown) == 20 and shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(top[0], rel=5e-3)
    assert "<b><mark class=s10>" in text and re.search(r"<mark class=s1>|<mark class=s2>", text)


def test_intervals_have_bounds_and_shares_that_add_up(folder):
    found = re.findall(r"<h3>([\d.]+) to ([\d.]+): ([\d.]+)% of its activations, ([\d.]+)% of all tokens",
                       (folder / "features/topk/16/0.html").read_text())
    assert len(found) == 5 and sum(float(share) for *_, share, _ in found) == pytest.approx(100, abs=0.3)
    assert [low for low, *_ in found[:-1]] == [high for _, high, *_ in found[1:]] and found[-1][0] == "0"


def test_same_token_contrasts_hold_the_token_and_no_activation(folder):
    text = (folder / "features/topk/16/5.html").read_text()  # on tokens at random, so that its tokens are also elsewhere
    part = text[text.index("The same tokens without it</h2>"):]
    part = part[: part.index("</section>")]
    assert "<u>" in part and "<mark" not in part


def test_nearest_decoder_rows_are_those_of_largest_cosine(folder):
    cosine = made_pages.decoder() @ made_pages.decoder()[0]
    best = int(np.argsort(-cosine)[1])
    page = (folder / "features/topk/16/0.html").read_text()
    first = re.search(r'Nearest decoder rows, with their cosines"><li>(.*?)</li>', page)[1]
    assert re.sub("<.*?>", "", first) == f"{best} {cosine[best]:z.2f}"


def test_the_index_of_an_sae_has_a_row_per_latent_best_rule_first(study, folder):
    header, *rows = Parsed(folder / "features/jumprelu/32/index.html").tables["Scored latents"]
    scores = study.saes[3].scores
    assert len(rows) == len(scores) and {"latent", "rule", "top token", "frequency", "lookup token"} <= set(header)
    at = [n for n, name in enumerate(header) if name == "rule"][-1]
    shown = [float(row[at]) for row in rows if row[at] != "-"]
    assert shown == sorted(shown, reverse=True) and shown[0] == pytest.approx(scores["rule"].max(), abs=5e-4)


def test_study_html_says_the_verdicts_and_has_a_table_beside_each_figure(study, folder):
    page = Parsed(folder / "study.html")
    assert "Which architecture is more interpretable at the same L0?" in page.text
    text = (folder / "study.html").read_text()
    assert text.count("<figure>") == text.count("<summary>Numbers</summary>") > 2
    rows = page.tables["simulation by rules, mean over latents"]
    assert rows[0][:3] == ["SAEs", "L0", "value"] and "topk 16" in [row[0] for row in rows]
    assert text.count("saesweep study &lt;x&gt;") == 1


def test_writing_again_removes_pages_of_latents_that_are_no_longer_scored(study, tmp_path):
    made = tables(tmp_path / "study", study)
    pages.write(study.saes, study.report, study.summary, made, command="x")
    few = [sae._replace(scores=sae.scores.iloc[:2]) for sae in study.saes[:1]]  # the rows of other tables are the first ones
    pages.write(few, study.report, study.summary, made, command="x")
    assert len(list((made / "features").rglob("*.html"))) == 4 and not list(made.glob(".features*"))


def test_folders_are_short_at_one_hook_point_and_tell_several_apart():
    assert study_tables.folders_of_pages(["m/resid.9/topk/16", "m/resid.9/topk/16.1"]) == {
        "m/resid.9/topk/16": "features/topk/16", "m/resid.9/topk/16.1": "features/topk/16.1"}
    assert study_tables.folders_of_pages(["m/resid.9/topk/16", "m/mlp.9/topk/16"])["m/mlp.9/topk/16"] == (
        "features/m/mlp.9/topk/16")
    of_two = study_tables.folders_of_pages(["../a/m/resid.9/topk/16", "../b/m/resid.9/topk/16"])
    assert set(of_two.values()) == {"features/a/m/resid.9/topk/16", "features/b/m/resid.9/topk/16"}


def test_a_sweep_without_a_study_has_no_index(study, folder, tmp_path):
    assert study_tables.indexes_of_latents(tmp_path) == {}
    assert study_tables.indexes_of_latents(folder.parent)["tiny/resid.1/topk/16"] == "study/features/topk/16/index.html"


def test_saes_of_one_hook_point_and_target_l0_share_their_control(study):
    """The controls of the made study are listed with topk."""
    rows = study.summary.loc[study.summary["score"] == "rule"]
    control = rows.loc[rows["control"] == "random"].set_index("sparsity")["uniform"]
    trained = rows.loc[rows["control"].isna()]
    assert len(trained) == 4 and trained["baseline"].tolist() == [control[sparsity] for sparsity in trained["sparsity"]]
