"""Which architecture is more interpretable at the same L0: known answers are planted and found."""

import math

import numpy as np
import pandas as pd
import pytest
from made_study import around, made, sae
from scipy import stats

from saesweep.report.intervals import Variance, holm, interval
from saesweep.report.matching import value_at
from saesweep.study.comparison import joint, means, sentences
from saesweep.study.comparison.replicates import Means, Replicates, draw
from saesweep.study.comparison.report import blocks, report
from saesweep.study.comparison.summaries import lines
from saesweep.study.comparison.summary import summary

PRIMARY = ("rule", "coverage", "yes")


def reported(*saes, delta=0.05, primary=PRIMARY, replicates=None):
    return report(made(*saes, replicates=replicates), delta=delta, primary=primary)


def block(found, score="rule", mean="uniform"):
    (one,) = [b for b in blocks(found["places"]) if (b["score"], b["mean"]) == (score, mean)]
    return one


def varied(row):
    """What the interval is over, in words."""
    return sentences.over([row]).removeprefix(" (95% interval over ").removesuffix(")")


def details(found):
    """All sentences of the only hook point."""
    (place,) = found["places"]
    answers = sentences.place_answers(found, place).values()
    return "\n".join([*(one for said in answers for one in said), *sentences.scope(found)])


def gap(*saes, score="rule", mean="uniform", **more):
    (found,) = block(reported(*saes, **more), score, mean)["gaps"]
    return found


# Means


def test_the_means_of_the_worked_example():
    s, f, pi = np.array([0.2, 0.4, 0.6, 0.8, 0.1]), np.array([0.001, 0.002, 0.004, 0.003, 0.2]), np.array([0.5] * 4 + [1.0])
    assert means.mean(s, 1 / pi) == pytest.approx(0.4556, abs=5e-5)
    assert means.by_frequency(s, 1 / pi, f) == pytest.approx(0.1436, abs=5e-5)


def test_a_missing_score_is_left_out_and_is_not_a_zero():
    s, w = np.array([0.2, math.nan, 0.6]), np.array([1.0, 5.0, 1.0])
    assert means.mean(s, w) == pytest.approx(0.4) and math.isnan(means.mean(s[1:2], w[1:2]))
    assert means.effective_count(s, w) == 2


def test_the_mean_with_zeros_counts_dead_and_rare_latents():
    found = made(sae(rule=around(0.6), shares={"dead": 0.2, "rare": 0.3, "eligible": 0.5}))
    (number,) = found.numbers["rule", "with_zeros"]
    assert number is not None and number.value == pytest.approx(0.3)


def test_latents_of_a_single_token_are_left_out_of_the_mean_over_several_tokens():
    found = made(sae(rule=np.append(np.ones(100), around(0.3, 100)), single_token=[1.0] * 100 + [0.0] * 100, words=["x"] * 200))
    assert [number and number.value for number in found.numbers["rule", "uniform"]] == pytest.approx([0.65])
    assert [number and number.value for number in found.numbers["rule", "several_tokens"]] == pytest.approx([0.3])
    assert "words" not in found.scores


def test_the_variance_over_equal_features_is_that_of_a_mean():
    s = around(0.5, 50)
    variance = means.mean_variance(s, np.ones(50))
    assert variance is not None and variance.value == pytest.approx(s.var(ddof=1) / 50) and variance.df == pytest.approx(49)


# Seeds


def test_several_seeds_give_student_over_the_paired_differences():
    a, b = (0.70, 0.62, 0.66), (0.60, 0.55, 0.53)
    found = gap(*(sae("jumprelu", seed=i, rule=around(v, seed=i)) for i, v in enumerate(a)),
                *(sae("topk", seed=i, rule=around(v, seed=9 + i)) for i, v in enumerate(b)))
    d = np.subtract(a, b)
    half = stats.t.ppf(0.975, 2) * d.std(ddof=1) / math.sqrt(3)
    assert found["estimate"] == pytest.approx(d.mean()) and not found["one_seed"]
    assert sentences.over([found]) == " (95% interval over 3 seeds and 300 features of each SAE)"
    assert (found["low"], found["high"]) == pytest.approx((d.mean() - half, d.mean() + half))
    assert found["p"] == pytest.approx(stats.ttest_rel(a, b).pvalue)


