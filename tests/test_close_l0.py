"""Comparisons of SAEs that are up to 15% apart in L0: which slope corrects it, within what bound, and how it is said."""
import math

import numpy as np
import pandas as pd
import pytest
from test_compare import gaps, measured, on_text, power, row, table, texts

from saesweep.report.compare import compare
from saesweep.report.matching import lagrange_weights, secants
from saesweep.report.pareto import answer
from saesweep.report.slopes import PRIOR, slope_range

# L0 and the mean over three seeds of FVU and delta loss: resid.9 of Gemma 3 270M, resid.15 of SmolLM2 135M, 300,000 tokens
GEMMA = {
    "jumprelu": ((16.36, 32.68, 65.16), (0.1286, 0.1011, 0.0805), (0.4248, 0.3018, 0.2300)),
    "topk": ((16.00, 32.00, 64.00), (0.1297, 0.1018, 0.0815), (0.4769, 0.3183, 0.2159)),
    "gated": ((16.39, 32.71, 65.41), (0.1343, 0.1075, 0.0857), (0.5414, 0.3848, 0.2985)),
}
SMOLLM2 = {
    "jumprelu": ((16.82, 33.42, 66.06), (0.2084, 0.1751, 0.1455), (0.2310, 0.1418, 0.0854)),
    "topk": ((16.00, 32.00, 64.00), (0.2091, 0.1756, 0.1472), (0.2607, 0.1478, 0.0990)),
    "gated": ((16.88, 33.48, 66.37), (0.2114, 0.1751, 0.1433), (0.2378, 0.1277, 0.0795)),
}

BEFORE = {  # percent, its interval, verdict
    ("jumprelu", "gated", 16): [4.709, 3.579, 5.840, "better"], ("jumprelu", "gated", 33): [5.123, 3.880, 6.366, "better"],
    ("jumprelu", "gated", 65): [6.083, 4.710, 7.456, "better"], ("jumprelu", "topk", 16): [0.734, -0.708, 2.176, "open"],
    ("jumprelu", "topk", 32): [-0.468, -2.014, 1.078, "open"], ("jumprelu", "topk", 64): [0.383, -1.112, 1.877, "open"],
    ("topk", "gated", 16): [4.004, 2.337, 5.670, "better"], ("topk", "gated", 32): [5.556, 4.001, 7.111, "better"],
    ("topk", "gated", 64): [5.699, 4.317, 7.081, "better"],
}


def only(found):
    (gap,) = found.values()
    return gap


def exact(*points, **more):
    """Points (arch, l0, fvu) without noise on 40 documents."""
    sums = [measured(texts(), l0, fvu) for _, l0, fvu in points]
    return table(*[row(arch, l0, one) for (arch, l0, _), one in zip(points, sums, strict=True)], **more), sums


# Which slope


def test_single_points_move_along_the_prior_slope_to_the_l0_halfway():
    gap = only(gaps(*exact(("a", 32, 0.100), ("b", 35.28, 0.110), sparsity=32)))
    low, high = PRIOR["fvu"]
    half = math.log(35.28 / 32) / 2
    assert (gap["sparsity"], gap["l0"], gap["slope_a"], gap["slope_b"]) == (32, pytest.approx(33.6, rel=1e-4), "prior", "prior")
    assert gap["value_a"] == pytest.approx(0.1 * (1 + (low + high) / 2 * half), rel=1e-5) == pytest.approx(0.0970727, rel=1e-5)
    assert gap["value_b"] == pytest.approx(0.11 * (1 - (low + high) / 2 * half), rel=1e-5)
    assert gap["error"] == pytest.approx((high - low) / 2 * half * 0.21, rel=1e-4)


