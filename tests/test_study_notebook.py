"""A finished study in a notebook: the commands of docs/notebook.md on a real one, and the views of a made one."""
import contextlib
import dataclasses
import io
import json
import re
import shlex
import shutil
from html.parser import HTMLParser

import made_pages
import numpy as np
import pytest
import torch
from made_pages import EVIL, TOKENIZER
from standin.cli import ROOT
from studied import asked, trained  # noqa: F401 fixture
from typechecker import unchecked

import saesweep
from saesweep.errors import UsageError
from saesweep.lm import models
from saesweep.lm.hooks import read
from saesweep.study import __main__ as command
from saesweep.study import written
from saesweep.study.hits import Hits
from saesweep.study.notebook.examples import examples
from saesweep.study.notebook.explained import explained
from saesweep.study.notebook.studied import Studied
from saesweep.study.notebook.views import COLUMNS
from saesweep.study.pieces import Pieces

pytestmark = pytest.mark.slow
DOCUMENTATION = (ROOT / "docs/notebook.md").read_text().partition("## What the latents mean")[2]
FEW = ("tokens=4000", "features=10", "dense_tokens=1000", "device=cpu", "forward_tokens=128", "min_fires=10", "min_documents=3",
       "label_tokens=50", "label_documents=5", "controls=[]", "draws=20", "dense_probes=false", "logits=false")
PATH = "tiny/resid.1/topk/4"


# On a sweep that was studied


@pytest.fixture(scope="module")
def documented(trained, tmp_path_factory):  # noqa: F811
    """The folder where the commands of the documentation were run, of the study with few tokens; and what they print."""
    folder, printed = tmp_path_factory.mktemp("documented"), io.StringIO()
    shutil.copytree(trained, folder / "outputs/default")
    names = {"saesweep": saesweep}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        (line,) = re.findall(r"^ {4}(saesweep study .*)$", DOCUMENTATION, re.MULTILINE)
        patch.setattr("sys.argv", [*shlex.split(line)[1:], *FEW])
        with unchecked():
            command.main()
        patch.setattr(models, "load", None)  # no language model is loaded
        for code in re.findall(r"```python\n(.*?)```", DOCUMENTATION, re.DOTALL):
            exec(code, names)
    return folder, names, printed.getvalue()


@pytest.fixture
def sae(documented, monkeypatch):
    monkeypatch.chdir(documented[0])
    return saesweep.load(f"outputs/default/{PATH}")


def test_the_commands_of_the_documentation_show_a_latent(documented):
    _, names, printed = documented
    assert len(names["scores"]) == 4 and "Latent 11 of " in printed and "In ⟦ ⟧" not in printed
    assert len(names["found"]) == len(names["found"].table) <= 4 and names["found"].group == "top"


def test_values_are_those_of_encode_on_the_text_around_the_token(sae):
    lm, text = saesweep.language_model(sae), sae._studied.sae.test.text
    latent = int(sae._studied.sae.test.fires.argmax())
    table = sae.examples(latent, n=3).table
    for row in table.to_dict("records"):
        block = np.flatnonzero(text.block == text.block[row["position"]])
        tokens = torch.tensor(text.tokens[block])[None].long()
        x = read(lm.module, [sae.point], tokens)[sae.point][0].float()
        assert sae.encode(x)[row["position"] - block[0], latent].item() == pytest.approx(row["value"], rel=1e-4)
        assert row["token"] == row["tokens"][row["at"]] and row["values"][row["at"]] == row["value"]
        document = text.documents[row["document"]].encode()  # the tokenizer of the tiny model has a token per byte
        assert document[row["index"] : row["index"] + 1].decode() == row["token"]
    assert table["value"].is_monotonic_decreasing and len(table) == 3


def test_an_sae_that_was_not_studied_names_the_command(trained, sae, monkeypatch, tmp_path):  # noqa: F811
    shutil.copytree(trained, tmp_path / "a sweep")
    monkeypatch.chdir(tmp_path)
    bare = saesweep.load(f"a sweep/{PATH}")
    for ask in (bare.examples, bare.explain):
        with pytest.raises(UsageError, match=r"topk/4: this SAE was not studied; run saesweep study 'a sweep'$"):
            ask(0)
    with pytest.raises(UsageError, match=r"a sweep: no SAE was studied; run saesweep study 'a sweep'$"):
        saesweep.study("a sweep")


def test_an_sae_that_was_trained_again_or_is_not_scored_is_refused(documented, monkeypatch, tmp_path):
    sweep = shutil.copytree(documented[0] / "outputs/default", tmp_path / "sweep")
    monkeypatch.chdir(tmp_path)
    (sweep / "study/scores.csv").unlink()
    with pytest.raises(UsageError, match=r"its latents are not scored yet; run saesweep study sweep$"):
        saesweep.load(sweep / PATH).explain(0)
    shutil.copy(sweep / PATH.replace("topk", "jumprelu") / "sae/sae_weights.safetensors", sweep / "other")
    sae = saesweep.load(sweep / PATH)
    (sweep / "other").rename(sweep / PATH / "sae/sae_weights.safetensors")
    with pytest.raises(UsageError, match="this SAE was trained again"):
        sae.examples(0)