def test_a_seed_effect_that_both_share_is_not_in_the_interval():
    shift = (0.0, 0.2, -0.2)
    found = gap(*(sae("jumprelu", seed=i, rule=around(0.6 + v + 0.001 * i)) for i, v in enumerate(shift)),
                *(sae("topk", seed=i, rule=around(0.5 + v)) for i, v in enumerate(shift)))
    assert found["verdict"] == "better" and found["high"] - found["low"] < 0.01


def test_only_seeds_that_both_have_are_paired_and_one_pair_is_one_seed():
    several = [sae("jumprelu", seed=i, rule=around(v)) for i, v in enumerate((0.7, 0.1, 0.1))]
    found = gap(*several, sae("topk", rule=around(0.5)))
    assert found["one_seed"] and found["estimate"] == pytest.approx(0.2) and varied(found) == "300 features of each SAE"


def test_the_mean_over_l0_where_no_seed_is_shared_at_all_of_them_is_of_the_means_over_seeds():
    saes = [sae(arch, l0, seed=seed, rule=around(value)) for arch, l0, seed, value in (
        ("jumprelu", 16.0, 0, 0.7), ("jumprelu", 16.0, 1, 0.9), ("jumprelu", 32.0, 0, 0.8), ("jumprelu", 32.0, 1, 0.8),
        ("topk", 16.0, 0, 0.5), ("topk", 32.0, 2, 0.6))]
    block = report(made(*saes), delta=0.05, primary=("rule",))["places"][0]["scores"][0]
    assert [row["estimate"] for row in block["gaps"]] == pytest.approx([0.2, 0.2])  # seed 0; the means
    (mean,) = block["means"]
    assert mean["one_seed"] and mean["value_a"] == pytest.approx(0.8) and mean["estimate"] == pytest.approx(0.25)


def test_one_seed_has_the_variance_of_the_features_of_both():
    a, b = around(0.6, 300, seed=1), around(0.5, 200, seed=2)
    found = gap(sae("jumprelu", rule=a), sae("topk", rule=b))
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((welch.low, welch.high), abs=1e-6)
    assert varied(found) == "200 to 300 features of each SAE" and found["one_seed"]


@pytest.mark.parametrize(("count", "half"), [(300, 0.040), (1000, 0.022)])
def test_so_many_features_a_side_put_so_much_on_a_difference(count, half):
    a, b = (0.5 + 0.25 * stats.zscore(around(0, count, seed=seed), ddof=1) for seed in (1, 2))
    found = gap(sae("jumprelu", rule=a), sae("topk", rule=b))
    assert (found["high"] - found["low"]) / 2 == pytest.approx(half, abs=5e-4)


# Verdicts


def test_three_verdicts_and_the_difference_that_is_real_but_small():
    def verdict(b, count):
        return gap(sae("a", rule=around(0.6, count)), sae("b", rule=around(b, count, seed=1)))

    assert verdict(0.5, 1000)["verdict"] == "better" and not verdict(0.5, 1000)["within"]
    assert verdict(0.7, 1000)["verdict"] == "worse"
    assert verdict(0.6, 1000)["verdict"] == "equal"
    assert verdict(0.6, 100)["verdict"] == "open"
    small = verdict(0.585, 4000)
    assert small["verdict"] == "better" and small["within"]


def test_equality_needs_an_interval_within_delta():
    saes = sae("a", rule=around(0.6, 1000)), sae("b", rule=around(0.6, 1000, seed=1))
    assert gap(*saes, delta=0.05)["verdict"] == "equal" and gap(*saes, delta=0.01)["verdict"] == "open"


@pytest.mark.parametrize("count", [1, 2, 5, 9, 10, 30, 59])
@pytest.mark.parametrize("sd", [0.0, 0.01, 0.25])
def test_few_features_of_one_seed_are_never_equal(count, sd):
    found = gap(sae("a", rule=around(0.6, count, sd)), sae("b", rule=around(0.6, count, sd, seed=1)))
    assert found["verdict"] == ("none" if count < 10 else "open")


def test_seeds_of_the_same_number_are_not_equal_for_that_alone():
    saes = [sae(arch, seed=i, coverage=0.6) for arch in "ab" for i in range(2)]
    assert gap(*saes, score="coverage")["verdict"] == "open"


def test_a_score_of_one_sae_without_documents_has_no_interval():
    found = gap(sae("a", coverage=0.6), sae("b", coverage=0.6), score="coverage")
    assert found["verdict"] == "none" and found["low"] is None and found["varied"] is None


