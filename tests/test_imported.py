"""Measuring SAEs that others have trained: the same numbers as ours get, the folder of an SAE, and how a report shows it."""
import json
import shutil
import sys
from pathlib import Path

import chromium
import pandas as pd
import pytest
import torch
from imported_files import dictionary, gemma_scope, linear, of, saelens
from imported_files import numbers as small
from omegaconf import OmegaConf
from safetensors.torch import load_file
from small import RESOURCES, write_text
from studied import asked, swept, trained_on_dictionary  # noqa: F401 fixture

import saesweep
from saesweep.config.settings import own_settings
from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.imported import __main__ as command
from saesweep.imported import run
from saesweep.imported.run import Options
from saesweep.report import page, pareto
from saesweep.report.style import arch_styles
from saesweep.storage import files, study_tables, sweep_table
from saesweep.storage.variants import flat_settings, of_flat
from saesweep.study import run as study_run
from saesweep.study.ablation import run as ablate
from saesweep.study.ablation.settings import settings as ablation_settings
from saesweep.sweep.job_record import _beside
from saesweep.sweep.jobs import Job

pytestmark = pytest.mark.slow
METRICS = ("l0", "fvu", "mse", "cosine", "delta_loss", "loss_recovered", "frequency_over_1pct", "ce_zero", "sinks")
PLACE = Path("tiny/resid.1")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A finished sweep of three architectures at one hook point; no test changes it."""
    folder = tmp_path_factory.mktemp("three")
    file = write_text(folder, documents=100)
    return swept(folder / "sweep", file, "evaluation.lm_tokens=256", archs=("jumprelu", "topk", "gated"))


@pytest.fixture
def sweep(three, tmp_path):
    return Path(shutil.copytree(three, tmp_path / "sweep"))


def evaluate(sweep: Path, *sources: Path | str, **more) -> list:
    return run.run([str(source) for source in sources], Options(sweep / PLACE, device="cpu", **more), RESOURCES)


def own(sweep: Path, arch: str) -> Path:
    return sweep / PLACE / arch / "4"


def numbers(folder: Path) -> dict:
    return json.loads((folder / files.NUMBERS).read_text())


def test_our_own_saes_get_their_own_numbers_again(sweep):
    """Bit for bit; a Gated SAE, which is measured as the JumpReLU that it is, up to rounding."""
    for arch in ("jumprelu", "topk", "gated"):
        (ended,) = evaluate(sweep, own(sweep, arch) / "sae")
        then, now = numbers(own(sweep, arch)), numbers(ended.folder)
        exact = arch != "gated"
        assert then["delta_loss"] is not None
        for key in METRICS:
            assert now[key] == (then[key] if exact else pytest.approx(then[key], rel=1e-6)), (arch, key)
        for file in (files.DOCUMENTS, files.FREQUENCY):
            tables = [pd.read_csv(folder / file) for folder in (own(sweep, arch), ended.folder)]
            pd.testing.assert_frame_equal(*tables, check_exact=exact, **({} if exact else {"rtol": 1e-6, "check_dtype": False}))
        assert now["dead"] is None and now["coefficient"] is None and now["tokens"] is None
        before, after = (saesweep.load(folder) for folder in (own(sweep, arch), ended.folder))
        x = torch.randn(50, before.d_in)
        torch.testing.assert_close(after(x), before(x), rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5)


def test_one_call_for_several_gives_the_bits_of_a_call_for_each(sweep, tmp_path):
    sources = [own(sweep, arch) for arch in ("jumprelu", "topk", "gated")]
    together = evaluate(sweep, *sources, out=tmp_path / "together")
    alone = [one for source in sources for one in evaluate(sweep, source, out=tmp_path / "alone")]
    for a, b in zip(together, alone, strict=True):
        assert a.folder.relative_to(tmp_path / "together") == b.folder.relative_to(tmp_path / "alone")
        for file in (files.NUMBERS, files.DOCUMENTS, files.FREQUENCY, files.WEIGHTS, files.STATISTICS, "sae/cfg.json"):
            assert (a.folder / file).read_bytes() == (b.folder / file).read_bytes()


def shaped_like_gemma_scope(sweep: Path, folder: Path) -> Path:
    """Our JumpReLU without a bias before the encoder, and with rows of another norm."""
    n = load_file(own(sweep, "jumprelu") / files.WEIGHTS)
    n["b_enc"] = (n["b_enc"].double() - n["b_dec"].double() @ n["W_enc"].double()).float()
    scale = torch.linspace(0.5, 2, len(n["b_enc"]))
    n |= {"W_enc": n["W_enc"] / scale, "b_enc": n["b_enc"] / scale, "threshold": n["threshold"] / scale,
          "W_dec": n["W_dec"] * scale[:, None]}
    return gemma_scope(folder / "google/gemma-scope-2-1b-pt/resid_post/layer_1_width_96_l0_small", n, True)


def test_other_units_of_the_latents_change_no_number_beyond_rounding(sweep, tmp_path):
    (ended,) = evaluate(sweep, shaped_like_gemma_scope(sweep, tmp_path), any_name=True)
    then, now = numbers(own(sweep, "jumprelu")), numbers(ended.folder)
    assert now == {**then, **{key: pytest.approx(then[key], rel=1e-3) for key in then if isinstance(then[key], float)},
                   "dead": None, "coefficient": None, "tokens": None, "unique_tokens": None}
    assert now["fvu"] == pytest.approx(then["fvu"], rel=1e-5)


def test_the_folder_is_that_of_an_sae_of_ours(sweep):
    (ended,) = evaluate(sweep, own(sweep, "topk"), tokens=4_000_000)
    assert ended.folder.parent == sweep / PLACE / "saelens_topk" and ended.folder.name.startswith("topk-4-")
    sae = saesweep.load(ended.folder)
    assert sae.config["sparsity"] == 4 and sae.config["arch"]["imported"]["tokens"] == 4_000_000 == sae.metrics["tokens"]
    assert type(sae).__mro__[1].__name__ == "ImportedTopK" and sae.config["arch"]["imported"]["trained_by"] == "saesweep"
    cfg = json.loads((ended.folder / "sae/cfg.json").read_text())
    assert cfg["k"] == 4 and cfg["metadata"]["num_dead_features"] is None and cfg["metadata"]["dataset_path"] is None
    assert cfg["metadata"]["imported_from"].endswith("topk/4/sae/sae_weights.safetensors")
    with pytest.raises(NotImplementedError, match="an imported SAE is measured, not trained"):
        sae.step(torch.zeros(2, sae.d_in), torch.zeros(()), 0.5)
    lm = saesweep.language_model(sae)
    with saesweep.splice(lm, sae):
        lm.module(input_ids=torch.tensor([[1, 5, 6]]))


def test_the_target_of_an_sae_with_thresholds_is_its_measured_l0(sweep):
    (ended,) = evaluate(sweep, own(sweep, "jumprelu"))
    assert files.settings(ended.folder)["sparsity"] == round(ended.metrics["l0"])


def test_what_is_there_is_skipped_and_replaced_only_when_it_is_asked_for(sweep, capsys, tmp_path):
    source = shutil.copytree(own(sweep, "topk") / "sae", tmp_path / "theirs")
    (first,) = evaluate(sweep, source)
    written = (first.folder / files.NUMBERS).stat().st_mtime_ns
    (again,) = evaluate(sweep, source)
    assert again == (first.folder, None, None) and (first.folder / files.NUMBERS).stat().st_mtime_ns == written
    with pytest.raises(UsageError, match=r"(?s)with other settings or files; write --overwrite.*tokens: null there, 7 here"):
        evaluate(sweep, source, tokens=7)
    shutil.copy(own(sweep, "gated") / files.WEIGHTS, source / "sae_weights.safetensors")
    shutil.copy(own(sweep, "gated") / "sae/cfg.json", source / "cfg.json")
    (other,) = evaluate(sweep, source)
    assert other.folder.parent.name == "saelens_gated"
    (replaced,) = evaluate(sweep, own(sweep, "topk"), tokens=7)
    (replaced,) = evaluate(sweep, own(sweep, "topk"), tokens=8, overwrite=True)
    assert numbers(replaced.folder)["tokens"] == 8


@pytest.mark.parametrize("more, line", [
    ({"name": "topk"}, "--name topk: is an architecture of"),
    ({"name": "a/b"}, "--name=a/b: is the name of a folder"),
])
def test_a_name_that_cannot_be_that_of_the_curve_is_refused(more, line, sweep):
    with pytest.raises(UsageError, match=line):
        evaluate(sweep, own(sweep, "topk"), **more)


def test_an_sae_of_another_width_or_model_is_refused_before_the_model_is_loaded(sweep, tmp_path):
    class NoModel(Resources):
        def language_model(self, job):
            raise AssertionError("no model is needed")

    theirs = saelens(tmp_path / "x", of(small(), "b_enc"))
    with pytest.raises(UsageError, match=r"it reads 6 values per token, and model.layers.1.output of tiny has 48; give --like"):
        run.run([str(theirs)], Options(sweep / PLACE, any_name=True), NoModel())
    with pytest.raises(UsageError, match=r"it is of the model gemma-3-270m, and --like of tiny; give --like another"):
        run.run([str(theirs)], Options(sweep / PLACE), NoModel())


def test_like_must_be_a_hook_point_with_a_finished_sae_of_a_language_model(sweep, trained_on_dictionary, tmp_path):  # noqa: F811
    with pytest.raises(UsageError, match=r"--like .*: holds no finished SAE that was trained here; give the folder of a hook"):
        run.run(["x"], Options(tmp_path), RESOURCES)
    with pytest.raises(UsageError, match="model=synthetic is a known dictionary; give a hook point of a language model"):
        run.run(["x"], Options(trained_on_dictionary / "synthetic/resid.0"), RESOURCES)
    file = own(sweep, "topk") / files.RESOLVED
    file.write_text(file.read_text().replace("lm_tokens: 256", "lm_tokens: 128"))
    with pytest.raises(UsageError, match="its SAEs were measured on 2 different texts; give one of them"):
        run.run(["x"], Options(sweep / PLACE), RESOURCES)
    (ended,) = run.run([str(own(sweep, "gated"))], Options(own(sweep, "gated"), device="cpu"), RESOURCES)
    assert ended.folder.is_relative_to(sweep)


def test_a_changed_text_is_refused(sweep):
    file = own(sweep, "gated") / "determined_by.json"
    then = json.loads(file.read_text())
    then["text"]["digest"] = "another"
    file.write_text(json.dumps(then))
    with pytest.raises(UsageError, match="was trained on other text or weights of the same name"):
        evaluate(sweep, own(sweep, "topk"))


def test_an_sae_that_cannot_be_measured_leaves_the_others(sweep, tmp_path):
    n = load_file(own(sweep, "topk") / files.WEIGHTS)
    n["W_enc"] = n["W_enc"] * 1e38
    n["W_dec"] = n["W_dec"] * 1e30
    bad = dictionary(tmp_path / "bad", "AutoEncoderTopK", linear(n) | {"encoder.bias": n["b_enc"], "b_dec": n["b_dec"]}, k=4)
    failed, good = evaluate(sweep, bad, own(sweep, "topk"), any_name=True)
    assert failed.problem and failed.metrics is None and not failed.folder.exists()
    assert good.metrics and numbers(good.folder)["fvu"] == numbers(own(sweep, "topk"))["fvu"]


# The report

@pytest.fixture(scope="module")
def charted(three, tmp_path_factory):
    """The sweep with two points of others on one curve, and one on another; no test changes it."""
    folder = tmp_path_factory.mktemp("charted")
    sweep = Path(shutil.copytree(three, folder / "sweep"))
    evaluate(sweep, shaped_like_gemma_scope(sweep, folder), any_name=True, tokens=4_000_000_000)
    evaluate(sweep, own(sweep, "topk"), own(sweep, "jumprelu"), name="theirs")
    return sweep


def test_a_column_says_who_has_trained_them_where_there_are_any(charted, three):
    df = sweep_table.table(charted)
    assert list(df.columns)[3:5] == ["arch", "trained_by"] and "trained_by" not in sweep_table.table(three)
    by = df.set_index("path")["trained_by"]
    assert by.notna().sum() == 3 and set(by.dropna()) == {"Gemma Scope 2", "saesweep"}
    own_rows = df.loc[df["trained_by"].isna()].drop(columns="trained_by").reset_index(drop=True)
    pd.testing.assert_frame_equal(own_rows, sweep_table.table(three), check_dtype=False)


def test_they_are_in_no_comparison_no_mean_and_on_no_front(charted, three):
    assert pareto.report([charted]).comparison == pareto.report([three]).comparison
    text = pareto.text(pareto.report([charted]))
    assert "Rows with `trained_by` are SAEs that others have trained" in text
    (line,) = (line for line in text.splitlines() if line.startswith("gemma_scope_2"))
    assert line.split()[1:5] == ["Gemma", "Scope", "2", "4,000,000,000"]
    assert "trained_by" not in pareto.text(pareto.report([three]))


def test_the_files_of_a_report_have_them_as_hollow_points(charted, tmp_path):
    made = pareto.report([charted], tmp_path)
    written = {file.name: file for file in pareto.write(made, tmp_path)}
    df = pd.read_csv(written["pareto.csv"])
    assert df.loc[df["arch"] == "gemma_scope_2", "tokens"].tolist() == [4_000_000_000]
    assert ",4000000000," in written["pareto.csv"].read_text()
    svg = written["pareto.svg"].read_text()
    assert svg.count("gemma_scope_2") == 1 and "theirs" in svg
    html = written["pareto.html"].read_text()
    assert "Hollow points are SAEs that others have trained, measured on the same held-out tokens." in html
    data = page._data(made.df, made.comparison, made.details)
    assert [arch[0] for arch in data["archs"] if arch[4]] == ["gemma_scope_2", "theirs"]
    drawn = {line["arch"] for lines in data["lines"].values() for line in lines[0]}
    assert drawn == {"jumprelu", "topk", "gated"}
    (command_,) = {d.command for d, arch in zip(made.details, made.df["arch"], strict=True) if arch == "gemma_scope_2"}
    assert command_.startswith("saesweep evaluate ") and "--tokens 4000000000 --any-name" in command_


def test_the_width_tells_those_of_a_curve_apart_and_no_setting_those_of_the_sweep(charted):
    flat = [sweep_table._settings(job) for job in sweep_table.jobs(charted)]
    others = [job for job in flat if "arch.imported.source" in job]
    assert {*map(str, of_flat(flat))} == {"{}"}
    wider = [job | {"width": 192} if job["arch.name"] == "gemma_scope_2" else job for job in others]
    same = [job | {"arch.name": "theirs"} for job in wider]
    assert of_flat([*(job for job in flat if job not in others), *same]).count({}) == 3
    assert [pairs["width"] for pairs in of_flat(same)] == ["192", "96", "96"]


def test_what_others_call_the_model_does_not_identify_an_sae(three):
    config = files.settings(own(three, "topk"))
    named = config | {"model": config["model"] | {"hub_name": "someone/tiny"}}
    assert own_settings(named) == own_settings(config) and flat_settings(named) == flat_settings(config)


def test_their_styles_leave_those_of_the_others_as_they_are():
    alone, beside = arch_styles(["mine", "topk"]), arch_styles(["a", "mine", "topk", "zzz"], {"a", "zzz"})
    assert {name: beside[name] for name in alone} == alone and list(beside) == ["topk", "mine", "a", "zzz"]
    assert [one.hollow for one in beside.values()] == [False, False, True, True]


def test_a_sweep_of_others_alone_is_drawn_too(three, tmp_path):
    evaluate(three, own(three, "topk"), out=tmp_path / "theirs")
    made = pareto.report([tmp_path / "theirs"])
    written = pareto.write(made, tmp_path / "theirs")
    assert made.comparison["comparisons"] == 0 and made.comparison["places"][0]["metrics"]["fvu"]["curves"] == []
    assert b"saelens_topk" in next(file for file in written if file.name == "pareto.svg").read_bytes()
    assert "SAEs that others have trained" in pareto.text(made)


@pytest.mark.browser
def test_the_page_draws_them_hollow_and_says_how_long_they_were_trained(charted, tmp_path):
    made = pareto.report([charted], charted)
    file = tmp_path / "pareto.html"
    file.write_text(page.html(*made), encoding="utf-8")
    with chromium.browser() as browser:
        browser.open(file)
        hollow = browser.all("#panels section:first-child path.mark[fill-opacity='0']")
        assert len(hollow) == 3 and len(browser.all("#panels section:first-child path.line")) == 3
        assert len(browser.all("#controls path.mark[fill-opacity='0']")) == 2
        at = int(made.df.index[made.df["arch"] == "gemma_scope_2"][0])
        browser.run(f"open({at}, document.querySelector('[data-sae=\"{at}\"].point'))")
        shown = browser.one("#detail-body").text
        assert "saesweep evaluate" in shown and "4000000000" in shown and "Gemma Scope 2" in shown
        assert browser.read_logs().console == []


def test_a_sweep_with_them_goes_on(charted):
    """The same command finds its own SAEs finished, and further ones are not compared with the settings of theirs."""
    job = Job(OmegaConf.create({}), charted / PLACE / "topk/8", charted)
    job.__dict__["settings"] = files.settings(own(charted, "topk")) | {"sparsity": 8}
    assert _beside([job]) == []


def test_a_study_scores_them_and_compares_them_with_none(charted, tmp_path):
    sweep = Path(shutil.copytree(charted, tmp_path / "sweep"))
    study_run.run([sweep], asked("tokens=4000", "min_fires=10", "min_documents=3", "controls=[]"))
    found = study_tables.read(sweep / "study/summary.csv")
    others = found.loc[found["arch"].isin(["gemma_scope_2", "theirs"]) & found["control"].isna()]
    assert others["path"].nunique() == 3 and others["uniform"].notna().any()
    compared = json.loads((sweep / "study/study.json").read_text())
    curves = {curve["arch"] for place in compared["places"] for block in place["scores"] for curve in block["curves"]}
    assert curves == {"jumprelu", "topk", "gated"}
    page_of = (sweep / "study/study.html").read_text()
    assert "gemma_scope_2" in page_of and all((sweep / path / "study").is_dir() for path in others["path"])
    assert (saesweep.study(sweep)["arch"] == "theirs").sum() == 2
    ablate.run([own(sweep, "topk").parents[1] / "theirs" / one.name for one in (sweep / PLACE / "theirs").iterdir()],
               ablation_settings(["draws=1", "lm_draws=0", "device=cpu"]), tmp_path, RESOURCES)


# The command

def test_the_command_says_what_it_has_measured(sweep, monkeypatch, capsys):
    monkeypatch.setattr(run, "Resources", lambda: RESOURCES)
    words = ["saesweep evaluate", str(own(sweep, "topk")), "--like", str(sweep / PLACE), "--tokens", "5e6", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", words)
    command.main()
    out = capsys.readouterr().out
    assert "l0 4, fvu " in out and f"saesweep pareto {sweep} draws them" in out
    command.main()
    assert "was measured before" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words[:1], "nowhere", *words[2:4]])
    with pytest.raises(SystemExit, match=r"^nowhere: there is no such file or folder"):
        command.main()
