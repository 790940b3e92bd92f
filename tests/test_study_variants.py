"""SAEs of one architecture that differ in a further setting are curves of their own in a study and in an ablation."""
import json
import shutil
from dataclasses import replace
from pathlib import Path

import made_pages
import numpy as np
import pandas as pd
import pytest
from made_study import around, made, sae
from small import RESOURCES, write_text
from studied import asked, swept

from saesweep import load
from saesweep.storage import study_tables
from saesweep.study import rate, run
from saesweep.study.ablation import run as ablate
from saesweep.study.ablation import summary as ablated
from saesweep.study.ablation import text as ablation_text
from saesweep.study.ablation.results import SHARES, Row, replicates
from saesweep.study.ablation.settings import settings as ablation_settings
from saesweep.study.comparison.replicates import Replicates
from saesweep.study.comparison.report import report
from saesweep.study.comparison.sentences import place_answers
from saesweep.study.export import jsonl, neuronpedia, read
from saesweep.study.export.neuronpedia import About, Names
from saesweep.study.pages.curves import Control, _most_alike
from saesweep.study.pages.gather import Completion
from saesweep.study.pages.of_sae import OfSAE
from saesweep.study.people.settings import settings as rate_settings
from saesweep.study.subjects import of_folder, places_of_controls

FEW = ("tokens=4000", "dense_tokens=1000", "min_fires=10", "min_documents=3", "draws=20", "label_tokens=50",
       "label_documents=5", "controls=[random]", "dense_probes=false")
CURVES = {"tiny/resid.1/jumprelu/4": "jumprelu width=96", "tiny/resid.1/topk/4": "topk width=96",
          "tiny/resid.1/topk,width=48/4": "topk width=48"}


def test_tables_have_the_variant_beside_the_architecture_and_are_read_by_curve(tmp_path):
    rows = pd.DataFrame({"path": ["a", "b"], "arch": ["topk width=48", "gated"], "variant": ["width=48", ""], "latent": [3, 4],
                         "control": None, "rule": [0.5, 0.6]})
    study_tables.write_scores(tmp_path, rows)
    text = pd.read_csv(tmp_path / study_tables.SCORES, keep_default_na=False)
    assert list(text.columns)[:4] == ["path", "arch", "variant", "sparsity"]
    assert text["arch"].tolist() == ["topk", "gated"] and text["variant"].tolist() == ["width=48", ""]
    again = study_tables.read(tmp_path / study_tables.SCORES)
    assert again["arch"].tolist() == rows["arch"].tolist() and study_tables.score_names(again) == ["rule"]
    study_tables.write_scores(tmp_path, again.assign(arch="topk", variant=""))
    assert "variant" not in (tmp_path / study_tables.SCORES).read_text()


def test_variants_are_compared_as_architectures_are_and_are_no_seeds():
    saes = [sae(f"topk width={width}", l0, rule=around(0.3 + 0.2 * (width > 50), 300, sd=0.05))
            for width in (48, 96) for l0 in (16.0, 32.0)]
    found = report(made(*saes), delta=0.05, primary=("rule",))
    assert [curve["arch"] for curve in found["places"][0]["scores"][0]["curves"]] == ["topk width=48", "topk width=96"]
    (answers, *_) = place_answers(found, found["places"][0]).values()
    assert "this topk width=96 is better than this topk width=48 at L0 16 by 0.200" in answers[0]


def test_a_control_is_that_of_saes_that_read_the_same_text():
    texts = Replicates(texts={"lm/resid.9/topk/32": "a", "lm/resid.9/topk,text=b/32": "b"})
    named = [sae("topk", 32.0, rule=around(0.5)), sae("topk,text=b", 32.0, rule=around(0.5))]
    controls = [sae(one["arch"], 32.0, rule=around(0.1), control="random") for one in named]
    assert made(*named, *controls, replicates=texts).beside == [{"random": 2}, {"random": 3}, {}, {}]
    assert made(*named, controls[0], replicates=texts).beside == [{"random": 2}, {}, {}]