def test_the_study_of_several_sweeps_is_found_from_the_folder_of_an_sae(documented, monkeypatch, tmp_path):
    sweep, both = shutil.copytree(documented[0] / "outputs/default", tmp_path / "sweep"), tmp_path / "both/study"
    both.mkdir(parents=True)
    for name in ("scores.csv", "summary.csv"):
        (both / name).write_text((sweep / "study" / name).read_text().replace("\ntiny/", "\n../sweep/tiny/"))
        (sweep / "study" / name).unlink()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="not scored yet"):
        saesweep.load(sweep / PATH).explain(0)
    written.write_settings(sweep, asked(*FEW, "out=both"))
    monkeypatch.chdir("/")
    assert saesweep.load(sweep / PATH).explain(0).title == "Latent 0 of topk 4 (tiny, resid, layer 1)"
    found = saesweep.study(sweep)
    assert len(found) == 4 and found["rule"].notna().all() and saesweep.study(tmp_path / "both").equals(found)


# Views


@pytest.fixture(scope="module")
def study():
    return made_pages.made(made_pages.PLACES[:1])


@pytest.fixture
def made(study, tmp_path):
    """A study made by hand (made_pages.py), below its folder. Latent 0 fires on `self`, 3 on EVIL, the last one never."""
    made_pages.tables(tmp_path / "study", study)
    one = study.saes[0].collected
    config = one.config | {"model": {"name": "tiny", "source": {}}}
    sae = dataclasses.replace(one, folder=tmp_path / one.path, config=config)
    found = Studied(sae, {"features": 10, "min_fires": 20, "min_documents": 5}, scale=2.0)
    vars(found)["pieces"] = Pieces(TOKENIZER)
    return found