def test_less_absorption_is_better_and_a_score_that_describes_is_higher_or_lower():
    def found(score):
        values = {"a": (0.2, 0.21, 0.23), "b": (0.4, 0.41, 0.42)}
        return gap(*(sae(arch, seed=i, **{score: v}) for arch in "ab" for i, v in enumerate(values[arch])), score=score)

    assert found("absorption")["verdict"] == "better" and found("logit_kurtosis")["verdict"] == "lower"


# Holm


def test_holm_runs_over_the_primary_scores_only():
    points = [(arch, l0, v) for l0 in (16.0, 32.0, 64.0) for arch, v in (("a", 0.6), ("b", 0.51))]
    draws = [around(v, 100, seed=k) for k, (_, _, v) in enumerate(points)]
    found = reported(*(sae(arch, l0, rule=s, lookup_token=s) for (arch, l0, _), s in zip(points, draws, strict=True)))
    both = block(found, "rule"), block(found, "rule", "by_frequency")
    primary = [row for one in both for row in one["gaps"] + one["means"]]
    assert found["comparisons"] == len(primary) == 8
    assert [row["holm"] for row in primary] == holm([row["p"] for row in primary])
    other = block(found, "lookup_token")
    assert not other["primary"] and not any(row["holm"] for row in other["gaps"] + other["means"])


# Matched L0


def test_values_at_equal_l0_are_those_of_the_report():
    l0, at_a, at_b = (16.0, 31.0, 66.0), (0.40, 0.55, 0.62), (0.35, 0.47, 0.60)
    saes = [sae("a", x, sparsity=s, rule=around(v)) for x, s, v in zip(l0, (16, 32, 64), at_a, strict=True)]
    saes += [sae("b", float(s), rule=around(v)) for s, v in zip((16, 32, 64), at_b, strict=True)]
    found = block(reported(*saes))["gaps"]
    assert [row["sparsity"] for row in found] == [16, 32, 64] and found[1]["l0"] == pytest.approx(math.sqrt(31 * 32), rel=1e-5)
    x, y = np.log([l0]), np.array([at_a])
    for row in found:
        expected = value_at(x, y, y[0], math.log(row["l0"]))
        assert expected is not None and row["value_a"] == pytest.approx(float(expected.rows[0]))
        assert row["error"] >= expected.error


def test_the_bound_on_the_error_of_matching_widens_the_interval():
    exact = gap(sae("a", 32.0, rule=around(0.6)), sae("b", 32.0, rule=around(0.5, seed=1)))
    apart = gap(sae("a", 31.5, sparsity=32, rule=around(0.6)), sae("b", 32.5, sparsity=32, rule=around(0.5, seed=1)))
    assert exact["error"] == 0 and apart["error"] > 0.01
    assert apart["high"] - apart["low"] == pytest.approx(exact["high"] - exact["low"] + 2 * apart["error"])


def test_far_l0_are_not_compared_and_an_interpolated_value_is_named():
    assert block(reported(sae("a", 16.0, rule=around(0.6)), sae("b", 64.0, rule=around(0.5))))["gaps"] == []
    saes = [sae("a", l0, rule=around(0.5)) for l0 in (16.0, 32.0, 64.0)] + [sae("b", 24.0, rule=around(0.4))]
    assert {row["interpolated"] for row in block(reported(*saes))["gaps"]} == {"a"}


def test_the_mean_over_l0_weighs_differences_by_log_l0():
    saes = [sae(arch, l0, seed=i, rule=around(0.5 + shift * k + 0.01 * i * (arch == "a")))
            for arch, shift in (("a", 0.1), ("b", 0.0)) for k, l0 in enumerate((16.0, 32.0, 64.0)) for i in range(3)]
    (found,) = block(reported(*saes))["means"]
    assert found["estimate"] == pytest.approx(0.25 * 0 + 0.5 * 0.1 + 0.25 * 0.2 + 0.01) and found["over_l0"] == [16, 32, 64]
    assert found["seeds"] == 3 and varied(found).startswith("3 seeds and ")


def test_an_sae_without_the_score_is_missing_and_the_others_are_compared():
    saes = [sae(arch, l0, rule=around(0.5, seed=k)) for arch in "ab" for k, l0 in enumerate((16.0, 32.0))]
    saes[0]["rule"] = np.full(300, math.nan)
    found = reported(*saes)
    assert [row["sparsity"] for row in block(found)["gaps"]] == [32]
    assert "nan" not in str(found).lower()


# Frequency, L0, controls, use


