"""Fronts, the table and the figures of a sweep, from hand-made points."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from saesweep import curves, pareto
from saesweep.errors import UsageError

NUMBERS = {"d_in": 640, "d_sae": 4096, "tokens": 300_032, "coefficient": 0.000123, "l0": 32.0, "fvu": 0.1, "mse": 0.1,
           "cosine": 0.95, "relative_reconstruction_bias": 0.99, "ce_clean": 2.5, "ce_sae": 2.75, "ce_zero": 9.0,
           "ce_mean": 8.0, "delta_loss": 0.25, "loss_recovered": 0.96, "dead": 0.01, "frequency_over_1pct": 0.2,
           "frequency_over_10pct": 0.02, "sinks": 12}  # fmt: skip


def job(sweep, arch="topk", sparsity=32, seed=0, site="resid", layer=9, model="lm", **numbers):
    folder = sweep / model / f"{site}.{layer}" / arch / (f"{sparsity}.{seed}" if seed else f"{sparsity}")
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(
        f"name: x\nseed: {seed}\nlayer: ${{model.layer}}\nsparsity: {sparsity}\n"
        f"model: {{name: {model}, layer: {layer}}}\nsite: {{name: {site}}}\narch: {{name: {arch}}}\n"
    )
    (folder / "eval.json").write_text(json.dumps({**NUMBERS, "l0": float(sparsity), **numbers}))
    return folder


def front(sweep):
    df = pareto.collect(sweep)
    return set(df.loc[df["on_front"], "path"].str.split("/", n=2).str[2])


@pytest.fixture
def nine(tmp_path):
    for arch, factor in {"jumprelu": 0.98, "gated": 1.1, "topk": 1.0}.items():
        for sparsity, fvu in {16: 0.15, 32: 0.12, 64: 0.1}.items():
            job(tmp_path, arch, sparsity, fvu=fvu * factor, delta_loss=fvu, coefficient=None if arch == "topk" else 0.1)
    return tmp_path


def test_the_csv_has_exactly_the_columns_of_the_design_in_its_order(nine):
    pareto.write(nine)
    header = (nine / "pareto.csv").read_text().splitlines()[0]
    assert header == (
        "model,site,layer,arch,sparsity,seed,d_in,d_sae,tokens,coefficient,l0,fvu,mse,cosine,relative_reconstruction_bias,"
        "ce_clean,ce_sae,ce_zero,ce_mean,delta_loss,loss_recovered,dead,frequency_over_1pct,frequency_over_10pct,"
        "sinks,on_front,path"
    )


def test_a_row_holds_what_eval_json_and_the_config_say(tmp_path):
    job(tmp_path, "gated", 16, seed=3, site="mlp", layer=4, fvu=0.123456789012345)
    row = pareto.collect(tmp_path).iloc[0].to_dict()
    expected = {**NUMBERS, "l0": 16.0, "fvu": 0.123456789012345, "model": "lm", "site": "mlp", "layer": 4,
                "arch": "gated", "sparsity": 16, "seed": 3, "on_front": True,
                "path": "lm/mlp.4/gated/16.3"}  # fmt: skip
    assert row == expected


def test_the_csv_reads_back_as_the_same_numbers(nine):
    df = pareto.write(nine)
    pd.testing.assert_frame_equal(pd.read_csv(nine / "pareto.csv"), df, rtol=1e-15, atol=0, check_dtype=False)


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
    assert pareto.collect(tmp_path)["on_front"].all()


def test_a_failed_sae_is_on_no_front_and_pushes_nobody_off_it(tmp_path):
    job(tmp_path, "topk", 32, fvu=0.1)
    job(tmp_path, "gated", 16, fvu=None)
    job(tmp_path, "relu", 8, l0=math.nan, fvu=0.01)
    assert front(tmp_path) == {"topk/32"}
    line = next(line for line in pareto.table(pareto.write(tmp_path)).splitlines() if line.startswith("gated"))
    assert line.split() == ["gated", "16", "16.00", "-", "0.2500", "0.9600", "0.010"]


def test_a_single_sae_makes_a_whole_report(tmp_path):
    job(tmp_path)
    assert pareto.write(tmp_path)["on_front"].tolist() == [True]
    assert {"pareto.csv", "pareto.png", "pareto.html"} <= {file.name for file in tmp_path.iterdir()}


def test_an_empty_sweep_has_a_header_and_says_that_nothing_is_finished(tmp_path):
    df = pareto.write(tmp_path)
    assert list(df.columns) == pareto.COLUMNS and pareto.table(df) == "no finished SAEs"
    assert (tmp_path / "pareto.csv").read_text() == ",".join(pareto.COLUMNS) + "\n"
    assert pareto.matched(df).empty


def test_a_sweep_without_a_language_model_has_no_loss_row(tmp_path):
    job(tmp_path, **dict.fromkeys(["ce_clean", "ce_sae", "ce_zero", "ce_mean", "delta_loss", "loss_recovered"]))
    df = pareto.write(tmp_path)
    assert curves.measures(df) == ["fvu"] and math.isnan(df["delta_loss"][0])


def test_other_files_and_unfinished_jobs_are_left_out(tmp_path):
    job(tmp_path, "topk")
    (job(tmp_path, "gated") / "eval.json").unlink()
    stray = tmp_path / "a" / "b" / "c" / "d"
    stray.mkdir(parents=True)
    (stray / "eval.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    assert pareto.collect(tmp_path)["path"].tolist() == ["lm/resid.9/topk/32"]


@pytest.mark.parametrize("content", ["{", "{}", '{"l0": 3}'])
def test_a_damaged_eval_json_is_named_with_its_fix(tmp_path, content):
    (job(tmp_path) / "eval.json").write_text(content)
    with pytest.raises(UsageError, match=r"eval\.json .*delete the file and run the sweep again"):
        pareto.collect(tmp_path)


def test_a_wrong_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="nowhere is no folder"):
        pareto.write(tmp_path / "nowhere")


def test_matched_divides_the_mean_over_seeds_by_the_references(tmp_path):
    for seed, fvu in enumerate([0.1, 0.2]):
        job(tmp_path, "topk", 16, seed=seed, fvu=fvu)
        job(tmp_path, "jumprelu", 16, seed=seed, fvu=fvu + 0.03)
    job(tmp_path, "topk", 32, fvu=0.1)
    ratios = pareto.matched(pareto.collect(tmp_path))
    assert ratios.loc[("lm", "resid", 9, 16), "jumprelu"] == pytest.approx(0.18 / 0.15)
    assert (ratios["topk"] == 1).all() and math.isnan(ratios.loc[("lm", "resid", 9, 32), "jumprelu"])
    assert pareto.matched(pareto.collect(tmp_path), reference="relu").empty


def test_the_table_is_sorted_by_place_then_sparsity_then_architecture_and_marks_the_front(nine):
    job(nine, "topk", 8, site="mlp", fvu=0.3)
    lines = pareto.table(pareto.collect(nine)).splitlines()
    assert lines[0].split() == ["arch", "sparsity", "l0", "fvu", "delta_loss", "loss_recovered", "dead", "front"]
    assert lines[1:5] == ["", "lm mlp.9", lines[3], ""] and lines[3].split()[:2] == ["topk", "8"]
    assert [line.split()[:2] for line in lines[6:9]] == [["gated", "16"], ["jumprelu", "16"], ["topk", "16"]]
    assert [line.endswith("*") for line in lines[6:9]] == [False, True, False]
    assert len({line.index(".") for line in lines[6:]}) == 1, "the decimal points stand under each other"


def test_the_table_names_the_seed_where_there_are_several(tmp_path):
    job(tmp_path)
    job(tmp_path, seed=1)
    assert "seed" in pareto.table(pareto.collect(tmp_path)).splitlines()[0].split()


def test_a_mean_line_joins_the_means_over_seeds_by_l0(tmp_path):
    for seed in (0, 1):
        job(tmp_path, "topk", 64, seed=seed, l0=60.0 + 4 * seed, fvu=0.1 + 0.02 * seed)
        job(tmp_path, "topk", 16, seed=seed, l0=16.0, fvu=0.2)
    points = curves.places(pareto.collect(tmp_path))["lm, resid, layer 9"]
    (curve,) = curves.curves(points, "fvu")
    assert curve.repeated and curve.mean == ([16.0, 62.0], [pytest.approx(0.2), pytest.approx(0.11)])


def test_the_known_architectures_keep_their_look_and_new_ones_get_their_own():
    alone, together = curves.looks(pd.Series(["topk"])), curves.looks(pd.Series(["mine", "topk", "gated", "yours"]))
    assert alone["topk"] == together["topk"] and len(set(together.values())) == 4


@pytest.mark.parametrize(
    ("l0", "expected"), [((16, 64), [16, 32, 64]), ((32, 32), [32]), ((23, 24), [32]), ((1, 4), [1, 2, 4])]
)
def test_the_l0_axis_is_marked_at_powers_of_two_and_at_least_once(l0, expected):
    assert curves.ticks(*curves.span(pd.Series(l0, dtype=float))) == expected


def test_a_wide_l0_axis_keeps_at_most_seven_ticks():
    assert len(curves.ticks(1.0, 100_000.0)) <= 7


def test_the_figure_has_a_column_per_place_and_a_row_per_measure(nine):
    def size():
        data = pareto.figure(pareto.collect(nine))
        assert data.startswith(b"\x89PNG")
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")

    one = size()
    for site in ("mlp", "attn"):
        job(nine, site=site)
    three = size()
    assert three[0] > 2 * one[0] and three[1] == one[1] and one[1] > one[0]


def test_a_second_write_replaces_the_files_and_leaves_nothing_else(nine):
    pareto.write(nine)
    job(nine, "topk", 128, fvu=0.08)
    assert len(pareto.write(nine)) == len((nine / "pareto.csv").read_text().splitlines()) - 1 == 10
    assert {file.name for file in nine.iterdir()} == {"lm", "pareto.csv", "pareto.png", "pareto.html"}


def test_the_command_line_rewrites_the_report_and_prints_the_table(nine):
    command = [sys.executable, "-m", "saesweep.pareto", str(nine)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == pareto.table(pareto.collect(nine)) and Path(nine, "pareto.png").is_file()
    wrong = subprocess.run([*command[:-1], str(nine / "no")], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "is no folder" in wrong.stderr and "Traceback" not in wrong.stderr