def test_controls_have_a_folder_for_each_text_where_there_are_several():
    def job(text, width=96):
        model = {"name": "lm", "source": {"hub": "x"}, "bos": True, "dtype": "float32"}
        return Path("lm/resid.9"), {"model": model, "text": text, "context": 32, "stream_seed": 0, "width": width}

    assert places_of_controls([job("a"), job("a", 48)]) == [Path("lm/resid.9")] * 2
    first, other, same = places_of_controls([job("a"), job("b"), job("a", 48)])
    assert first == same != other and {first.parent, other.parent} == {Path("lm/resid.9")}


def test_a_row_of_the_page_has_the_control_of_its_width():
    beside = [Control(curve, "random", 32.0, value, np.nan, np.nan) for curve, value in (
        ("jumprelu width=48 warm_start=0", 0.1), ("jumprelu width=96 warm_start=0", 0.2))]
    assert _most_alike("topk width=96 lr=0.1", beside) == [0.2] and _most_alike("topk width=48", beside) == [0.1]
    assert _most_alike("topk", beside) == [0.1, 0.2] and _most_alike("topk", []) == []


def test_a_name_of_an_export_is_that_of_one_sae():
    like = made_pages.of_place(made_pages.texts(1), "topk", 4, 0)
    saes = [OfSAE(replace(like, path=path, variant=variant), pd.DataFrame(), made_pages.TOKENIZER)
            for path, variant in (("a", ""), ("b", "x=-1"), ("c", "x=1"))]
    found = [names.source for names in Names.of(saes, About(None, "me", "sweep", ""))]
    assert found == ["1-resid-sweep__topk-4", "1-resid-sweep__topk-x-1-4-3e23e816", "1-resid-sweep__topk-x-1-4-2e7d2c03"]


