"""Several ranks that train one group: the only file that imports torch.distributed. On one rank every function is the identity.

Each rank harvests its share of every window and all gather all of it. Then, by the trainer's strategy (strategies.py),

    PerMember     every SAE is trained by all ranks (ranks_per_sae = world_size): each takes its own rows of a batch, and
                  sums what it computes from them. The number of ranks is no hyperparameter:
                  a mean over a batch = sum over ranks of  share * (mean over the rank's rows),  share = rows / batch
    PerRank       every SAE is trained by one rank, which takes whole batches, as if it were alone (ranks_per_sae = 1)

Every collective is called by all ranks in the same order. What only one rank knows (a full disk, the time, a request to
stop) is therefore communicated before any rank acts on it.

Plain data travels over gloo, also where tensors travel over NCCL: a rank that has waited PATIENCE for it raises RanksTimedOut,
while NCCL would end its process without a word of ours. The longest waits are of this kind, for ranks that evaluate.
"""
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist

_ranks_share_saes = True
_plain_data: Any = None  # the process group for it; None: the default group
PATIENCE = timedelta(hours=2)  # one evaluation of 2M tokens with reconstructions spliced in takes minutes; torch: 10 minutes
P = ParamSpec("P")
T = TypeVar("T")


class RanksTimedOut(RuntimeError):
    """A rank has waited longer than PATIENCE for the others."""


def _patient(collective: Callable[P, T]) -> Callable[P, T]:
    """The collective, whose error after PATIENCE says so."""
    @wraps(collective)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return collective(*args, **kwargs)
        except RuntimeError as error:
            if "timed out" not in str(error).lower():
                raise
            where = f"rank {rank()} has waited {PATIENCE} for the others in {collective.__name__}"
            raise RanksTimedOut(f"{where}: one of them hangs, or works alone for longer than PATIENCE in "
                                "saesweep/runtime/distributed.py") from error

    return call


def begin(accelerator: str, ranks_share_saes: bool) -> None:
    """Join the ranks that torch.distributed.run has started."""
    global _ranks_share_saes, _plain_data
    _ranks_share_saes = ranks_share_saes
    if accelerator in ("gpu", "cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl", device_id=device, timeout=PATIENCE)
        _plain_data = dist.new_group(backend="gloo", timeout=PATIENCE)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
        _plain_data = None


def end() -> None:
    dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def ranks_per_sae() -> int:
    """The number of ranks that train each SAE together."""
    return world_size() if _ranks_share_saes else 1


def rank_in_sae() -> int:
    """This rank's number among them."""
    return rank() if _ranks_share_saes else 0


def shard(batch: Float[Tensor, "batch d"]) -> Float[Tensor, "own d"]:
    """This rank's rows of a batch that all ranks hold."""
    return batch.tensor_split(ranks_per_sae())[rank_in_sae()] if ranks_per_sae() > 1 else batch


@_patient
def all_reduce_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over the ranks, in one all-reduce; all have one dtype."""
    if ranks_per_sae() == 1 or not tensors:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


@_patient
def all_reduce_sum(value: float) -> float:
    """The sum of a number over the ranks."""
    if ranks_per_sae() == 1:
        return value
    counted = torch.tensor(value, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(counted)
    return counted.item()


@_patient
def all_gather_values(values: Float[Tensor, " own"]) -> Float[Tensor, " all"]:
    """The values of all ranks, concatenated in rank order."""
    if ranks_per_sae() == 1:
        return values
    sizes = torch.zeros(ranks_per_sae(), dtype=torch.long, device=values.device)
    sizes[rank_in_sae()] = len(values)
    dist.all_reduce(sizes)
    parts = [values.new_zeros(int(sizes.max())) for _ in range(ranks_per_sae())]
    dist.all_gather(parts, torch.nn.functional.pad(values, (0, len(parts[0]) - len(values))))
    return torch.cat([part[:size] for part, size in zip(parts, sizes.tolist(), strict=True)])


@_patient
def all_gather_parts(mine: Mapping[int, Mapping[Any, Tensor]], rows: Sequence[int]) -> dict[Any, list[Tensor]]:
    """Part i, of rows[i] rows, is computed by rank i % world_size, which holds it in `mine`; every rank gets all parts."""
    like = next(iter(mine.values()))
    found: dict[Any, list[Tensor]] = {key: [] for key in like}
    for i, count in enumerate(rows):
        for key, parts in found.items():
            part = mine[i][key].contiguous() if i % world_size() == rank() else like[key].new_empty(count, like[key].shape[1])
            if world_size() > 1:
                dist.broadcast(part, i % world_size())
            parts.append(part)
    return found


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    return any(all_gather(flag))


@_patient
def broadcast(value: Any) -> Any:
    """The value of rank 0, which must be plain data."""
    if ranks_per_sae() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, 0, group=_plain_data)
    return box[0]


def broadcast_from_any(value: Any) -> Any:
    """The value of a rank where it is not None; all such ranks hold the same."""
    return next((found for found in all_gather(value) if found is not None), None)


@_patient
def all_gather(mine: Any) -> list[Any]:
    """The values of all ranks, in rank order; plain data."""
    if world_size() == 1:
        return [mine]
    found = [None] * world_size()
    dist.all_gather_object(found, mine, group=_plain_data)
    return found