def without_hits(made):
    """The same, as if the study had kept all activations of no latent."""
    none = Hits(np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
    sae = dataclasses.replace(made.sae, test=dataclasses.replace(made.sae.test, hits=none))
    found = dataclasses.replace(made, sae=sae)
    vars(found)["pieces"] = made.pieces
    return found


class Nodes(HTMLParser):
    """Elements, and the text of each that is directly in it."""

    def __init__(self, text):
        super().__init__()
        self.opened, self.found = [], []
        self.feed(text)
        assert not self.opened

    def handle_starttag(self, tag, attributes):
        self.opened.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.opened.pop()[0] == tag

    def handle_data(self, data):
        self.found.append((*self.opened[-1], data))

    def texts(self, tag):
        return [text for one, _, text in self.found if one == tag]


def test_the_view_has_the_tokens_as_text_nodes_with_visible_whitespace(made):
    found = examples(made, 3, "top", 5)
    assert set(found.table["token"]) == {f" {EVIL}"} and found.table["tokens"].map(len).max() <= 32
    nodes = Nodes(found._repr_html_())
    assert {tag for tag, _, _ in nodes.found} <= {"b", "p", "span", "mark", "li"}
    assert set(nodes.texts("mark")) == {f" {EVIL}".replace("\t", "→")}
    assert any("a⏎b" in text for text in nodes.texts("li")) and "\n" not in found._repr_html_()
    assert "tex2jax_ignore mathjax_ignore" in found._repr_html_() and "<script" not in found._repr_html_()


def test_the_token_of_the_value_has_a_frame_and_the_strength_is_a_colour_and_a_line(made):
    found = examples(made, 5, "decile", 10)
    marks = [one for one in Nodes(found._repr_html_()).found if one[0] == "mark"]
    framed = [attributes["style"] for _, attributes, _ in marks if "outline" in attributes["style"]]
    width = [float(re.search(r"border-bottom: ([\d.]+)px", style)[1]) for style in framed]
    alpha = [float(re.search(r"150, 0, ([\d.]+)\)", style)[1]) for style in framed]
    share = found.table["share"].to_numpy()
    assert len(framed) == 10 and width == pytest.approx(0.5 + 2.5 * share, abs=0.06)
    assert alpha == pytest.approx(0.1 + 0.5 * share, abs=0.006) and share[0] > share[-1]


def test_the_text_has_the_value_before_the_tokens(made):
    lines = repr(examples(made, 0, "top", 2)).splitlines()
    assert lines[0] == "Latent 0 of topk 16 (tiny, resid, layer 1): top" and lines[1].startswith("The value is that of")
    value = 2 * made.sae.test.top.values[0, 0]
    assert len(lines) == 4 and lines[2].split()[0] == f"{value:.4g}" and "⟦ self⟧" in lines[2] and "⏎" in "".join(lines)


def test_the_table_has_the_documented_columns_in_the_units_of_encode(made):
    table = examples(made, 0, "interval", 8).table
    assert list(table.columns) == COLUMNS and len(table) <= 10 and set(table["part"]) <= {1, 2, 3, 4, 5}
    assert table["part"].is_monotonic_decreasing
    positions, values = made.sae.test.hits.of(0)
    value = dict(zip(positions.tolist(), (2 * values.astype(float)).tolist(), strict=True))
    assert table["value"].tolist() == [value[position] for position in table["position"]]
    assert table["share"].max() <= 1 and "part" not in examples(made, 0, "top", 3).table


def test_silent_text_has_no_value_and_the_common_tokens_are_pointed_out(made):
    silent, same = examples(made, 5, "random", 4), examples(made, 5, "same_token", 4)
    assert silent.table["value"].tolist() == [0.0] * len(silent) and len(silent) and len(same)
    assert all(sum(row) == 0 for row in silent.table["values"]) and "<mark" not in silent._repr_html_()
    assert Nodes(same._repr_html_()).texts("u") and "⟦" in repr(same).partition("⟦ ⟧")[2] and "<u" not in silent._repr_html_()


def test_a_dead_latent_is_said_to_be_dead(made):
    number = made.sae.d_sae - 1
    found, words = examples(made, number, "top", 5), explained(made, number)
    assert len(found) == 0 and list(found.table.columns) == [key for key in COLUMNS if key != "part"]
    for text in (repr(found), repr(words), found._repr_html_(), words._repr_html_()):
        assert "Dead on the text of the study: silent on all 14,400 tokens of both halves." in text
    assert "asked for" not in repr(found) and "not scored" not in repr(words)


def test_a_latent_without_a_score_says_why(made):
    rare = dataclasses.replace(made, settings={"features": 10, "min_fires": 10_000, "min_documents": 5})
    (made.sweep / "study/scores.csv").write_text(re.sub(
        rf"(?m)^{made.sae.path},topk,16(?:\.0)?,0,0,.*\n", "", (made.sweep / "study/scores.csv").read_text()))
    assert "features=10 of the 11 latents that are active often enough were drawn, and it is not among them" in repr(
        explained(made, 0))
    assert "too seldom: on " in repr(explained(rare, 0)) and "min_fires=10000 and min_documents=5" in repr(explained(rare, 0))
    assert len(explained(made, 0).scores) == 0


def test_without_all_activations_there_are_examples_and_it_is_said(made):
    found = without_hits(made)
    top, random = examples(found, 5, "top", 3), examples(found, 5, "random", 3)
    assert len(top) == 3 and "the study keeps the 20 strongest activations, a sample of 100" in repr(top)
    assert len(random) == 0 and "does not know where it is silent" in repr(random)


def test_an_explanation_is_shown_with_its_model_and_scores(made):
    (made.sae.folder / "study").mkdir(parents=True)
    (made.sae.folder / "study/explanations.jsonl").write_text(json.dumps(
        {"control": None, "latent": 0, "explainer": "a model", "explanation": f"the word self {EVIL}"}) + "\n")
    file = made.sweep / "study/scores.csv"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([f"{header},detection,judge", *(f"{row},0.875,a judge" for row in rows)]) + "\n")
    found = explained(made, 0)
    assert f'"the word self {EVIL}"\nWritten by a model. Judged by a judge: detection by a model 0.875.' in repr(found)
    assert "fires on `self`" in repr(found) and "its F1 1.000, its recall 1.000 (fires on 100% of the tokens" in repr(found)
    nodes = Nodes(found._repr_html_())
    assert nodes.texts("blockquote") == [f"the word self {EVIL}"]
    assert "the word self" not in repr(explained(made, 1)) and found.scores["detection"] == 0.875


@pytest.mark.parametrize("asked, line", [
    ((12, "top", 5), "latent=12: this SAE has the latents 0 to 11"),
    ((-1, "top", 5), "latent=-1: this SAE has the latents 0 to 11"),
    ((0, "tops", 5), "group=tops: must be one of top, decile, interval, random, same_token"),
    ((0, "top", 0), "n=0: must be at least 1"),
])
def test_what_cannot_be_asked_is_one_line(made, asked, line):
    with pytest.raises(UsageError) as refused:
        examples(made, *asked)
    assert str(refused.value) == line
    if "latent" in line:
        with pytest.raises(UsageError, match=line):
            explained(made, asked[0])


def test_a_known_dictionary_has_no_text(made):
    config = made.sae.config | {"model": {"name": "synthetic", "source": {"synthetic": {}}}}
    with pytest.raises(UsageError, match="draws of a known dictionary, which have no text"):
        examples(dataclasses.replace(made, sae=dataclasses.replace(made.sae, config=config)), 0, "top", 3)