def test_the_slope_on_frequency_is_found_and_held_within_each_sae():
    random = np.random.default_rng(0)
    f = 10 ** random.uniform(-4, -0.5, 400)
    saes = [sae("topk", l0, rule=level - 0.05 * np.log10(f) + random.normal(0, 0.1, 400), frequency=f)
            for l0, level in ((16.0, 0.1), (32.0, 0.9))]
    (row,) = reported(*saes)["places"][0]["frequency"]
    found = row["per_tenfold"]
    assert found["low"] < -0.05 < found["high"] and found["high"] - found["low"] < 0.03 and found["one_seed"]


def test_frequent_latents_are_compared_with_the_others():
    f = np.append(np.full(40, 0.2), np.full(260, 0.01))
    score = np.append(around(0.3, 40), around(0.6, 260, seed=1))
    (row,) = reported(sae(rule=score, frequency=f))["places"][0]["frequency"]
    assert row["frequent"]["estimate"] == pytest.approx(-0.3) and row["frequent"]["high"] < 0
    (few,) = reported(sae(rule=score[31:], frequency=f[31:]))["places"][0]["frequency"]
    assert few["frequent"]["low"] is None
    (none,) = reported(sae(rule=score[40:], frequency=np.geomspace(0.001, 0.09, 260)))["places"][0]["frequency"]
    assert "frequent" not in none


def test_the_slope_on_l0_is_per_doubling():
    saes = [sae("topk", l0, seed=i, rule=around(0.7 - 0.03 * math.log2(l0) + 0.001 * i * math.log2(l0)))
            for l0 in (16.0, 32.0, 64.0) for i in range(3)]
    (row,) = block(reported(*saes))["per_doubling"]
    assert row["estimate"] == pytest.approx(-0.029) and row["high"] < 0
    assert varied(row) == "3 seeds and 300 features of each SAE"


def test_each_sae_is_compared_with_its_own_control():
    saes = [sae("topk", l0, rule=around(v)) for l0, v in ((16.0, 0.6), (32.0, 0.7))]
    saes += [sae("topk", l0, rule=around(v, seed=5), control="random") for l0, v in ((16.0, 0.3), (32.0, 0.35))]
    saes.append(sae("topk", 16.0, rule=around(0.4, seed=6), control="pca"))
    found = {row["control"]: row for row in block(reported(*saes))["controls"]}
    assert found["random"]["estimate"] == pytest.approx(0.325) and found["random"]["low"] > 0
    assert found["pca"]["estimate"] == pytest.approx(0.2)
    assert block(reported(*saes))["gaps"] == []


def test_every_sae_of_a_hook_point_and_target_l0_has_the_control_of_the_first_of_them():
    saes = [sae(arch, l0, sparsity=16, seed=seed, rule=around(0.6, seed=seed)) for arch, l0 in (("a", 15.0), ("b", 17.0))
            for seed in range(3)]
    control = sae("a", 15.0, sparsity=16, rule=around(0.2, seed=9), control="random")
    study = made(*saes, sae("a", 32.0, rule=around(0.5)), control)
    found = summary(study, pd.DataFrame({"path": [], "control": []}))
    trained = found[found["control"].isna()]
    assert trained["baseline"].tolist()[:6] == pytest.approx([0.2] * 6) and math.isnan(trained["baseline"].tolist()[6])
    assert trained["difference"].tolist()[:6] == pytest.approx([0.4] * 6) and min(trained["difference_low"].tolist()[:6]) > 0.3
    controls = block(report(study, delta=0.05, primary=PRIMARY))["controls"]
    assert {row["arch"]: row["seeds"] for row in controls} == {"a": 3, "b": 3}


def test_the_features_of_a_control_that_all_seeds_share_are_in_the_interval():
    saes = [sae(seed=seed, rule=around(0.6 + 0.001 * seed, seed=seed)) for seed in range(3)]
    few = sae(rule=around(0.2, 40, seed=9), control="random")
    (row,) = block(reported(*saes, few))["controls"]
    assert row["high"] - row["low"] > 2 * 2 * np.std(few["rule"]) / math.sqrt(40)
    assert varied(row) == "3 seeds and 40 to 300 features of each SAE"


