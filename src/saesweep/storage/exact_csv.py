"""Reading a CSV file back as the same numbers.

Before 3.1, pandas reads a number to the last bit only with float_precision="round_trip"; from 3.1 on it always does, and
says that the argument is deprecated.
"""
from typing import Any

import pandas as pd

EXACT: Any = {"float_precision": "round_trip"} if [int(part) for part in pd.__version__.split(".")[:2]] < [3, 1] else {}


def read_csv(file: Any, **how: Any) -> pd.DataFrame:
    """As pandas.read_csv."""
    return pd.read_csv(file, **EXACT, **how)