def test_a_point_without_neighbours_moves_along_the_slope_of_the_hook_points_curves():
    """FVU falls as L0^-0.34 on a: its secant is -0.3408, the range that and a sixth of the prior's width, 0.2, either way."""
    df, sums = exact(("a", 32, power(32)), ("a", 64, power(64)), ("b", 35.2, 1.2 * power(35.2)))
    gap = only(gaps(df, sums))
    half = math.log(1.1) / 2
    assert (gap["slope_a"], gap["slope_b"]) == ("own", "hook point")
    assert gap["value_b"] == pytest.approx(1.2 * power(35.2) * (1 + 0.340787 * half), rel=1e-5)
    assert gap["error"] == pytest.approx(0.2 * half * 1.2 * power(35.2) + power(32) - gap["value_a"], rel=1e-3)
    slopes = "a's own slope and the slope pooled over the hook point's curves"
    assert f"L0 32 and 35.2, 10.0% apart, corrected by {slopes} within" in answer(compare(df, sums))


def test_curves_of_two_points_a_few_percent_apart_are_compared_by_their_own_slopes():
    a, b = [("a", x, power(x)) for x in (32, 64)], [("b", x, 1.5 * power(x)) for x in (29, 58)]
    df, sums = exact(*a, *b)
    found = gaps(df, sums)
    assert {(gap["slope_a"], gap["slope_b"], gap["verdict"]) for gap in found.values()} == {("own", "own", "better")}
    assert sorted(gap["l0"] for gap in found.values()) == [pytest.approx(math.sqrt(32 * 29)), pytest.approx(math.sqrt(64 * 58))]
    assert "10.3% apart, corrected by their own slopes within" in answer(compare(df, sums))


def test_the_slope_of_another_hook_point_of_the_same_model_has_twice_the_margin():
    near, far = exact(("a", 32, 0.1), ("b", 34, 0.1)), exact(("c", 32, power(32)), ("c", 64, power(64)), site="mlp")

    def found(**other):
        df = pd.concat([near[0], far[0].assign(**other)], ignore_index=True)
        return next(p for p in compare(df, near[1] + far[1])["places"] if p["site"] == "resid")["metrics"]["fvu"]["gaps"][0]

    same, elsewhere = found(), found(model="another")
    assert (same["slope_a"], elsewhere["slope_a"]) == ("model", "prior")
    half = math.log(34 / 32) / 2
    assert (same["error"], elsewhere["error"]) == (pytest.approx(0.4 * 0.2 * half), pytest.approx(0.6 * 0.2 * half))


def test_slopes_at_a_far_l0_are_not_pooled():
    for l0, source in ((64, "hook point"), (128, "prior")):
        points = [("a", 16, 0.2), ("a", 32, 0.16), ("b", l0, 0.1), ("c", 1.06 * l0, 0.1)]
        assert gaps(*exact(*points))["b", "c", float(f"{l0 * 1.06**0.5:.3g}")]["slope_a"] == source


def test_a_point_with_the_same_l0_is_not_moved_and_nothing_is_said():
    df, sums = on_text(("a", 32, 0.08), ("b", 32, 0.1))
    gap = only(gaps(df, sums))
    assert gap["error"] == 0 and "apart" not in answer(compare(df, sums))


def test_points_over_15_percent_apart_are_not_compared():
    assert len(gaps(*exact(("a", 32, 0.1), ("b", 36.7, 0.1)))) == 1 and gaps(*exact(("a", 32, 0.1), ("b", 36.9, 0.1))) == {}


def test_a_difference_is_significant_only_beyond_the_bound():
    """At 10% apart the prior's bound is 5.7%: a difference of 4% is not significant, one of 20% is."""
    target = {"sparsity": 32}
    for factor, verdict in ((0.96, "open"), (1.2, "better")):
        df, sums = on_text(("a", 32, power(32), target), ("b", 35.2, factor * power(35.2), target), text=texts(400))
        assert only(gaps(df, sums))["verdict"] == verdict
    assert "this a is better than this b at 32 by 1" in answer(compare(df, sums))
    assert "(L0 32 and 35.2, 10.0% apart, corrected by the prior range of slopes within 5." in answer(compare(df, sums))


