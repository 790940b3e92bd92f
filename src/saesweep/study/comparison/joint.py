"""The half width of an interval whose variance is a sum, such as of few seeds and of many documents.

    t_c = sum_k v_k t(df_k) / sum_k v_k                         Cochran and Cox 1950: covers 95% or more
    t_w = t(df),  df = (sum_k v_k)^2 / sum_k v_k^2 / df_k       Welch-Satterthwaite: covers less where one df is 2
    half width = sqrt(sum_k v_k) (t_c + t_w) / 2                two seeds: sqrt(sum_k v_k) t_c

Of a single variance it is Student's. With three seeds and any ratio of both variances it covers 94 to 97%
(tests/test_study_coverage.py); the sum of squares of report/intervals.py up to 98.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import special

from saesweep.report.intervals import Variance, combined


def half_width(variances: Sequence[Variance], level: float) -> float:
    total = float(sum(part.value for part in variances))
    if total == 0:
        return 0.0
    cochran = sum(part.value * _student(part.df, level) for part in variances) / total
    both = combined(variances)
    if both is None or min(part.df for part in variances) < 2:
        return math.sqrt(total) * float(cochran)
    return math.sqrt(total) * float(cochran + _student(both.df, level)) / 2


def _student(df: float, level: float) -> float:
    return float(special.stdtrit(df, (1 + level) / 2))