def test_lower_fvu_goes_with_better_probing_where_it_does():
    saes = [sae(arch, l0, fvu=0.3 - 0.02 * k - 0.001 * j, probe_1=0.5 + 0.02 * k + 0.001 * j, absorption=0.3)
            for j, arch in enumerate("abc") for k, l0 in enumerate((16.0, 32.0, 64.0, 128.0))]
    (found,) = reported(*saes)["places"][0]["use"]
    assert found["score"] == "probe_1" and found["points"] == 12 and found["r"] == pytest.approx(1) and found["low"] > 0.9
    assert found["at_equal_l0_r"] == pytest.approx(1)
    (line,) = [one for one in lines(reported(*saes)) if "rank correlation" in one]
    assert line.startswith("    12 points (each an architecture at a target L0). Probing with 1 latent: over all L0 lower FVU "
                           "goes with a better score: rank correlation 1.00 [")


def test_few_points_give_no_correlation():
    saes = [sae(arch, l0, fvu=1 / l0, probe_1=l0 / 100) for arch in "ab" for l0 in (16.0, 32.0, 64.0)]
    assert reported(*saes)["places"][0]["use"] == []


# Sentences


def test_the_answers_say_what_was_varied_and_no_more():
    saes = [sae(arch, l0, rule=around(v, 1000, seed=k), frequency=np.full(1000, 0.01) + np.arange(1000) / 1e6)
            for k, (arch, l0, v) in enumerate([("a", 16.0, 0.6), ("a", 32.0, 0.6), ("b", 16.0, 0.5), ("b", 32.0, 0.6)])]
    text = details(reported(*saes))
    assert "simulation by rules, mean over latents: this a is better than this b at L0 16 by 0.100 [" in text
    assert "this a is equal within 0.05 to this b at L0 32 (" in text
    assert "(95% interval over 1000 features of each SAE)." in text
    assert "another seed may reverse it" in text and "Not told apart does not mean equal" not in text


def test_seeds_are_spoken_of_as_architectures_and_what_is_open_is_not_called_equal():
    saes = [sae(arch, seed=i, rule=around(0.5 + 0.1 * random)) for arch, draws in (("a", (1, -1, 0)), ("b", (-1, 1, 0.5)))
            for i, random in enumerate(draws)]
    found = reported(*saes)
    text = details(found)
    assert "a is not told apart from b at L0 32 (" in text and "over 3 seeds" in text and "this a" not in text
    assert "equal within" not in text and "Not told apart does not mean equal" in text


def test_the_console_has_a_line_per_question_and_score_and_what_its_interval_is_over():
    points = [(arch, l0, v) for l0 in (16.0, 32.0) for arch, v in (("a", 0.6), ("b", 0.5), ("c", 0.5))]
    saes = [sae(arch, l0, rule=around(v, 1000, seed=k)) for k, (arch, l0, v) in enumerate(points)]
    saes += [sae("a", l0, rule=around(0.1, 1000, seed=9), control="random") for l0 in (16.0, 32.0)]
    said = lines(reported(*saes))
    (which,) = [line for line in said if line.startswith("    simulation by rules, mean over latents, over L0 16, 32")]
    assert "this a better than this b by 0.100 [" in which and "this a better than this c by 0.100 [" in which
    assert "this b equal within 0.05 to this c (0.000 [" in which and "at single L0, 4 of 6 intervals exclude 0" in which
    (beside,) = [line for line in said if "all above their control" in line and "latents:" in line]
    assert "by 0.400 [" in beside and beside.endswith("(95% interval over 1000 features of each SAE).")


def test_what_intervals_of_one_line_are_over_is_not_said_of_those_that_lack_it():
    alone, several = ({"varied": {"seeds": seeds, "fewest": 300, "most": 310, "documents": documents}}
                      for seeds, documents in ((0, 0), (3, 20)))
    assert sentences.over([alone, several]) == (
        " (95% interval over 1 to 3 seeds, 300 to 310 features of each SAE and 0 to 20 documents)")
    assert sentences.over([alone]) == " (95% interval over 300 to 310 features of each SAE)" and sentences.over([]) == ""


def test_a_study_of_one_architecture_has_no_verdicts():
    found = reported(sae(rule=around(0.5)))
    assert found["comparisons"] == 0 and block(found)["gaps"] == []
    assert lines(found) and not any("Which" in line for line in lines(found))


# Texts


def by_documents(*saes, texts, tokens):
    """Replicates of coverage: what a document adds to it is the same for all SAEs. texts: digests. tokens: of each SAE."""
    share = draw(20, 400, seed=0) @ np.random.default_rng(0).normal(0, 0.1, 20) / 20
    found = Replicates(texts={one["path"]: text for one, text in zip(saes, texts, strict=True)})
    for one, counts in zip(saes, tokens, strict=True):
        found.add(one["path"], one["control"], "coverage", Means(one["coverage"] + share - share[0], None), np.array(counts))
    return found


