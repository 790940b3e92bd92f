"""Verdicts, means and intervals of the comparison, on points whose results are known."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from saesweep.report.compare import compare
from saesweep.report.pareto import answer
from saesweep.storage import sweep_table

DRAWS = 1000 if os.environ.get("CI_FULL") else 100


def at_most(draws):
    """5% of the draws plus two standard deviations."""
    return draws * 0.05 + 2 * math.sqrt(draws * 0.05 * 0.95)


def table(*points, **same):
    """A table of points (arch, l0, fvu), each optionally followed by a dict of other columns; sparsity is l0 rounded."""
    rows = []
    for arch, l0, fvu, *more in points:
        row = dict.fromkeys(sweep_table.COLUMNS) | {"model": "lm", "site": "resid", "layer": 9, "seed": 0, "state": "finished"}
        row |= {"arch": arch, "l0": l0, "fvu": fvu, "delta_loss": math.nan, "sparsity": round(l0) if l0 < 1e9 else 0} | same
        row |= more[0] if more else {}
        rows.append(row | {"path": f"{row['site']}/{arch}/{row['sparsity']}.{row['seed']}"})
    return pd.DataFrame(rows, columns=sweep_table.COLUMNS).astype({"l0": float, "fvu": float, "delta_loss": float})


def found(df, documents=None, measure="fvu", **more):
    (hook_point,) = compare(df, documents or [None] * len(df), **more)["places"]
    return hook_point["metrics"][measure]


def gaps(df, documents=None, **more):
    return {(gap["a"], gap["b"], gap["sparsity"]): gap for gap in found(df, documents, **more)["gaps"]}


def texts(count=40, seed=0):
    """Tokens and variance of documents of very different length."""
    random = np.random.default_rng(seed)
    tokens = random.integers(50, 400, count).astype(float)
    return pd.DataFrame({"tokens": tokens, "variance": tokens * random.uniform(0.2, 3, count)})


def measured(text, l0, fvu):
    """documents.csv of an SAE with this l0 and fvu (one number, or one per document)."""
    return text.assign(active=text["tokens"] * l0, error=text["variance"] * fvu)


def noisy(text, l0, fvu, seed, spread=0.02):
    """As `measured`, with independent relative noise on every document."""
    return measured(text, l0, fvu * np.random.default_rng(seed).normal(1, spread, len(text)))


def row(arch, l0, sums, **more):
    """A point with the fvu of these documents."""
    return arch, l0, float(sums["error"].sum() / sums["variance"].sum()), more


def on_text(*points, text=None):
    """The table and the documents of points (arch, l0, fvu), each with independent noise on 40 documents."""
    text = texts() if text is None else text
    sums = [noisy(text, l0, fvu, seed) for seed, (_, l0, fvu, *_) in enumerate(points)]
    rows = [row(arch, l0, one, **(more[0] if more else {})) for (arch, l0, _, *more), one in zip(points, sums, strict=True)]
    return table(*rows), sums


# Differences


def test_difference_is_second_minus_first_and_percentage_relative_to_the_second():
    df = table(("good", 16, 0.08), ("good", 64, 0.06), ("bad", 16, 0.10), ("bad", 64, 0.08))
    both = gaps(df)
    assert both["good", "bad", 16]["percent"] == pytest.approx(20) and both["good", "bad", 64]["percent"] == pytest.approx(25)
    assert both["good", "bad", 16]["difference"] == pytest.approx(0.02)
    assert both["good", "bad", 16]["value_a"] == 0.08 and both["good", "bad", 16]["value_b"] == 0.10


def test_points_near_a_target_are_compared_at_their_geometric_mean_along_the_curve():
    df = table(("a", 16, 0.10), ("a", 32, 0.08), ("b", 16.4, 0.1, {"sparsity": 16}), ("b", 31.5, 0.08, {"sparsity": 32}))
    one = gaps(df)["a", "b", 16]
    assert (one["l0"], one["l0_a"], one["l0_b"]) == (pytest.approx(math.sqrt(16 * 16.4), rel=1e-5), 16, 16.4)
    slope = (0.08 - 0.10) / math.log(32 / 16)
    assert one["value_a"] == pytest.approx(0.10 + slope * math.log(one["l0"] / 16), rel=1e-5) and one["interpolated"] is None
    assert 0 < one["error"] < 0.001


def power(l0, p=0.34):
    return 0.3 * l0**-p


@pytest.mark.parametrize(("of_a", "of_b", "compared"), [
    ((16, 64), (16, 32, 64), {16, 64}), ((8, 128), (16, 32, 64), set()),
    ((16, 32, 64, 128), (20, 41, 87), {20, 32, 41, 64, 87}),
])
def test_a_curve_is_never_better_than_itself_at_other_l0(of_a, of_b, compared):
    """Exact points on one power law: the only error is that of interpolation."""
    for p in (0.2, 0.34, 1.0, 1.7):
        points = [("a", x, power(x, p)) for x in of_a] + [("b", x, power(x, p)) for x in of_b]
        found = gaps(table(*points), [measured(texts(), x, value) for _, x, value in points])
        assert {label for _, _, label in found} - {128} <= compared
        assert {gap["verdict"] for gap in found.values()} <= {"equal", "open"}
        if p == 0.34:
            assert {label for _, _, label in found} == compared


def test_interpolation_is_reported_and_its_curvature_error_widens_the_interval():
    df, sums = on_text(*[("a", x, power(x)) for x in (16, 32, 64)], *[("b", x, 1.2 * power(x)) for x in (23, 45)])
    one = gaps(df, sums)["a", "b", 23]
    assert one["interpolated"] == "a" and one["l0"] == 23 and one["verdict"] == "better"
    chord = power(16) + (power(32) - power(16)) * math.log2(23 / 16)
    assert abs(one["value_a"] - power(23)) < one["error"] < 3 * abs(chord - power(23))
    assert "(a interpolated)" in answer(compare(df, sums))


@pytest.mark.parametrize("curve", [
    lambda x: 0.05 + 0.3 * x**-0.7, lambda x: 0.3 * x**-2.5, lambda x: 0.4 * math.exp(-x / 40) + 0.01,
    lambda x: 0.3 * min(x, 32) ** -0.6 * (max(x, 32) / 32) ** -0.05, lambda x: 0.2 - 0.03 * math.log(x), lambda x: 0.1,
])
@pytest.mark.parametrize("of_b", [(23, 45), (15.3, 33.5, 66.9), (20, 27, 50, 60)])
def test_curves_of_other_shapes_are_never_better_than_themselves(curve, of_b):
    points = [("a", x, curve(x)) for x in (8, 16, 32, 64)] + [("b", x, curve(x)) for x in of_b]
    sums = [measured(texts(), x, value) for _, x, value in points]
    assert {gap["verdict"] for gap in gaps(table(*points), sums).values()} <= {"equal", "open"}


def test_a_target_l0_and_a_fixed_coefficient_at_the_same_l0_are_compared():
    with_target, other = ("a", 16.7, 0.1, {"sparsity": 16}), ("b", 17.1, 0.2, {"sparsity": math.nan, "coefficient": 1e-3})
    df, sums = on_text(with_target, other)
    (gap,) = gaps(df, sums).values()
    assert (gap["l0_a"], gap["l0_b"], gap["interpolated"]) == (16.7, 17.1, None)
    assert "(L0 16.7 and 17.1, 2.4% apart, corrected by the prior range of slopes within 1.4%)" in answer(compare(df, sums))


def test_two_targets_at_one_l0_are_one_comparison():
    other = {"sparsity": 17}
    df, sums = on_text(("a", 16.4, 0.1, {"sparsity": 16}), ("a", 64, 0.05), ("b", 16.6, 0.1, other), ("b", 200, 0.03))
    assert len(gaps(df, sums)) == 1 and found(df, sums)["means"] == []
    json.dumps(compare(df, sums), allow_nan=False)


def test_saes_of_one_curve_at_the_same_l0_widen_its_interval():
    """Otherwise the choice among them would decide."""
    for values in ((0.08, 0.09, 0.2), (0.2, 0.09, 0.08)):
        coefficients = zip((32.0, 32.1, 32.3), values, (5e-4, 1e-3, 2e-3), strict=True)
        own = [("a", x, v, {"sparsity": math.nan, "coefficient": c}) for x, v, c in coefficients]
        assert gaps(*on_text(*own, ("b", 32, 0.1)))["a", "b", 32]["verdict"] == "open"


def test_losses_near_0_at_slightly_different_l0_are_not_significantly_different():
    (_, sums), at = losses(40, np.full(40, 0.0003), np.full(40, -0.0006)), (16.0, 16.3)
    points = [(arch, x, 0.1, {"delta_loss": v}) for arch, x, v in zip("ab", at, (0.0003, -0.0006), strict=True)]
    assert gaps(table(*points), sums, measure="delta_loss")["a", "b", 16]["verdict"] == "open"


def test_curves_are_not_extrapolated():
    df = table(("a", 16, 0.10), ("a", 32, 0.08), ("b", 20, 0.09), ("b", 64, 0.05))
    assert gaps(df) == {}, "with two points the curvature is not known"


FIXED = [(16, 0.10, 4e-3), (24, 0.09, 2e-3), (64, 0.06, 1e-3)]  # l0, fvu, coefficient


def fixed(arch, points=FIXED, **more):
    """SAEs without a target L0, whose coefficient is fixed."""
    return [(arch, l0, fvu, {"sparsity": math.nan, "coefficient": number, **more}) for l0, fvu, number in points]


def test_saes_with_fixed_coefficients_are_compared_at_common_l0():
    df = table(*fixed("a"), ("b", 16, 0.1), ("b", 32, 0.08), ("b", 64, 0.06))
    (b, a) = sorted(found(df)["curves"], key=lambda curve: curve["arch"], reverse=True)
    assert (a["l0"], a["sparsity"], b["sparsity"]) == ([16, 24, 64], [None] * 3, [16, 32, 64])
    assert {gap["sparsity"] for gap in found(df)["gaps"]} == {16, 24, 64}
    json.dumps(compare(df, [None] * 6), allow_nan=False)


def test_seeds_of_one_fixed_coefficient_are_one_point_of_the_curve():
    df = table(*fixed("a"), *fixed("a", [(l0 + 2, fvu, number) for l0, fvu, number in FIXED], seed=1))
    assert [curve["l0"] for curve in found(df)["curves"]] == [[pytest.approx(math.sqrt(l0 * (l0 + 2))) for l0, _, _ in FIXED]]


def test_a_missing_common_l0_is_reported_and_a_single_architecture_is_not_compared():
    df = table(("a", 32.0, 0.08), ("b", 40.0, 0.1))
    assert "no two architectures at one hook point have SAEs less than 15% apart in L0" in answer(compare(df, [None, None]))
    assert answer(compare(df[:1], [None])) == ""


def test_curves_that_cross_have_opposite_verdicts_at_both_ends():
    df, sums = on_text(("a", 16, 0.08), ("a", 64, 0.08), ("b", 16, 0.1), ("b", 64, 0.06))
    verdicts = {sparsity: (a, gap["verdict"]) for (a, _, sparsity), gap in gaps(df, sums).items()}
    assert verdicts in ({16: ("a", "better"), 64: ("a", "worse")}, {16: ("b", "worse"), 64: ("b", "better")})


def test_each_hook_point_is_compared_separately():
    df = pd.concat([table(("a", 16, 0.1), ("b", 16, 0.2), site=site) for site in ("resid", "mlp")], ignore_index=True)
    hook_points = compare(df, [None] * 4)["places"]
    assert [(p["site"], len(p["metrics"]["fvu"]["gaps"])) for p in hook_points] == [("mlp", 1), ("resid", 1)]


# Verdicts


def losses(count, *arrays):
    """The table and the documents of SAEs with these losses on each of `count` documents."""
    text = texts(count)
    scored = pd.Series(np.full(count, 100.0))
    read = measured(text, 32, 0.1).assign(scored=scored, nats_clean=2 * scored)
    sums = [read.assign(nats_sae=(2 + loss) * scored) for loss in arrays]
    points = [("abc"[i], 32, 0.1, {"delta_loss": float(np.mean(loss))}) for i, loss in enumerate(arrays)]
    return table(*points), sums


def test_a_loss_near_0_is_compared_by_difference_and_has_no_percentage():
    """A ratio of losses near 0 has no interval; its point estimate alone would call one of them better."""
    noise = np.random.default_rng(4).normal(0, 0.05, (2, 40))
    gap, = gaps(*losses(40, 0.010 + noise[0], 0.012 + noise[1]), measure="delta_loss").values()
    assert gap["verdict"] == "open" and gap["percent"] is None and gap["low"] < 0 < gap["high"]
    shared = np.random.default_rng(4).normal(0, 0.05, 40)
    gap, = gaps(*losses(40, 0.001 + shared, 0.01 + shared), measure="delta_loss").values()
    assert gap["verdict"] == "better" and gap["percent"] is None and gap["difference"] == pytest.approx(0.009)


def test_a_negative_loss_is_compared():
    noise = np.random.default_rng(4).normal(0, 0.01, (2, 40))
    df, sums = losses(40, -0.1 + noise[0], 0.3 + noise[1])
    gap, = gaps(df, sums, measure="delta_loss").values()
    assert gap["verdict"] == "better" and gap["difference"] == pytest.approx(0.4, abs=0.01) and gap["percent"] is None
    assert "this a is better than this b at 32 by 0.4" in answer(compare(df, sums)) and " nats [" in answer(compare(df, sums))


@pytest.mark.parametrize("documents", [None, 1, 9])
def test_without_an_interval_there_is_no_verdict(documents):
    df, sums = on_text(("a", 32, 0.1), ("b", 32, 0.2), text=texts(documents or 40))
    gap = gaps(df, sums if documents else None)["a", "b", 32]
    assert gap["verdict"] == "none" and gap["low"] is gap["high"] is gap["varied"] is gap["p"] is None
    words = answer(compare(df, sums if documents else [None, None]))
    assert "this a has no interval against this b at 32 (50" in words and "better than" not in words


def test_equal_within_1_percent_and_not_significant_are_two_verdicts():
    same, sums = on_text(("a", 32, 0.1), ("b", 32, 0.1), text=texts(400))
    assert gaps(same, sums)["a", "b", 32]["verdict"] == "equal"
    few, sums = on_text(("a", 32, 0.1), ("b", 32, 0.1), text=texts(12))
    assert gaps(few, sums)["a", "b", 32]["verdict"] == "open"


def test_comparisons_are_counted_and_marked_if_significant_after_holm():
    factors = {"a": 1, "b": 1.003, "c": 1.5}
    df, sums = on_text(*[(arch, x, factor * power(x)) for arch, factor in factors.items() for x in (16, 32)])
    comparison = compare(df, sums, reference="a")
    all_of_them = [*comparison["places"][0]["metrics"]["fvu"]["gaps"], *comparison["places"][0]["metrics"]["fvu"]["means"]]
    tested = sorted((one for one in all_of_them if one.get("p") is not None), key=lambda one: one["p"])
    assert comparison["comparisons"] == len(tested) == 8
    survive = [one["p"] <= 0.05 / (8 - i) for i, one in enumerate(tested)]
    cut = survive.index(False) if False in survive else 8
    assert [one["holm"] for one in tested] == [True] * cut + [False] * (8 - cut) and 0 < cut < 8
    words = answer(comparison)
    assert "8 comparisons; * marks those significant after Holm's correction" in words and "]*" in words


# Missing values


def test_failed_unfinished_and_unmeasured_saes_are_excluded():
    failed, unfinished = {"state": "failed", "sparsity": 32}, {"state": "unfinished", "sparsity": 32}
    df = table(("a", 16, 0.1), ("a", 32, 0.08), ("b", 16, 0.12), ("b", math.nan, math.nan, failed),
               ("c", math.nan, math.nan, unfinished), ("d", 48, math.nan))
    one = found(df)
    assert [curve["arch"] for curve in one["curves"]] == ["a", "b"] and set(gaps(df)) == {("a", "b", 16)}
    assert "delta_loss" not in compare(df, [None] * len(df))["places"][0]["metrics"]


def test_a_sweep_without_finished_saes_has_an_empty_comparison():
    assert compare(table(), [])["places"] == []
    assert compare(table(("a", 32, math.nan)), [None])["places"][0]["metrics"] == {}


# Pareto fronts and means


def test_the_front_contains_the_points_that_no_other_dominates():
    df = table(("a", 16, 0.1), ("b", 16, 0.1, {"sparsity": 17}), ("a", 20, 0.12), ("a", 32, 0.08), ("b", 64, 0.08))
    assert found(df)["front"] == ["resid/a/16.0", "resid/b/17.0", "resid/a/32.0"]


def test_the_mean_is_over_log_l0_at_the_l0_common_to_all_curves():
    df = table(("flat", 8, 0.1), ("flat", 16, 0.1), ("flat", 32, 0.1), ("flat", 128, 0.1),
               ("topk", 16, 0.12), ("topk", 32, 0.06), ("topk", 128, 0.02))
    one = found(df)
    means = {mean["arch"]: mean["mean"] for mean in one["means"]}
    expected = (1 * (0.12 + 0.06) / 2 + 2 * (0.06 + 0.02) / 2) / 3
    assert one["mean_over_l0"] == [16, 32, 128] and means == {"flat": pytest.approx(0.1), "topk": pytest.approx(expected)}
    percents = {mean["arch"]: mean.get("percent") for mean in one["means"]}
    assert one["reference"] == "topk" and percents == {"flat": pytest.approx(100 * (1 - 0.1 / expected)), "topk": None}


def test_means_are_compared_with_the_given_reference():
    df = table(*[(arch, l0, value) for arch, value in (("topk", 0.1), ("relu", 0.2), ("gated", 0.15)) for l0 in (16, 64)])
    one = found(df, reference="relu")
    percents = {mean["arch"]: round(mean.get("percent", 0)) for mean in one["means"]}
    assert one["reference"] == "relu" and percents == {"topk": 50, "gated": 25, "relu": 0}


def test_without_a_common_l0_there_is_no_mean():
    one = found(table(("a", 8, 0.2), ("a", 16, 0.1), ("b", 32, 0.1), ("b", 64, 0.05)))
    assert one["mean_over_l0"] == one["means"] == one["gaps"] == []


# Intervals from documents


def test_a_ratio_that_is_equal_on_every_document_has_an_interval_of_width_0():
    text = texts()
    hard = np.random.default_rng(1).uniform(0.02, 0.5, len(text))
    sums = [measured(text, 32, hard * 0.9), measured(text, 32, hard)]
    gap = gaps(table(row("a", 32, sums[0]), row("b", 32, sums[1])), sums)["a", "b", 32]
    assert (gap["percent"], gap["percent_low"], gap["percent_high"]) == pytest.approx((10, 10, 10))
    assert gap["varied"] == "40 documents" and gap["one_seed"]


def test_with_many_documents_the_interval_has_the_width_of_the_delta_method():
    text, random = texts(400), np.random.default_rng(2)
    sums = [measured(text, 32, value) for value in (random.uniform(0.08, 0.1, 400), random.uniform(0.06, 0.12, 400))]
    (gap,) = gaps(table(row("a", 32, sums[0]), row("b", 32, sums[1])), sums).values()
    a, b = (d["error"].to_numpy() for d in (sums if gap["a"] == "a" else sums[::-1]))
    influence = (b - a - gap["difference"] * text["variance"].to_numpy()) / text["variance"].sum()
    assert gap["high"] - gap["low"] == pytest.approx(2 * 1.96 * math.sqrt((influence**2).sum()), rel=0.03)
    assert gap["low"] < gap["difference"] < gap["high"]


def test_delta_loss_resamples_only_documents_with_a_loss():
    scored, random = np.where(np.arange(40) < 12, 100.0, 0.0), np.random.default_rng(4)
    df, sums = losses(40, 0.2 * random.uniform(0.9, 1.1, 40), 0.25 * random.uniform(0.9, 1.1, 40))
    for one in sums:
        one[["nats_clean", "nats_sae"]] = one[["nats_clean", "nats_sae"]].mul(scored / 100, axis=0)
        one["scored"] = scored
    gap = gaps(df, sums, measure="delta_loss")["a", "b", 32]
    assert gap["varied"] == "12 documents" and gap["verdict"] == "better" and 0.03 < gap["low"] < gap["high"] < 0.07


def test_fvu_compares_saes_that_score_predictions_of_other_documents():
    sums = [noisy(texts(), 32, 0.1, 0), noisy(texts(), 32, 0.11, 1)]
    df, others = table(("a", 32, 0.1), ("b", 32, 0.11)), pd.DataFrame(0.0, range(7), sums[1].columns)
    assert found(df, [sums[0], pd.concat([sums[1], others])]) == found(df, sums)


def test_saes_measured_on_different_text_are_not_compared():
    one, other = texts(40, 0), texts(40, 1)
    sums = [noisy(one, 32, 0.1, 0), noisy(one, 32, 0.11, 1), noisy(other, 32, 0.12, 2)]
    df = table(("a", 32, 0.1), ("b", 32, 0.11), ("c", 32, 0.12))
    both = found(df, sums)
    assert [(gap["a"], gap["b"]) for gap in both["gaps"]] == [("a", "b")] and both["on_other_text"] == [["a", "c"], ["b", "c"]]
    assert both["gaps"] == found(df[:2], sums[:2])["gaps"] and both["gaps"][0]["varied"] == "40 documents"
    assert both["means"] == []


def test_texts_of_equal_lengths_differ_by_content_and_the_dtype_does_not_matter():
    one, other = (texts(40, seed).assign(tokens=128.0) for seed in (0, 1))
    df = table(("a", 32, 0.1), ("b", 32, 0.2))
    assert found(df, [noisy(one, 32, 0.1, 0), noisy(other, 32, 0.2, 1)])["on_other_text"] == [["a", "b"]]
    assert gaps(df, [noisy(one, 32, 0.1, 0), noisy(one, 32, 0.2, 1).astype({"tokens": int})])["a", "b", 32]["low"] is not None


def test_an_sae_without_documents_removes_the_interval_at_its_own_l0_only():
    points = [(arch, x, factor * power(x)) for arch, factor in (("a", 1), ("b", 1.2)) for x in (16, 32, 64, 128)]
    df, sums = on_text(*points)
    verdicts = {x: gap["verdict"] for (_, _, x), gap in gaps(df, [*sums[:3], None, *sums[4:]]).items()}
    assert verdicts[16] == "better" and verdicts[128] == "none"


def test_a_single_comparison_is_not_corrected():
    df, sums = on_text(("a", 16, 0.1), ("b", 16, 0.2))
    assert "*" not in answer(compare(df, sums)) and "Holm" not in answer(compare(df, sums))


def test_an_sae_without_documents_is_compared_without_an_interval():
    gap = gaps(table(("a", 32, 0.1), ("b", 32, 0.11)), [measured(texts(), 32, 0.1), None])["a", "b", 32]
    assert gap["percent"] == pytest.approx(100 / 11) and gap["low"] is gap["high"] is gap["varied"] is None
    assert gap["verdict"] == "none"


# Intervals from seeds


def seeds(arch, values, l0=32):
    return [(arch, l0, value, {"seed": seed}) for seed, value in enumerate(values)]


def test_with_several_seeds_the_interval_is_welchs():
    a, b = np.array([0.095, 0.100, 0.098]), np.array([0.105, 0.108, 0.110, 0.109])
    gap = gaps(table(*seeds("a", a), *seeds("b", b)))["a", "b", 32]
    welch = stats.ttest_ind(b, a, equal_var=False)
    assert (gap["low"], gap["high"]) == pytest.approx(tuple(welch.confidence_interval()))
    assert gap["p"] == pytest.approx(welch.pvalue)
    assert gap["varied"] == "3 and 4 seeds" and not gap["one_seed"] and gap["verdict"] == "better"
    assert "a is better than b at 32" in answer(compare(table(*seeds("a", a), *seeds("b", b)), [None] * 7))


def test_the_interval_covers_seeds_and_documents():
    df, sums = on_text(*seeds("a", [0.095, 0.100, 0.098]), *seeds("b", [0.105, 0.108, 0.110]))
    without, both = (gaps(df, known)["a", "b", 32] for known in (None, sums))
    assert both["varied"] == "3 seeds and 40 documents" and without["varied"] == "3 seeds"
    alone = gaps(df[df["seed"] == 0].reset_index(drop=True), [sums[0], sums[3]])["a", "b", 32]
    assert alone["one_seed"] and alone["varied"] == "40 documents" and not both["one_seed"]
    assert both["high"] - both["low"] > alone["high"] - alone["low"], "seeds vary by more than the documents"


def test_a_curve_with_one_seed_uses_the_seed_variance_of_another_curve():
    df, sums = on_text(*seeds("a", [0.090, 0.110, 0.098]), ("b", 32, 0.105))
    gap = gaps(df, sums)["a", "b", 32]
    assert gap["verdict"] == "open" and gap["varied"] == "the 3 seeds of a and 40 documents"
    df, sums = on_text(("a", 32, 0.098), ("b", 32, 0.105), *seeds("c", [0.15, 0.17, 0.16]))
    assert gaps(df, sums)["a", "b", 32]["verdict"] == "open", "a third architecture's seeds differ by more than these two SAEs"
    assert gaps(df[:2], sums[:2])["a", "b", 32]["verdict"] == "better", "on this text, the two SAEs differ"


@pytest.mark.slow
@pytest.mark.parametrize("several", [2, 3])
@pytest.mark.parametrize("third", [False, True])
def test_a_borrowed_seed_variance_has_the_degrees_of_freedom_of_its_source(several, third):
    """All from one distribution: one SAE against several, or two with a third architecture's seeds; at most 5% are better."""
    random, wrong, text = np.random.default_rng(0), 0, texts()
    for _ in range(DRAWS):
        values = random.normal(0.1, 0.004, several + 2)
        others = seeds("c", values[2:])
        df, sums = on_text(("a", 32, values[0]), *([("b", 32, values[1])] if third else []), *others, text=text)
        gap = gaps(df, sums)["a", "b" if third else "c", 32]
        assert gap["varied"] == f"the {several} seeds of c and 40 documents"
        wrong += gap["verdict"] in ("better", "worse")
    assert wrong <= at_most(DRAWS)


