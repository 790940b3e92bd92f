"""Agreement between raters, and intervals of shares, on published examples."""
import math

import numpy as np
import pytest

from saesweep.study.people.agreement import cohen, fleiss, krippendorff
from saesweep.study.people.proportions import detectable, half_width, newcombe, wilson

FLEISS = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
          [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # 10 items, 14 raters, 5 categories
KRIPPENDORFF = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]  # 4 raters, 12 items


def matrix(rows):
    return np.array([[math.nan if one == "." else float(one) for one in row] for row in rows])


def digits(text):
    return np.array(list(map(int, text)))


def test_wilsons_interval_has_the_published_ends():
    assert wilson(56 / 70, 70) == pytest.approx((0.8, 0.6918, 0.8770), abs=5e-5)
    assert wilson(48 / 80, 80) == pytest.approx((0.6, 0.4905, 0.7004), abs=5e-5)


def test_wilsons_interval_stays_within_0_and_1_and_is_never_of_no_width():
    assert wilson(0.0, 5) == pytest.approx((0, 0, 0.4345), abs=5e-5)
    assert wilson(1.0, 5) == pytest.approx((1, 0.5655, 1), abs=5e-5)
    assert all(map(math.isnan, wilson(0.5, 0)))


def test_newcombes_interval_of_a_difference_has_the_published_ends():
    assert newcombe(wilson(56 / 70, 70), wilson(48 / 80, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_75_ratings_a_side_show_a_difference_of_16_points_at_best():
    assert half_width(75, 0.6) == pytest.approx(0.157, abs=5e-4)
    assert detectable(75, 0.6, 0.8) == pytest.approx(0.224, abs=5e-4)
    assert detectable(385, 0.6, 0.8) == pytest.approx(0.099, abs=5e-4)
    assert detectable(1531, 0.6, 0.8) == pytest.approx(0.05, abs=5e-4)
    assert half_width(135, 0.6) == pytest.approx(0.117, abs=5e-4)
    assert math.isinf(half_width(0, 0.6))


def test_cohens_kappa_has_the_published_values():
    a, b = digits("1" * 25 + "0" * 25), digits("1" * 20 + "0" * 5 + "1" * 10 + "0" * 15)
    assert cohen(a, b, 2, "plain") == pytest.approx(0.4)
    a, b = digits("0122102102"), digits("0121102212")
    assert cohen(a, b, 3, "plain") == pytest.approx(0.5455, abs=5e-5)
    assert cohen(a, b, 3, "linear") == pytest.approx(0.6512, abs=5e-5)
    assert cohen(a, b, 3, "quadratic") == pytest.approx(0.7619, abs=5e-5)


def test_fleiss_kappa_has_the_published_value():
    assert fleiss(np.array(FLEISS)) == pytest.approx(0.2099, abs=5e-5)


def test_fleiss_kappa_refuses_items_with_other_numbers_of_raters():
    with pytest.raises(ValueError, match="same number of raters"):
        fleiss(np.array([[2, 0], [2, 1]]))


def test_krippendorffs_alpha_has_the_published_values_with_missing_answers():
    answers = matrix(KRIPPENDORFF) - 1
    assert krippendorff(answers, 5, "nominal") == pytest.approx(0.7434, abs=5e-5)
    assert krippendorff(answers, 5, "ordinal") == pytest.approx(0.8154, abs=5e-5)


def test_a_rater_who_rated_nothing_and_an_item_of_one_rater_change_nothing():
    answers = matrix(KRIPPENDORFF) - 1
    more = np.vstack([answers, np.full((1, 12), np.nan)])
    alone = np.full((5, 1), np.nan)
    alone[0] = 4
    assert krippendorff(np.hstack([more, alone]), 5, "ordinal") == krippendorff(answers, 5, "ordinal")


def test_agreement_beyond_chance_is_unknown_where_all_answers_are_the_same():
    same = digits("1111")
    assert math.isnan(cohen(same, same, 3, "quadratic"))
    assert math.isnan(fleiss(np.array([[0, 3, 0], [0, 3, 0]])))
    assert math.isnan(krippendorff(np.ones((2, 4)), 3, "ordinal"))
    assert math.isnan(krippendorff(np.full((2, 4), np.nan), 3, "ordinal"))


def test_perfect_agreement_is_1_by_every_measure():
    a = digits("01201")
    assert cohen(a, a, 3, "quadratic") == 1 and krippendorff(np.stack([a, a]).astype(float), 3, "ordinal") == 1
    assert fleiss(np.eye(3, dtype=int)[a] * 4) == 1
