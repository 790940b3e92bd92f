"""Limits on the values of config keys: `Annotated[type, limits]` on a field of a schema or on an architecture's argument.

Each limit says whether a value meets it (`in`), how a message words it (`str`) and what it is in a JSON schema.
"""
from dataclasses import dataclass
from typing import Annotated, Any, Protocol


class Limits(Protocol):
    def __contains__(self, value: Any, /) -> bool: ...

    def json_schema(self) -> dict[str, Any]:
        """The keywords to add to those of the type."""
        ...


@dataclass(frozen=True)
class Range:
    low: int | float
    high: int | float = float("inf")
    open_low: bool = False  # low itself is excluded

    def __contains__(self, value: int | float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        least = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        return least if self.high == float("inf") else f"{least} and at most {self.high:g}"

    def json_schema(self) -> dict[str, Any]:
        low = {"exclusiveMinimum" if self.open_low else "minimum": self.low}
        return low if self.high == float("inf") else low | {"maximum": self.high}


class OneOf:
    def __init__(self, *values: Any) -> None:
        self.values = values

    def __contains__(self, value: Any) -> bool:
        return any(value == known and type(value) is type(known) for known in self.values)

    def __str__(self) -> str:
        return " or ".join(map(str, self.values))

    def json_schema(self) -> dict[str, Any]:
        return {"enum": list(self.values)}


class SomeOf:
    """A list of known words, each at most once."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __contains__(self, value: Any) -> bool:
        known = isinstance(value, list) and all(isinstance(one, str) and one in self.words for one in value)
        return known and len({*value}) == len(value)

    def __str__(self) -> str:
        return f"a list, such as [{self.words[0]}], of {', '.join(self.words)}"

    def json_schema(self) -> dict[str, Any]:
        return {"items": {"enum": list(self.words)}, "uniqueItems": True}


class NotEmpty:
    def __contains__(self, value: str) -> bool:
        return bool(value.strip())

    def __str__(self) -> str:
        return "a text that is not empty"

    def json_schema(self) -> dict[str, Any]:
        return {"pattern": r"\S"}


class Decays:
    """The decay rates of Adam's two running means."""

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and all(type(x) in (int, float) and 0 <= x < 1 for x in value)

    def __str__(self) -> str:
        return "two numbers of at least 0 and below 1, such as [0.9,0.999]"

    def json_schema(self) -> dict[str, Any]:
        return {"items": {"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "minItems": 2, "maxItems": 2}


class CountOrAuto:
    def __contains__(self, value: Any) -> bool:
        return value == "auto" or (type(value) is int and value >= 1)

    def __str__(self) -> str:
        return "a whole number of at least 1, or auto"

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}


class TargetL0:
    def __contains__(self, value: Any) -> bool:
        return type(value) is int and value >= 1

    def __str__(self) -> str:
        return ("a whole number of at least 1, such as 32: the number of active latents per token; to fix the sparsity "
                "coefficient instead, write arch.coefficient=6e-4")

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 1}


def whole(value: Any) -> Any:
    """1e6, which YAML reads as a float, as the int that it is; any other value unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = Annotated[str, NotEmpty()]
Count = Annotated[int, Range(1)]
Index = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