def test_the_seed_variance_on_another_text_is_not_used():
    df = table(("a", 32, 0.5), ("b", 32, 0.51), *seeds("c", [0.5, 0.6, 0.7]))
    sums = [noisy(texts(40, int(i > 1)), 32, fvu, i) for i, fvu in enumerate(df["fvu"])]
    assert gaps(df, sums)["a", "b", 32]["one_seed"]


@pytest.mark.slow
def test_the_interval_of_a_mean_over_interpolated_l0_counts_each_seed_once():
    """One architecture at 3 L0 against itself at 14: the same seeds enter many L0 of the mean."""
    random, wrong = np.random.default_rng(0), 0
    for _ in range(DRAWS // 4):
        def drawn(arch, l0s, random=random):
            each = [(x, s) for x in l0s for s in range(4)]
            return [(arch, x, power(x, 0.05) * random.normal(1, 0.01), {"seed": s, "sparsity": x}) for x, s in each]

        df = table(*drawn("a", (16, 32, 64)), *drawn("b", [round(16 * 4 ** (i / 13), 3) for i in range(14)]))
        (mean,) = [mean for mean in found(df, reference="a")["means"] if mean["arch"] == "b"]
        wrong += mean["verdict"] in ("better", "worse")
    assert wrong <= at_most(DRAWS // 4)


def test_seeds_at_different_l0_on_one_curve_give_no_verdict():
    at = {"a": [20.0, 20.2, 19.8, 50.0, 49.5, 50.5], "b": [32.0, 31.9, 32.1, 31.8, 32.2, 32.0]}
    points = [(arch, x, power(x), {"seed": s, "sparsity": 32}) for arch, xs in at.items() for s, x in enumerate(xs)]
    points += [(arch, x, power(x), {"seed": s}) for arch in at for x in (16.0, 64.0) for s in range(6)]
    verdicts = {gap["verdict"] for gap in gaps(table(*points), [measured(texts(), p[1], p[2]) for p in points]).values()}
    assert not verdicts & {"better", "worse"}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_an_architecture_is_rarely_better_than_itself_with_other_seeds(count):
    """In at most 5% of the draws (plus 2 standard errors) with three seeds each, and never with one."""
    random, wrong, text = np.random.default_rng(0), 0, texts()
    for _ in range(DRAWS):
        values = random.normal(0.1, 0.002, 2 * count)
        df, sums = on_text(*seeds("a", values[:count]), *seeds("b", values[count:]), text=text)
        gap = gaps(df, sums)["a", "b", 32]
        wrong += gap["verdict"] in ("better", "worse") and not gap["one_seed"]
    assert wrong <= (at_most(DRAWS) if count > 1 else 0)


def test_the_curve_has_the_means_over_seeds_and_their_intervals():
    values = [0.10, 0.12, 0.11]
    (curve,) = found(table(*seeds("a", values)))["curves"]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (curve["mean"], curve["low"], curve["high"]) == ([pytest.approx(0.11)], [pytest.approx(low)], [pytest.approx(high)])