def test_a_loss_near_0_is_corrected_in_nats():
    text, l0s = texts().assign(scored=100.0, nats_clean=200.0), (32, 33.6)
    sums = [measured(text, l0, 0.1).assign(nats_sae=200.0 + 100 * loss) for l0, loss in zip(l0s, (0.001, -0.001), strict=True)]
    points = [(arch, l0, 0.1, {"delta_loss": d}) for arch, l0, d in zip("ab", l0s, (0.001, -0.001), strict=True)]
    df = table(*points, sparsity=32)
    assert "5.0% apart, corrected by the prior range of slopes within 0.0073 nats" in answer(compare(df, sums))
    assert {gap["verdict"] for gap in gaps(df, sums, measure="delta_loss").values()} <= {"open"}


# How often the bound covers


@pytest.mark.parametrize("p", [0.05, 0.2, 0.34, 0.6, 1.0, 1.15])
@pytest.mark.parametrize("apart", [1.01, 1.05, 1.1, 1.149, 0.9])
def test_an_architecture_with_one_target_is_never_better_than_itself(p, apart):
    alone = [("a", 32, power(32, p)), ("b", 32 * apart, power(32 * apart, p))]
    assert only(gaps(*exact(*alone)))["verdict"] in ("open", "equal")
    pooled = [*alone, *(("c", x, power(x, p - 0.1)) for x in (16, 32, 64))]
    found = gaps(*exact(*pooled))
    assert {gap["verdict"] for (a, b, _), gap in found.items() if {a, b} == {"a", "b"}} <= {"open", "equal"}


@pytest.mark.parametrize("curves", [GEMMA, SMOLLM2], ids=["gemma", "smollm2"])
@pytest.mark.parametrize("which", [0, 1], ids=["fvu", "delta_loss"])
@pytest.mark.parametrize("scope", ["prior", "hook point"])
def test_the_bound_covers_real_curves_of_which_one_has_a_single_target(curves, which, scope):
    """Moved by 10% of L0, more than any comparison does; the truth is the parabola through the curve's three points."""
    measure = ("fvu", "delta_loss")[which]
    numbers = {arch: (np.log(values[0]), np.array(values[1 + which])) for arch, values in curves.items()}
    lines = {arch: secants(x, y, y) for arch, (x, y) in numbers.items()}
    for arch, (x, y) in numbers.items():
        others = [line for other in curves if other != arch and scope != "prior" for line in lines[other]]
        for i, shift in ((0, 1.1), (1, 1 / 1.1), (1, 1.1), (2, 1 / 1.1)):
            wanted = x[i] + math.log(shift)
            found = slope_range(others, [], measure, wanted)
            moved = y[i] * (1 + found.middle * math.log(shift))
            bound = found.half_width * y[i] * math.log(1.1)
            assert found.source == scope and abs(moved - float((lagrange_weights(x[None], wanted)[0] * y).sum())) <= bound


def test_a_full_sweep_has_the_verdicts_that_it_had_before_points_were_moved_along_pooled_slopes():
    """Gemma's three curves with noise on 40 documents, as compared before: percentages and ends of their intervals."""
    points = [(arch, x, v) for arch, (l0, fvu, _) in GEMMA.items() for x, v in zip(l0, fvu, strict=True)]
    found = gaps(*on_text(*points))
    assert {gap["slope_a"] for gap in found.values()} == {gap["slope_b"] for gap in found.values()} == {"own"}
    assert {key: [round(gap[end], 3) for end in ("percent", "percent_low", "percent_high")] + [gap["verdict"]]
            for key, gap in found.items()} == BEFORE


# The measured L0


def test_l0_off_its_target_is_said_with_its_interval_over_documents():
    text = texts()
    sums = [measured(text, np.linspace(29, 39, 40), 0.1), measured(text, 32, 0.2)]
    l0 = float(sums[0]["active"].sum() / text["tokens"].sum())
    df = table(row("gated", l0, sums[0], sparsity=32), row("topk", 32, sums[1]))
    words = ("L0 is up to 5.9% off its target (gated at resid.9: 33.9 [32.9, 34.9] for 32, over documents); the interval "
             "contains the target at 0 of 1 points.")
    assert words in answer(compare(df, sums))
    assert "off its target" not in answer(compare(*on_text(("a", 32.1, 0.08), ("b", 32, 0.1))))