@pytest.mark.parametrize("tokens", [100.0, 90.0])
def test_saes_of_one_text_are_compared_over_the_same_draws_whatever_their_sinks(tokens):
    saes = sae("topk (default)", coverage=0.6), sae("topk (shuffled)", coverage=0.5)
    replicates = by_documents(*saes, texts=["t", "t"], tokens=[[100.0] * 20, [0.0, tokens] + [100.0] * 18])
    found = gap(*saes, score="coverage", replicates=replicates)
    assert found["verdict"] == "better" and found["estimate"] == pytest.approx(0.1)
    assert found["high"] - found["low"] < 1e-6  # what documents add to both is not in the difference
    assert varied(found) == "19 documents"


def test_saes_of_different_texts_are_not_compared_though_their_tokens_are_as_many():
    saes = [sae(arch, l0, coverage=v) for l0 in (16.0, 32.0) for arch, v in (("a", 0.6), ("b", 0.5), ("c", 0.4))]
    found = reported(*saes, replicates=by_documents(*saes, texts=["t", "u", "t"] * 2, tokens=[[100.0] * 20] * 6))
    assert {(row["a"], row["b"]) for row in block(found, "coverage")["gaps"]} == {("a", "c")}
    assert {(row["a"], row["b"]) for row in block(found, "coverage")["means"]} == {("a", "c")}
    assert [curve["arch"] for curve in block(found, "coverage")["curves"]] == ["a", "b", "c"]
    assert "Not compared, measured on different text: a and b; b and c." in lines(found)


def test_a_sum_over_saes_of_different_texts_has_no_interval_over_documents():
    saes = sae("a", seed=0, coverage=0.6), sae("a", 16.0, coverage=0.5)
    tokens = [[100.0] * 20] * 2
    (one,) = block(reported(*saes, replicates=by_documents(*saes, texts="tt", tokens=tokens)), "coverage")["per_doubling"]
    (two,) = block(reported(*saes, replicates=by_documents(*saes, texts="tu", tokens=tokens)), "coverage")["per_doubling"]
    assert varied(one) == "20 documents" and two["low"] is None


def test_an_sae_has_the_control_of_its_own_sweep():
    saes = [sae(arch, sweep=sweep, rule=around(v)) for sweep, v in (("one", 0.6), ("two", 0.5)) for arch in ("a", "b")]
    controls = [sae("a", sweep=sweep, control="random", rule=around(v)) for sweep, v in (("one", 0.1), ("two", 0.4))]
    found = made(*saes, *controls)
    of = {(path, control): i for i, (path, control) in enumerate(found.saes[["path", "control"]].to_numpy().tolist())}
    assert [found.beside[of[one["path"], None]]["random"] for one in saes] == [
        of[controls[n]["path"], "random"] for n in (0, 0, 1, 1)]


def test_points_of_another_text_are_not_in_a_correlation():
    saes = [sae(arch, l0, fvu=1 / l0 + k, probe_1=l0 / 500 + k) for k, arch in enumerate("abcde") for l0 in (16.0, 32.0)]
    tokens = [[100.0] * 20] * 10
    replicates = by_documents(*({**one, "coverage": 0.5} for one in saes), texts="t" * 8 + "uu", tokens=tokens)
    assert [row["points"] for row in reported(*saes)["places"][0]["use"]] == [10]
    assert [row["points"] for row in reported(*saes, replicates=replicates)["places"][0]["use"]] == [8]


def test_the_report_of_tables_without_any_sae_is_empty():
    found = report(made(sae(rule=[math.nan])), delta=0.05, primary=PRIMARY)
    assert found["comparisons"] == 0 and pd.DataFrame(found["places"])["scores"].map(len).tolist() == [0]


@pytest.mark.parametrize("width", [None, joint.half_width])
@pytest.mark.parametrize("estimate, p", [(0.0, 1.0), (1e-17, 1.0), (1e9, 1e-12)])
def test_a_difference_far_below_or_above_its_variance_has_a_p_value(estimate, p, width):
    found = interval(estimate, [Variance(0.04, 2), Variance(0.01, 30)], half_width=width)
    assert found is not None and found.p == pytest.approx(p)
