"""Limits on the values of config keys: `Annotated[type, limits]`, on a field of a schema or on an architecture's argument."""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any


@dataclass(frozen=True, eq=False)  # eq=False: hashable
class Limits:
    met_by: Callable[[Any], bool]  # of a value of the type
    words: str  # in a message, after "must be"
    json_schema: dict[str, Any]  # keywords beside those of the type
    whole: bool = False  # whether 1e6 is an int, though the type is not


class Range(Limits):
    """Both ends are included."""

    def __init__(self, low: float, high: float = math.inf) -> None:
        ends = {"minimum": low} if high == math.inf else {"minimum": low, "maximum": high}
        words = f"at least {low:g}" + (f" and at most {high:g}" if "maximum" in ends else "")
        super().__init__(lambda x: low <= x <= high, words, ends)


class OneOf(Limits):
    def __init__(self, *values: Any) -> None:
        def is_one(value: Any) -> bool:
            return any(value == known and type(value) is type(known) for known in values)

        super().__init__(is_one, " or ".join(map(str, values)), {"enum": list(values)})


class SomeOf(Limits):
    """A list of known words, each at most once."""

    def __init__(self, *known: str) -> None:
        def are_some(value: Any) -> bool:
            return isinstance(value, list) and all(one in known for one in value) and len(set(value)) == len(value)

        super().__init__(are_some, f"a list, such as [{known[0]}], of {', '.join(known)}",
                         {"items": {"enum": list(known)}, "uniqueItems": True})


def whole(value: Any) -> Any:
    """1e6, which YAML reads as a float, as the int that it is; any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _are_decays(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(x) in (int, float) and 0 <= x < 1 for x in value)


def _are_shares(value: Any) -> bool:
    known = isinstance(value, list) and bool(value) and all(type(x) in (int, float) for x in value)
    return known and all(a < b for a, b in pairwise([0, *value])) and value[-1] == 1


def parts_of(whole: int, shares: Sequence[float]) -> list[int]:
    """The whole numbers nearest to these shares of a whole number."""
    return [round(share * whole) for share in shares]


Text = Annotated[str, Limits(lambda text: bool(text.strip()), "a text that is not empty", {"pattern": r"\S"})]
Count = Annotated[int, Range(1)]
TrainingTokens = Annotated[int, Limits(
    lambda x: x >= 0, "at least 1, such as 300000, or 0 with init_from=FOLDER", {"minimum": 0})]
Several = Annotated[int, Range(2)]
Index = Annotated[int, Range(0)]
Positive = Annotated[float, Limits(lambda x: x > 0, "above 0", {"exclusiveMinimum": 0})]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Shares = Annotated[list, Limits(
    _are_shares, "numbers above 0, each larger than the one before, of which the last is 1, such as [0.25,0.5,1]",
    {"items": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "minItems": 1})]
AutoCount = Annotated[Any, Limits(
    lambda x: x == "auto" or _is_count(x), "a whole number of at least 1, or auto",
    {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}, whole=True)]
TargetL0 = Annotated[float, Limits(
    _is_count, "a whole number of at least 1, such as 32: the number of active latents per token; to fix the sparsity "
    "coefficient instead, write arch.coefficient=6e-4", {"type": "integer", "minimum": 1}, whole=True)]
Betas = Annotated[list, Limits(  # of Adam's two running means
    _are_decays, "two numbers of at least 0 and below 1, such as [0.9,0.999]",
    {"items": {"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "minItems": 2, "maxItems": 2})]
