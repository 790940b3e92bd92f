"""The report of sweeps, on hand-made folders: table, answer, figures, files."""

import json
import math
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import warm
from standin.cli import ENV, ROOT

from saesweep.errors import UsageError
from saesweep.report import figures, pareto, style, wording
from saesweep.storage import sweep_table
from saesweep.storage.files import job_name

NUMBERS = {"d_in": 640, "d_sae": 4096, "tokens": 300_032, "coefficient": 0.000123, "l0": 32.0, "fvu": 0.1, "mse": 0.1,
           "cosine": 0.95, "relative_reconstruction_bias": 0.99, "ce_clean": 2.5, "ce_sae": 2.75, "ce_zero": 9.0,
           "ce_mean": 8.0, "delta_loss": 0.25, "loss_recovered": 0.96, "dead": 0.01, "frequency_over_1pct": 0.2,
           "frequency_over_10pct": 0.02, "firings_over_10pct": 0.4, "frequency_max": 0.6, "frequency_of_firings": 0.1,
           "sinks": 12}


FILES = {"pareto.csv", "pareto.json", "pareto.html", "pareto.png", "pareto.svg"}
FIGURES = {"frequency.png", "frequency.svg"}


def written(sweep):
    found = pareto.report([sweep])
    pareto.write(found, sweep)
    return found.df


def job(sweep, arch="topk", sparsity=32, seed=0, site="resid", layer=9, model="lm", fixed=None, **numbers):
    folder = sweep / model / f"{site}.{layer}" / arch / job_name(sparsity, fixed, seed)
    (folder / ".hydra").mkdir(parents=True)
    arch_node = {"name": arch} | ({} if fixed is None else {"coefficient": fixed})
    (folder / ".hydra" / "config.yaml").write_text(
        f"name: x\nseed: {seed}\nlayer: ${{model.layer}}\nsparsity: {sparsity}\n"
        f"model: {{name: {model}, layer: {layer}}}\nsite: {{name: {site}}}\n"
        f"arch: {json.dumps(arch_node)}\n"
    )
    (folder / "eval.json").write_text(json.dumps({**NUMBERS, "l0": float(sparsity), **numbers}))
    return folder


def front(sweep):
    df = sweep_table.table(sweep)
    return set(df.loc[df["on_front"], "path"].str.split("/", n=2).str[2])


def of_nine(folder):
    for arch, factor in {"jumprelu": 0.98, "gated": 1.1, "topk": 1.0}.items():
        for sparsity, fvu in {16: 0.15, 32: 0.12, 64: 0.1}.items():
            job(folder, arch, sparsity, fvu=fvu * factor, delta_loss=fvu, coefficient=None if arch == "topk" else 0.1)
    return folder


@pytest.fixture
def nine(tmp_path):
    return of_nine(tmp_path)


@pytest.fixture(scope="module")
def written_nine(tmp_path_factory):
    """With its report, and the table of that; no test changes it."""
    folder = of_nine(tmp_path_factory.mktemp("nine"))
    return folder, written(folder)


def test_the_csv_has_exactly_these_columns_in_this_order(written_nine):
    header = (written_nine[0] / "pareto.csv").read_text().splitlines()[0]
    assert header == (
        "model,site,layer,arch,sparsity,seed,d_in,d_sae,tokens,unique_tokens,coefficient,l0,fvu,mse,cosine,"
        "relative_reconstruction_bias,ce_clean,ce_sae,ce_zero,ce_mean,delta_loss,loss_recovered,dead,frequency_over_1pct,frequency_over_10pct,"
        "firings_over_10pct,frequency_max,frequency_of_firings,recovery,parent_silent_with_child,"
        "parent_silent_alone,sinks,state,on_front,path"
    )


def test_a_row_has_the_values_of_eval_json_and_the_config(tmp_path):
    job(tmp_path, "gated", 16, seed=3, site="mlp", layer=4, fvu=0.123456789012345)
    row = sweep_table.table(tmp_path).iloc[0].to_dict()
    for key in ("recovery", "parent_silent_with_child", "parent_silent_alone"):
        assert math.isnan(row.pop(key))  # only model=synthetic has a known dictionary
    expected = {**NUMBERS, "l0": 16.0, "fvu": 0.123456789012345, "model": "lm", "site": "mlp", "layer": 4,
                "arch": "gated", "sparsity": 16, "seed": 3, "unique_tokens": NUMBERS["tokens"], "state": "finished",
                "on_front": True, "path": "lm/mlp.4/gated/16.3"}
    assert row == expected


