"""Gaps, areas and intervals of hand-made points, whose right answers are known."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from saesweep import outputs
from saesweep.compare import compare, verdict
from saesweep.pareto import answer


def table(*points, **same):
    """Each point: (arch, l0, fvu) with more by name in a dict after it; its sparsity is the l0 rounded."""
    rows = []
    for arch, l0, fvu, *more in points:
        row = dict.fromkeys(outputs.COLUMNS) | {"model": "lm", "site": "resid", "layer": 9, "seed": 0, "state": "finished"}
        row |= {"arch": arch, "l0": l0, "fvu": fvu, "delta_loss": math.nan, "sparsity": round(l0) if l0 < 1e9 else 0} | same
        row |= more[0] if more else {}
        rows.append(row | {"path": f"{row['site']}/{arch}/{row['sparsity']}.{row['seed']}"})
    return pd.DataFrame(rows, columns=outputs.COLUMNS).astype({"l0": float, "fvu": float, "delta_loss": float})


def found(df, documents=None, measure="fvu", **more):
    (place,) = compare(df, documents or [None] * len(df), **more)["places"]
    return place["metrics"][measure]


def gaps(df, documents=None, **more):
    return {(gap["a"], gap["b"], gap["sparsity"]): gap for gap in found(df, documents, **more)["gaps"]}


def texts(count=40, seed=0):
    """Tokens and variance of some documents of very different weight."""
    random = np.random.default_rng(seed)
    tokens = random.integers(50, 400, count).astype(float)
    return pd.DataFrame({"tokens": tokens, "variance": tokens * random.uniform(0.2, 3, count)})


def measured(text, l0, fvu):
    """What an SAE leaves that has this l0 and this fvu (numbers, or one per document) on every document."""
    return text.assign(active=text["tokens"] * l0, error=text["variance"] * fvu)


# Gaps


def test_the_gap_is_how_much_lower_the_first_is_in_percent_of_the_second():
    df = table(("good", 16, 0.08), ("good", 64, 0.06), ("bad", 16, 0.10), ("bad", 64, 0.08))
    both = gaps(df)
    assert both["good", "bad", 16]["percent"] == pytest.approx(20) and both["good", "bad", 64]["percent"] == pytest.approx(25)
    assert both["good", "bad", 16]["value_a"] == 0.08 and both["good", "bad", 16]["value_b"] == 0.10


def test_between_two_points_the_curve_is_linear_in_the_logarithm_of_l0():
    df = table(("a", 16, 0.08), ("a", 64, 0.06), ("b", 16, 0.1), ("b", 32, 0.14), ("b", 64, 0.1))
    middle = gaps(df)["a", "b", 32]
    assert middle["value_a"] == pytest.approx(0.07) and middle["percent"] == pytest.approx(50)
    df = table(("a", 10, 1.0), ("a", 1000, 0.0001), ("b", 10, 1.0), ("b", 20, 0.9))
    value = 1 - 0.9999 * math.log(2) / math.log(100)
    assert gaps(df)["a", "b", 20]["value_a"] == pytest.approx(value)


def test_nothing_is_compared_beyond_the_end_of_a_curve():
    df = table(("a", 16, 0.10), ("a", 32, 0.08), ("b", 20, 0.09), ("b", 64, 0.05))
    assert {sparsity for _, _, sparsity in gaps(df)} == {20, 32}


def test_a_target_that_one_curve_just_misses_is_compared_where_both_are():
    df = table(("a", 16, 0.10), ("a", 32, 0.08), ("b", 16.4, 0.1, {"sparsity": 16}), ("b", 31.5, 0.08, {"sparsity": 32}))
    both = gaps(df)
    low, high = both["a", "b", 16], both["a", "b", 32]
    assert low["l0"] == 16.4 and high["l0"] == 31.5
    assert low["value_a"] == pytest.approx(0.1 - 0.02 * math.log2(16.4 / 16)) and low["value_b"] == 0.1


def test_two_single_points_are_compared_only_at_the_same_l0():
    assert gaps(table(("a", 32.0, 0.08), ("b", 32.0, 0.1)))["a", "b", 32]["percent"] == pytest.approx(20)
    assert gaps(table(("a", 32.0, 0.08), ("b", 32.1, 0.1))) == {}


FIXED = [(16, 0.10, 4e-3), (24, 0.09, 2e-3), (64, 0.06, 1e-3)]  # l0, fvu, coefficient


def fixed(arch, points=FIXED, **more):
    """SAEs that aim at no L0: their coefficient is fixed."""
    return [(arch, l0, fvu, {"sparsity": math.nan, "coefficient": number, **more}) for l0, fvu, number in points]


def test_saes_of_fixed_coefficients_are_a_curve_that_is_compared_at_the_others_targets():
    df = table(*fixed("a"), ("b", 16, 0.1), ("b", 32, 0.08), ("b", 64, 0.06))
    (b, a) = sorted(found(df)["curves"], key=lambda curve: curve["arch"], reverse=True)
    assert (a["l0"], a["sparsity"], b["sparsity"]) == ([16, 24, 64], [None] * 3, [16, 32, 64])
    assert {gap["sparsity"] for gap in found(df)["gaps"]} == {16, 32, 64} and len(found(df)["areas"]) == 2
    json.dumps(compare(df, [None] * 6), allow_nan=False)


def test_where_no_curve_has_targets_they_are_compared_at_powers_of_two():
    df = table(*fixed("a"), *fixed("b", [(20, 0.1, 4e-3), (70, 0.05, 1e-3)]))
    assert {gap["sparsity"] for gap in found(df)["gaps"]} == {32, 64}


def test_between_two_powers_of_two_they_are_compared_in_the_middle_of_what_both_reach():
    df = table(*fixed("a", [(34, 0.1, 4e-3), (60, 0.06, 1e-3)]), *fixed("b", [(33, 0.11, 4e-3), (61, 0.07, 1e-3)]))
    assert {gap["sparsity"] for gap in found(df)["gaps"]} == {45.2}
    df = table(*fixed("a", [(20, 0.1, 4e-3), (60, 0.06, 1e-3)]), ("b", 16, 0.11), ("b", 64, 0.07))
    assert {gap["sparsity"] for gap in found(df)["gaps"]} == {34.6}


def test_seeds_of_one_fixed_coefficient_are_one_point_of_the_curve():
    df = table(*fixed("a"), *fixed("a", [(l0 + 2, fvu, number) for l0, fvu, number in FIXED], seed=1))
    assert [curve["l0"] for curve in found(df)["curves"]] == [[17, 25, 65]]


def test_architectures_without_a_shared_l0_are_said_to_be_so_and_one_alone_is_not_spoken_of():
    df = table(("a", 32.0, 0.08), ("b", 32.1, 0.1))
    assert "fvu: no two architectures share an L0" in answer(compare(df, [None, None]))
    assert answer(compare(df[:1], [None])) == ""


def test_tied_curves_are_level():
    df = table(("a", 16, 0.1), ("a", 32, 0.08), ("b", 16, 0.1), ("b", 32, 0.08))
    assert {(gap["percent"], verdict(gap)) for gap in gaps(df).values()} == {(0.0, "level")}


def test_curves_that_cross_are_better_and_worse_in_turn():
    df = table(("a", 16, 0.09), ("a", 64, 0.08), ("b", 16, 0.1), ("b", 64, 0.07))
    verdicts = {sparsity: (a, verdict(gap)) for (a, _, sparsity), gap in gaps(df).items()}
    assert verdicts in ({16: ("a", "better"), 64: ("a", "worse")}, {16: ("b", "worse"), 64: ("b", "better")})


def test_a_loss_that_is_not_above_zero_has_no_ratio():
    df = table(("a", 16, 0.1, {"delta_loss": -0.1}), ("a", 32, 0.08, {"delta_loss": 0.2}),
               ("b", 16, 0.1, {"delta_loss": 0.3}), ("b", 32, 0.08, {"delta_loss": 0.3}))
    assert {key[2] for key in gaps(df, measure="delta_loss")} == {32} and {key[2] for key in gaps(df)} == {16, 32}


def test_every_place_is_compared_on_its_own():
    df = pd.concat([table(("a", 16, 0.1), ("b", 16, 0.2), site=site) for site in ("resid", "mlp")], ignore_index=True)
    places = compare(df, [None] * 4)["places"]
    assert [(p["site"], len(p["metrics"]["fvu"]["gaps"])) for p in places] == [("mlp", 1), ("resid", 1)]


# What is missing


def test_failed_unfinished_and_unmeasured_saes_are_left_out():
    failed, unfinished = {"state": "failed", "sparsity": 32}, {"state": "unfinished", "sparsity": 32}
    df = table(("a", 16, 0.1), ("a", 32, 0.08), ("b", 16, 0.12), ("b", math.nan, math.nan, failed),
               ("c", math.nan, math.nan, unfinished), ("d", 48, math.nan))
    one = found(df)
    assert [curve["arch"] for curve in one["curves"]] == ["a", "b"] and set(gaps(df)) == {("a", "b", 16)}
    assert "delta_loss" not in compare(df, [None] * len(df))["places"][0]["metrics"]


def test_a_sweep_in_which_nothing_is_finished_has_no_answer_and_no_error():
    assert compare(table(), []) == {"places": []}
    assert compare(table(("a", 32, math.nan)), [None])["places"][0]["metrics"] == {}


# Fronts and areas


def test_the_front_is_what_no_other_point_dominates():
    df = table(("a", 16, 0.1), ("b", 16, 0.1, {"sparsity": 17}), ("a", 20, 0.12), ("a", 32, 0.08), ("b", 64, 0.08))
    assert found(df)["front"] == ["resid/a/16.0", "resid/b/17.0", "resid/a/32.0"]


def test_the_area_is_the_mean_over_log_l0_where_all_curves_are():
    df = table(("flat", 8, 0.1), ("flat", 128, 0.1), ("topk", 16, 0.12), ("topk", 64, 0.04))
    one = found(df)
    means = {area["arch"]: area["mean"] for area in one["areas"]}
    assert one["range"] == [16, 64] and means == {"flat": pytest.approx(0.1), "topk": pytest.approx(0.08)}
    percents = {area["arch"]: area["percent"] for area in one["areas"]}
    assert one["reference"] == "topk" and percents == {"flat": pytest.approx(-25), "topk": 0}


def test_under_the_front_means_that_a_curve_never_rises():
    df = table(("topk", 16, 0.10), ("topk", 32, 0.30), ("topk", 64, 0.10))
    assert found(df)["areas"][0]["mean"] == pytest.approx(0.10)


def test_areas_are_compared_with_the_reference_that_was_asked_for():
    df = table(*[(arch, l0, value) for arch, value in (("topk", 0.1), ("relu", 0.2), ("gated", 0.15)) for l0 in (16, 64)])
    one = found(df, reference="relu")
    percents = {area["arch"]: round(area["percent"]) for area in one["areas"]}
    assert one["reference"] == "relu" and percents == {"topk": 50, "gated": 25, "relu": 0}


def test_without_a_common_range_there_is_no_area():
    one = found(table(("a", 8, 0.2), ("a", 16, 0.1), ("b", 32, 0.1), ("b", 64, 0.05)))
    assert one["range"] is None and one["areas"] == one["gaps"] == []


# Intervals from documents


def test_a_ratio_that_is_the_same_on_every_document_has_no_doubt_however_different_the_documents_are():
    text = texts()
    hard = np.random.default_rng(1).uniform(0.02, 0.5, len(text))
    sums = [measured(text, 32, hard * 0.9), measured(text, 32, hard)]
    fvus = [float(d["error"].sum() / d["variance"].sum()) for d in sums]
    gap = gaps(table(("a", 32, fvus[0]), ("b", 32, fvus[1])), sums)["a", "b", 32]
    assert (gap["percent"], gap["low"], gap["high"]) == pytest.approx((10, 10, 10)) and gap["interval"] == "40 documents"


def test_the_bootstrap_is_as_wide_as_the_delta_method_says():
    text, random = texts(400), np.random.default_rng(2)
    values = [random.uniform(0.08, 0.1, 400), random.uniform(0.06, 0.12, 400)]
    sums = [measured(text, 32, value) for value in values]
    fvus = [float(d["error"].sum() / d["variance"].sum()) for d in sums]
    gap = gaps(table(("a", 32, fvus[0]), ("b", 32, fvus[1])), sums, reference=None)
    (gap,) = gap.values()
    a, b = (d["error"].to_numpy() for d in (sums if gap["a"] == "a" else sums[::-1]))
    influence = (a - a.sum() / b.sum() * b) / b.sum()
    expected = 2 * 1.96 * 100 * math.sqrt((influence**2).sum())
    assert gap["high"] - gap["low"] == pytest.approx(expected, rel=0.1)
    assert gap["low"] < gap["percent"] < gap["high"]


def test_noise_around_the_same_value_is_level():
    text, random = texts(60), np.random.default_rng(3)
    sums = [measured(text, 32, 0.1 * random.uniform(0.5, 1.5, 60)) for _ in range(2)]
    fvus = [float(d["error"].sum() / d["variance"].sum()) for d in sums]
    (gap,) = gaps(table(("a", 32, fvus[0]), ("b", 32, fvus[1])), sums).values()
    assert verdict(gap) == "level" and gap["percent"] != 0


def test_delta_loss_draws_only_documents_that_the_language_model_read():
    text = texts(40)
    scored = pd.Series(np.where(np.arange(40) < 12, 100.0, 0.0))
    random = np.random.default_rng(4)
    sums = []
    for loss in (0.2, 0.25):
        nats = scored * loss * random.uniform(0.9, 1.1, 40)
        sums.append(measured(text, 32, 0.1).assign(scored=scored, nats_clean=2 * scored, nats_sae=2 * scored + nats))
    losses = [float((d["nats_sae"] - d["nats_clean"]).sum() / d["scored"].sum()) for d in sums]
    df = table(*[(arch, 32, 0.1, {"delta_loss": loss}) for arch, loss in zip("ab", losses, strict=True)])
    gap = gaps(df, sums, measure="delta_loss")["a", "b", 32]
    assert gap["interval"] == "12 documents" and 12 < gap["low"] < gap["percent"] < gap["high"] < 28


def test_saes_measured_on_other_text_are_not_compared_and_those_on_one_text_keep_their_interval():
    one, other, noise = texts(40, 0), texts(40, 1), np.random.default_rng(3).uniform(0.9, 1.1, 40)
    sums = [measured(one, 32, 0.1), measured(one, 32, 0.11 * noise), measured(other, 32, 0.12)]
    df = table(("a", 32, 0.1), ("b", 32, 0.11), ("c", 32, 0.12))
    both = found(df, sums)
    assert [(gap["a"], gap["b"]) for gap in both["gaps"]] == [("a", "b")] and both["on_other_text"] == [["a", "c"], ["b", "c"]]
    assert both["gaps"] == found(df[:2], sums[:2])["gaps"] and both["gaps"][0]["interval"] == "40 documents"
    assert both["areas"] == []


def test_an_sae_whose_text_is_not_known_is_compared_without_an_interval():
    gap = gaps(table(("a", 32, 0.1), ("b", 32, 0.11)), [measured(texts(), 32, 0.1), None])["a", "b", 32]
    assert gap["percent"] == pytest.approx(100 / 11) and gap["low"] is gap["high"] is gap["interval"] is None
    assert verdict(gap) == "better"


def test_the_same_comparison_twice_gives_the_same_interval():
    text, random = texts(), np.random.default_rng(5)
    sums = [measured(text, 32, random.uniform(0.05, 0.15, 40)) for _ in range(2)]
    df = table(("a", 32, 0.1), ("b", 32, 0.11))
    assert compare(df, sums) == compare(df, sums)


# Intervals from seeds


def seeds(arch, values, l0=32):
    return [(arch, l0, value, {"seed": seed}) for seed, value in enumerate(values)]


def test_with_several_seeds_the_interval_is_students_of_the_paired_log_ratios():
    a, b = np.array([0.095, 0.100, 0.098]), np.array([0.105, 0.108, 0.110])
    gap = gaps(table(*seeds("a", a), *seeds("b", b)))["a", "b", 32]
    ratio = stats.ttest_1samp(np.log(a / b), 0)
    low, high = (100 * (1 - math.exp(x)) for x in ratio.confidence_interval()[::-1])
    assert (gap["low"], gap["high"]) == pytest.approx((low, high)) and gap["interval"] == "3 seeds"
    assert gap["percent"] == pytest.approx(100 * (1 - math.exp(np.log(a / b).mean())))


def test_every_seed_is_compared_near_the_target_and_not_only_the_first():
    """The second seed's curves meet at 44 and above."""
    first = [*seeds("a", [0.10], 30), *seeds("a", [0.08], 60), *seeds("b", [0.11], 30), *seeds("b", [0.09], 60)]
    second = [(arch, l0, fvu, {"seed": 1, "sparsity": sparsity}) for arch, l0, fvu, sparsity in
              (("a", 44, 0.10, 30), ("a", 80, 0.08, 60), ("b", 44, 0.11, 30), ("b", 80, 0.09, 60))]
    assert {sparsity for _, _, sparsity in gaps(table(*first, *second))} == {60}
    assert {sparsity for _, _, sparsity in gaps(table(*first))} == {30, 60}


def test_only_seeds_that_both_have_are_paired_and_one_alone_falls_back_to_the_documents():
    df = table(*seeds("a", [0.095, 0.1, 0.098]), *seeds("b", [0.105, 0.108]))
    assert gaps(df)["a", "b", 32]["interval"] == "2 seeds"
    df = table(*seeds("a", [0.095, 0.1, 0.098]), *seeds("b", [0.105]))
    sums = [measured(texts(), 32, 0.1) for _ in range(4)]
    assert gaps(df, sums)["a", "b", 32]["interval"] == "40 documents"


def test_the_curve_goes_through_the_means_over_seeds_with_their_interval():
    values = [0.10, 0.12, 0.11]
    (curve,) = found(table(*seeds("a", values)))["curves"]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (curve["mean"], curve["low"], curve["high"]) == ([pytest.approx(0.11)], [pytest.approx(low)], [pytest.approx(high)])
