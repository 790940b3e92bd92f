"""What the test run checks of the package's annotations: of every function, with arrays and without."""
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor
from typechecker import checked, jaxtyped

from saesweep.report import pareto
from saesweep.training.running_sums import moments_of

both = jaxtyped(typechecker=checked)


@both
def plain(a: "int", *more: float, named: dict[str, int] | None = None) -> "list[str]":
    """A docstring."""
    return ["a"] * a if named is None else [named]


@both
def of_arrays(x: Float[Tensor, "n d"], ys: dict[str, Float[Tensor, " d"]]) -> Float[Tensor, " d"]:
    return x.sum(0) if ys else x.sum(1)


def test_arguments_and_results_are_checked():
    assert plain(2, 3, 0.5) == ["a", "a"] and (plain.__name__, plain.__doc__) == ("plain", "A docstring.")
    for wrong in (lambda: plain("2"), lambda: plain(2, "3"), lambda: plain(2, named={"a": "b"}), lambda: plain(2, named={})):
        with pytest.raises(TypeCheckError):
            wrong()


def test_sizes_are_those_of_the_other_arrays():
    assert of_arrays(torch.ones(2, 3), {"a": torch.ones(3)}).shape == (3,)
    for ys in ({"a": torch.ones(2)}, {}):
        with pytest.raises(TypeCheckError):
            of_arrays(torch.ones(2, 3), ys)


def test_the_functions_of_the_package_are_checked():
    with pytest.raises(TypeCheckError):
        pareto.answer(3)
    with pytest.raises(TypeCheckError):
        moments_of(torch.ones(3))