def test_the_csv_reads_back_as_the_same_numbers(written_nine):
    folder, df = written_nine
    pd.testing.assert_frame_equal(pd.read_csv(folder / "pareto.csv"), df, rtol=1e-15, atol=0, check_dtype=False)


def test_saes_with_fixed_coefficients_have_a_coefficient_instead_of_a_target(nine, capsys):
    for fixed, l0 in {0.004: 12.0, 0.001: 50.0}.items():
        job(nine, "relu", fixed=fixed, l0=l0, coefficient=fixed, fvu=0.3)
    unfinished = nine / "lm/resid.9/relu/coefficient_0.001"
    (unfinished / "eval.json").unlink()
    (unfinished / ".hydra/config.yaml").rename(unfinished / ".hydra/resolved.yaml")
    df = written(nine)
    header, *rows = [line.split(",") for line in (nine / "pareto.csv").read_text().splitlines()]
    keys = [tuple(row[header.index(key)] for key in ("arch", "sparsity", "coefficient", "path")) for row in rows]
    assert keys[0][:2] == ("gated", "16")
    assert keys[-2:] == [("relu", "", c, f"lm/resid.9/relu/coefficient_{c}") for c in ("0.001", "0.004")]
    lines = pareto.table(df).splitlines()
    assert lines[-1].split()[:4] == ["relu", "-", "0.004", "12.00"] and "coefficient" in lines[0]
    assert "coefficient" not in pareto.table(df[df["arch"] == "topk"])


def test_the_recovery_of_a_known_dictionary_is_in_the_table_the_csv_and_the_page(tmp_path):
    job(tmp_path, "topk", 16)
    assert "recovery" not in pareto.table(sweep_table.table(tmp_path))
    job(tmp_path, "gated", 16, recovery=0.9375)
    df = written(tmp_path)
    assert "0.938" in pareto.table(df) and pd.read_csv(tmp_path / "pareto.csv")["recovery"].tolist()[0] == 0.9375
    page = (tmp_path / "pareto.html").read_text()
    assert "Recovery of the known directions" in page and "0.9375" in page


def test_a_point_with_more_latents_and_more_error_is_dominated(tmp_path):
    job(tmp_path, "topk", 16, fvu=0.2)
    job(tmp_path, "topk", 32, fvu=0.1)
    job(tmp_path, "gated", 64, fvu=0.15)
    assert front(tmp_path) == {"topk/16", "topk/32"}


def test_equal_error_with_more_latents_is_dominated_and_so_is_equal_l0_with_more_error(tmp_path):
    job(tmp_path, "topk", 16, fvu=0.2)
    job(tmp_path, "gated", 32, fvu=0.2)
    job(tmp_path, "relu", 17, l0=16.0, fvu=0.25)
    assert front(tmp_path) == {"topk/16"}


def test_two_equal_points_are_both_on_the_front(tmp_path):
    job(tmp_path, "topk", 16, fvu=0.2)
    job(tmp_path, "gated", 16, fvu=0.2)
    assert front(tmp_path) == {"topk/16", "gated/16"}


def test_each_model_site_and_layer_has_its_own_front(tmp_path):
    job(tmp_path, fvu=0.1)
    for other in ({"site": "mlp"}, {"layer": 5}, {"model": "other"}):
        job(tmp_path, fvu=0.9, **other)
    assert sweep_table.table(tmp_path)["on_front"].all()


def test_a_failed_sae_is_not_on_the_front_and_dominates_no_other(tmp_path):
    job(tmp_path, "topk", 32, fvu=0.1)
    job(tmp_path, "gated", 16, fvu=None)
    job(tmp_path, "relu", 8, l0=math.nan, fvu=0.01)
    assert front(tmp_path) == {"topk/32"}
    line = next(line for line in pareto.table(pareto.report([tmp_path]).df).splitlines() if line.startswith("gated"))
    assert line.split() == ["gated", "16", "16.00", "-", "0.2500", "0.9600", "0.010"]


def test_a_single_sae_has_a_complete_report(tmp_path):
    job(tmp_path)
    assert written(tmp_path)["on_front"].tolist() == [True]
    assert {file.name for file in tmp_path.iterdir()} == {"lm", *FILES}


