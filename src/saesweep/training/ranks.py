"""The ranks of a training, as an architecture sees them."""
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from saesweep.arch.execution import SingleRank
from saesweep.runtime import distributed


class SharedRanks(SingleRank):
    """The ranks that train each SAE together; the identity where each SAE has one rank."""

    def all_reduce_sum(self, value: float) -> float:
        return distributed.all_reduce_sum(value)

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        distributed.all_reduce_(tensors)

    def all_gather_values(self, values: Float[Tensor, " own"]) -> Float[Tensor, " all"]:
        return distributed.all_gather_values(values)