def test_ablations_of_variants_and_of_coefficients_are_not_pooled_as_seeds():
    def row(seed, variant="", coefficient=None, sparsity=4):
        value = {"fvu": replicates(np.ones(12), np.full(12, 10.0))}
        names = dict.fromkeys(ablated.GROUP, "a") | {
            "variant": variant, "sparsity": sparsity, "coefficient": coefficient, "seed": seed, "layer": 1, "ablated": "none",
            "set_to": "", "draw": 0, "path": f"{variant}{coefficient}{seed}"}
        return Row(names, dict.fromkeys(SHARES, 0.5), value, value)

    found = ablated.summary([row(0, "width=48"), row(1, "width=48"), row(0, "width=96")])
    assert found["seeds"].tolist() == [2, 1] and found["variant"].tolist() == ["width=48", "width=96"]
    assert "coefficient" not in found and "a width=48 4, 2 seeds" in ablation_text.text(found)
    found = ablated.summary([row(0, coefficient=0.1), row(1, coefficient=0.1, sparsity=5), row(0, coefficient=0.2)])
    assert found["seeds"].tolist() == [2, 1] and "variant" not in found
    assert "a 4, coefficient 0.1, 2 seeds" in ablation_text.text(found)
    assert list(ablated.summary([row(0)]).columns)[:6] == ["sweep", "model", "site", "layer", "arch", "sparsity"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A studied sweep over two architectures, of which one has a variant."""
    folder = tmp_path_factory.mktemp("variants")
    file = write_text(folder, documents=100)
    found = swept(swept(folder / "sweep", file), file, "width=48", archs=("topk",), named=",width=48")
    (found / "pareto.csv").touch()  # a report that the study makes anew
    assert run.run([found], asked(*FEW), RESOURCES).failed == {}
    return found


def curves_of(file: Path) -> dict[str, str]:
    df = pd.read_csv(file)
    return dict(zip(df["path"], df["arch"] + " " + df["variant"], strict=True))


@pytest.mark.slow
def test_every_table_and_page_of_a_study_names_curves_as_pareto_csv_does(sweep):
    for file in ("pareto.csv", "study/scores.csv", "study/summary.csv"):
        assert curves_of(sweep / file) == CURVES, file
    assert curves_of(sweep / "study/labels.csv").items() <= CURVES.items()
    (place,) = json.loads((sweep / "study/study.json").read_text())["places"]
    assert {curve["arch"] for block in place["scores"] for curve in block["curves"]} == {*CURVES.values()}
    page = (sweep / "study/study.html").read_text()
    assert all(f"{curve} at L0" in page and f">{curve} 4</a>" in page for curve in CURVES.values())
    assert "Latents of topk width=48 4" in (sweep / "study/features/topk,width=48/4/index.html").read_text()
    assert load(sweep / "tiny/resid.1/topk,width=48/4")._studied.title.startswith("topk width=48 4 (tiny")
    assert rate.of_sweep(sweep, rate_settings()).archs == CURVES


@pytest.mark.slow
def test_an_export_has_each_variant_once(sweep, tmp_path):
    saes = read.finished(sweep, logits=False)
    rows = [json.loads(line) for line in jsonl.write(saes, tmp_path).read_text().splitlines()]
    assert {row["path"]: f"{row['arch']} {row['variant']}" for row in rows} == CURVES and "variant" not in rows[0]["scores"]
    folders = neuronpedia.write(saes, tmp_path, About(None, "me", "sweep", ""))
    assert {folder.name for folder in folders} == {
        f"1-resid-sweep__{curve.replace(' ', '-').replace('=', '-')}-4" for curve in CURVES.values()}


@pytest.mark.slow
def test_an_sae_by_its_folder_has_its_name_in_its_sweep_alone(sweep, tmp_path):
    job = sweep / "tiny/resid.1/topk,width=48/4"
    away = shutil.copytree(job, tmp_path / "away", ignore=shutil.ignore_patterns("study"))
    assert [of_folder(one).variant for one in (job, away)] == ["width=48", ""]


@pytest.mark.slow
def test_an_ablation_has_each_variant_as_a_group(sweep, tmp_path):
    words = ["device=cpu", "threshold=0.05", "draws=1", "evaluation.lm_tokens=0"]
    found = ablate.run([sweep], ablation_settings(words), tmp_path, RESOURCES)
    assert curves_of(tmp_path / ablate.TABLE) == CURVES and (found.summary["seeds"] == 1).all()
    assert {*(found.summary["arch"] + " " + found.summary["variant"])} == {*CURVES.values()}


@pytest.mark.slow
@pytest.mark.usefixtures("without_type_checks")
def test_a_second_study_writes_only_the_pages_that_are_not_there(sweep, monkeypatch, tmp_path):
    (sweep / "pareto.csv").rename(tmp_path / "pareto.csv")  # there is no report to make anew
    features = sweep / "study/features"

    def times() -> dict[str, int]:
        return {file.parent.parent.name + "/" + file.name: file.stat().st_mtime_ns for file in features.glob("*/*/*.html")}

    before, content = times(), {file: file.read_text() for file in features.rglob("*.html")}
    (features / "gone/4").mkdir(parents=True)
    next(features.glob("topk/4/[0-9]*.html")).unlink()
    completed, complete = [], Completion.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Completion, "__call__", lambda self, sae: completed.append(sae.collected.path) or complete(self, sae))
        run.run([sweep], asked(*FEW), RESOURCES)
    changed = {name.split("/")[0] for name, time in times().items() if time != before[name]}
    assert changed == {"topk"} and content == {file: file.read_text() for file in features.rglob("*.html")}
    assert completed == ["tiny/resid.1/topk/4"] and not (features / "gone").exists()
    run.run([sweep], asked(*FEW, "logits=false"), RESOURCES)
    assert not {*times().values()} & {*before.values()}
    assert not any("<h2>Logits</h2>" in file.read_text() for file in features.glob("*/*/*.html"))
    (tmp_path / "pareto.csv").rename(sweep / "pareto.csv")