def test_an_empty_sweep_has_a_header_and_the_text_no_saes(tmp_path):
    df = written(tmp_path)
    assert list(df.columns) == sweep_table.COLUMNS and pareto.table(df) == "no SAEs"
    assert (tmp_path / "pareto.csv").read_text() == ",".join(sweep_table.COLUMNS) + "\n"


def test_a_sweep_without_a_language_model_has_no_loss_row(tmp_path):
    job(tmp_path, **dict.fromkeys(["ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered"]))
    found = pareto.report([tmp_path])
    assert list(found.comparison["places"][0]["metrics"]) == ["fvu"] and math.isnan(found.df["delta_loss"][0])
    assert b"Delta loss" not in figures.pareto(found.df, found.comparison)["svg"]


def test_other_files_and_jobs_that_have_not_started_are_ignored(tmp_path):
    job(tmp_path, "topk")
    (job(tmp_path, "gated") / "eval.json").unlink()
    stray = tmp_path / "a" / "b" / "c" / "d"
    stray.mkdir(parents=True)
    (stray / "eval.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    assert sweep_table.table(tmp_path)["path"].tolist() == ["lm/resid.9/topk/32"]


@pytest.mark.parametrize("content", ["{", "{}", '{"l0": 3}'])
def test_a_damaged_eval_json_is_refused_with_the_fix(tmp_path, content):
    (job(tmp_path) / "eval.json").write_text(content)
    with pytest.raises(UsageError, match=r"eval\.json .*delete the file and run the sweep again"):
        sweep_table.table(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        pareto.report([tmp_path / "nowhere"])


def test_the_table_is_sorted_by_hook_point_sparsity_architecture_and_marks_the_front(nine):
    job(nine, "topk", 8, site="mlp", fvu=0.3)
    lines = pareto.table(sweep_table.table(nine)).splitlines()
    assert lines[0].split() == ["arch", "sparsity", "l0", "fvu", "delta_loss", "loss_recovered", "dead", "front"]
    assert lines[1:5] == ["", "lm mlp.9", lines[3], ""] and lines[3].split()[:2] == ["topk", "8"]
    assert [line.split()[:2] for line in lines[6:9]] == [["gated", "16"], ["jumprelu", "16"], ["topk", "16"]]
    assert [line.endswith("*") for line in lines[6:9]] == [False, True, False]
    assert len({line.index(".") for line in lines[6:]}) == 1, "the decimal points are aligned"


def test_the_table_has_a_column_of_seeds_if_there_are_several(tmp_path):
    job(tmp_path)
    job(tmp_path, seed=1)
    assert "seed" in pareto.table(sweep_table.table(tmp_path)).splitlines()[0].split()


def test_known_architectures_have_a_fixed_style_and_new_ones_a_style_of_their_own():
    alone, together = style.arch_styles(["topk"]), style.arch_styles(["mine", "topk", "gated", "yours"])
    assert alone["topk"] == together["topk"] and len(set(together.values())) == 4


@pytest.mark.parametrize(
    ("l0", "expected"), [((16, 64), [16, 32, 64]), ((32, 32), [32]), ((23, 24), [32]), ((1, 4), [1, 2, 4])]
)
def test_the_l0_axis_has_ticks_at_powers_of_two_and_at_least_one(l0, expected):
    assert style.l0_ticks(*style.l0_limits(pd.Series(l0, dtype=float))) == expected


def test_a_wide_l0_axis_has_at_most_7_ticks():
    assert len(style.l0_ticks(1.0, 100_000.0)) <= 7


def texts(**sums):
    """documents.csv of 12 documents of two kinds."""
    both = {"tokens": [100.0, 300.0], "variance": [50.0, 90.0], **sums}
    return pd.DataFrame({key: values * 6 for key, values in both.items()}).to_csv(index_label="document")


def measure(folder, error=(5.0, 9.0)):
    """Writes the other files of an evaluation and the overrides of the job."""
    l0 = json.loads((folder / "eval.json").read_text())["l0"]
    (folder / "documents.csv").write_text(texts(active=[100 * l0, 300 * l0], error=list(error)))
    (folder / "frequency.csv").write_text("latent,frequency\n0,0.5\n1,0.001\n2,0.0\n")
    (folder / ".hydra" / "overrides.yaml").write_text("- arch=topk\n- text.glob=my files/*.txt\n")
    (folder / "metrics.csv").write_text("tokens,l0,fvu\n512,30.0,0.5\n1024,31.0,0.4\n15")
    return folder


# Unfinished SAEs


def test_failed_and_unfinished_saes_are_rows_with_tokens_and_without_metrics(tmp_path):
    measure(job(tmp_path, "topk", fvu=0.1))
    failed, running = measure(job(tmp_path, "gated", fvu=0.01)), measure(job(tmp_path, "relu", fvu=0.01))
    for folder in (failed, running):
        (folder / "eval.json").unlink()
        (folder / ".hydra" / "config.yaml").rename(folder / ".hydra" / "resolved.yaml")
    (failed / "failed.txt").write_text("fvu not finite after 1,024 tokens\n")
    df = written(tmp_path).set_index("arch")
    assert df["state"].to_dict() == {"gated": "failed", "relu": "unfinished", "topk": "finished"}
    assert df.loc[["gated", "relu"], "fvu"].isna().all() and df["tokens"].tolist() == [1024, 1024, 300_032]
    assert df["on_front"].tolist() == [False, False, True]
    found = json.loads((tmp_path / "pareto.json").read_text())
    assert found["failed"] == [{"path": "lm/resid.9/gated/32", "reason": "fvu not finite after 1,024 tokens"}]
    assert found["unfinished"] == [{"path": "lm/resid.9/relu/32", "tokens": 1024}]
    lines = [line.split() for line in pareto.table(df.reset_index()).splitlines()]
    assert ["gated", "32", "-", "-", "-", "-", "-", "failed"] in lines and lines[-2][-1] == "unfinished"


def test_the_details_are_command_settings_curve_and_firing_rates(tmp_path):
    found = sweep_table.details(measure(job(tmp_path, "topk", 16)))
    assert found.command == "python train.py arch=topk 'text.glob=my files/*.txt'"
    assert found.config == {"name": "x", "seed": 0, "layer": 9, "sparsity": 16, "model.name": "lm", "model.layer": 9,
                            "site.name": "resid", "arch.name": "topk"}
    assert found.curve.to_dict("list") == {"tokens": [512, 1024], "l0": [30, 31], "fvu": [0.5, 0.4]}, "no incomplete row"
    assert found.rates.tolist() == [0.5, 0.001, 0.0] and found.wandb is found.reason is None


# Several sweeps


def test_an_architecture_in_two_sweeps_is_two_curves(tmp_path):
    for name, archs in {"a": ("topk", "gated"), "b": ("topk",)}.items():
        for arch in archs:
            for sparsity in (16, 64):
                job(tmp_path / name, arch, sparsity, fvu={"a": 0.1, "b": 0.08}[name])
    found = pareto.report([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert set(found.df["arch"]) == {"gated", "topk (a)", "topk (b)"}
    assert [one.config["model.name"] for one in found.details] == ["lm"] * 6
    words = pareto.text(found)
    assert "this topk (b) has no interval against this topk (a) at 16 (20.0%), 64 (20.0%)" in words.replace("\n", " ")
    assert found.name == "a, b"


def test_settings_that_differ_within_an_architecture_make_curves_of_their_own(tmp_path):
    for arch, width in (("topk", 512), ("topk", 4096), ("gated", 4096)):
        folder = job(tmp_path, f"{arch},{width}", fvu=0.1 * (1 + (width == 512)), d_sae=width)
        config = folder / ".hydra/config.yaml"
        config.write_text(config.read_text().replace(f"{arch},{width}", arch) + f"width: {width}\n")
    found = pareto.report([tmp_path])
    assert list(found.df["arch"]) == ["gated width=4096", "topk width=512", "topk width=4096"]
    assert "this topk width=512 has no interval against this topk width=4096 at 32 (-100.0%)" in pareto.text(found)
    pareto.write(found, tmp_path)
    df = pd.read_csv(tmp_path / "pareto.csv")
    assert list(df["arch"]) == ["gated", "topk", "topk"] and list(df["variant"]) == ["width=4096", "width=512", "width=4096"]
    assert [key for key in df.columns if key != "variant"] == sweep_table.COLUMNS


def test_sweeps_on_different_text_are_shown_together_but_not_compared(tmp_path):
    for name, more in {"a": 0.0, "b": 1.0}.items():
        measure(job(tmp_path / name), error=(5.0, 9.0 + more))
    frame = pd.read_csv(tmp_path / "b/lm/resid.9/topk/32/documents.csv").assign(tokens=lambda df: df["tokens"] + 1)
    frame.to_csv(tmp_path / "b/lm/resid.9/topk/32/documents.csv", index=False)
    text = pareto.text(pareto.report([tmp_path / "a", tmp_path / "b"], tmp_path / "both"))
    assert "not compared, measured on different text: topk (a) and topk (b)" in text and "better than" not in text


def test_sweeps_of_the_same_name_are_distinguished_by_their_folders(tmp_path):
    for machine in ("one", "two"):
        job(tmp_path / machine / "outputs" / "default")
    both = [tmp_path / machine / "outputs" / "default" for machine in ("one", "two")]
    assert set(sweep_table.table(*both)["arch"]) == {"topk (one/outputs/default)", "topk (two/outputs/default)"}
    assert pareto.report([*both, both[0]], tmp_path / "both").name == "one/outputs/default, two/outputs/default"
    assert list(sweep_table.table(both[0], both[0])["arch"]) == ["topk"]


@pytest.mark.slow
@pytest.mark.process
def test_the_report_of_several_sweeps_is_written_only_with_out(tmp_path):
    for name in "ab":
        job(tmp_path / name)
    both = [str(tmp_path / "a"), str(tmp_path / "b")]
    shown = run(*both)
    assert "--out FOLDER writes" in shown.stdout and {f.name for f in tmp_path.iterdir()} == {"a", "b"}
    run(*both, "--out", str(tmp_path / "both"))
    rows = pd.read_csv(tmp_path / "both" / "pareto.csv")
    assert all((tmp_path / "both" / path / "eval.json").is_file() for path in rows["path"])
    assert {f.name for f in (tmp_path / "both").iterdir()} == FILES and not (tmp_path / "a" / "pareto.csv").exists()


# The answer


def test_a_mean_is_reported_as_higher_or_lower_than_the_references(tmp_path):
    for arch, factor in {"jumprelu": 0.9, "gated": 1.1, "topk": 1.0}.items():
        for sparsity in (16, 32):
            measure(job(tmp_path, arch, sparsity, fvu=0.1 * factor), (5 * factor, 9 * factor))
    text = pareto.text(pareto.report([tmp_path]))
    assert ("mean FVU of these SAEs over L0 16, 32, relative to topk 0.1000: jumprelu 0.0900, 10.0% [10.0, 10.0]* lower; "
            "gated 0.1100, 10.0% [10.0, 10.0]* higher") in text


@pytest.mark.parametrize(("verdict", "words"), [
    ("open", "not significant: 0.2% [-0.4, 0.7]"), ("equal", "equal within 1%: 0.2% [-0.4, 0.7]"),
    ("better", "0.2% [-0.4, 0.7] lower"), ("worse", "-0.2% [-0.7, 0.4] higher"), ("none", "no interval: 0.2% [-0.4, 0.7]"),
])
def test_each_verdict_on_a_mean_has_its_own_words(verdict, words):
    found = {"percent": 0.2, "percent_low": -0.4, "percent_high": 0.7, "holm": False, "verdict": verdict}
    assert wording.relative(found, "fvu") == words


def test_without_a_percentage_the_difference_is_reported_in_the_metrics_units():
    found = {"percent": None, "difference": -0.0123, "low": -0.02, "high": -0.001, "holm": True, "verdict": "worse"}
    assert wording.relative(found, "delta_loss") == "0.0123 nats [0.0010, 0.0200]* higher"


def test_without_intervals_the_answer_has_no_verdicts(nine):
    words = pareto.answer(pareto.report([nine]).comparison)
    assert "lm resid.9, fvu" in words and "No intervals, so no verdicts" in words
    assert "this jumprelu has no interval against this topk at 16 (2.0%), 32 (2.0%), 64 (2.0%)" in words
    assert "better than" not in words


def test_the_answer_names_the_better_architecture_at_each_l0(tmp_path):
    for sparsity, (topk, gated) in {16: (0.1, 0.09), 32: (0.05, 0.08), 64: (0.04, 0.07)}.items():
        measure(job(tmp_path, "topk", sparsity, fvu=topk), (50 * topk, 90 * topk))
        measure(job(tmp_path, "gated", sparsity, fvu=gated), (50 * gated, 90 * gated))
    words = pareto.answer(pareto.report([tmp_path]).comparison)
    assert "this topk is better than this gated at 32 by 37.5% [37.5, 37.5]*, 64 by 42.9% [42.9, 42.9]*\n" in words
    assert "this gated is better than this topk at 16 by 10.0% [10.0, 10.0]*\n" in words
    assert "95% intervals over 12 documents.\n4 comparisons; * marks those significant after Holm's correction.\n" in words
    assert "holds for these two SAEs on this text, and another seed may reverse it" in words


def test_a_single_architecture_has_an_empty_answer(tmp_path):
    job(tmp_path, "topk", 16)
    job(tmp_path, "topk", 32)
    assert pareto.answer(pareto.report([tmp_path]).comparison) == ""


# Figures and files


@pytest.mark.slow
def test_the_figure_has_a_column_per_hook_point_and_a_row_per_metric_as_png_and_svg(nine):
    def size():
        found = pareto.report([nine])
        files = figures.pareto(found.df, found.comparison)
        assert files["png"].startswith(b"\x89PNG") and b"<svg" in files["svg"] and b"jumprelu" in files["svg"]
        return int.from_bytes(files["png"][16:20], "big"), int.from_bytes(files["png"][20:24], "big")

    one = size()
    for site in ("mlp", "attn"):
        job(nine, site=site)
    three = size()
    assert one[0] > 2 * one[1], "the metrics of one hook point are side by side"
    assert three[0] > 1.3 * one[0] and three[1] > 1.5 * one[1]


@pytest.mark.slow
def test_the_frequency_figure_needs_firing_rates_and_shows_at_most_3_sparsities(tmp_path):
    for sparsity in (8, 16, 32, 64):
        job(tmp_path, sparsity=sparsity)
    found = pareto.report([tmp_path])
    assert figures.frequency(found.df, found.details) == {}  # a report without it: test_a_single_sae_has_a_complete_report
    for folder in (tmp_path / "lm" / "resid.9" / "topk").iterdir():
        measure(folder)
    written(tmp_path)
    text = (tmp_path / "frequency.svg").read_text()
    assert [f"sparsity {s}<" in text for s in (8, 16, 32, 64)] == [True, False, True, True]
    assert "latents on over 1% of tokens" in text and "latents on over 10% of tokens" in text


def test_the_histogram_counts_every_latent_once():
    rates = np.array([0.0, 0.0, 1.0, 0.5, 1e-3, 2e-5])
    edges, counts, never, rare, _ = style.histogram(rates)
    assert never == 2 and counts.sum() == 4 and counts[-1] == 1 and edges[0] == -6 and edges[-1] == 0 and rare == 0


def test_a_latent_with_fewer_than_about_10_firings_has_no_rate_and_the_histogram_begins_with_a_whole_bin():
    """10 of 16,467 tokens are 10^-3.22; the next edge, 10^-3.2, is 10.4 of them."""
    times = np.array([0, 1, 2, 9, 10, 11, 1000])
    edges, counts, never, rare, few = style.histogram(times / 16_467, 16_467)
    assert (never, rare, few) == (1, 4, 11) and edges[:-1][counts > 0] == pytest.approx([-3.2, -1.4])
    assert style.histogram(np.array([1.0, 0.5]), 2)[2:] == (0, 1, 2)  # too few tokens for any but a rate of 1


@pytest.mark.slow
def test_a_second_write_replaces_the_files_and_leaves_no_others(written_nine, tmp_path):
    nine = shutil.copytree(written_nine[0], tmp_path / "nine")
    job(nine, "topk", 128, fvu=0.08)
    assert len(written(nine)) == len((nine / "pareto.csv").read_text().splitlines()) - 1 == 10
    assert {file.name for file in nine.iterdir()} == {"lm", *FILES}


def run(*words):
    command = [sys.executable, "-m", "saesweep.report.pareto", *words]
    return warm.run(command, ROOT, ENV, figures=True)


@pytest.mark.slow
@pytest.mark.process
def test_the_command_line_writes_the_report_and_prints_table_and_answer(nine):
    done = run(str(nine))
    found = pareto.report([nine])
    assert done.stdout.startswith(pareto.text(found)) and str(nine / "pareto.html") in done.stdout.splitlines()
    assert json.loads((nine / "pareto.json").read_text()) == json.loads(json.dumps(found.comparison))


@pytest.mark.slow
@pytest.mark.process
def test_the_command_line_refuses_a_mistake_in_one_line(nine):
    for words, part in (([str(nine / "no")], "is not a folder"), ([str(nine), "--reference", "relu"], "gated, jumprelu, topk")):
        wrong = run(*words)
        assert wrong.returncode == 1 and part in wrong.stderr and "Traceback" not in wrong.stderr
