"""How much memory a piece of code takes: the bytes of the tensors that it makes and that are alive at the same time."""
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

T = TypeVar("T")


def peak_bytes(call: Callable[[], object]) -> int:
    """Most bytes of tensors that `call` holds at a time, without those that exist before.

    What operators and other libraries allocate inside themselves is not counted.
    """
    return with_peak_bytes(call)[1]


def with_peak_bytes(call: Callable[[], T]) -> tuple[T, int]:
    """What `call` returns, and its `peak_bytes`."""
    with _Counting() as counting:
        found = call()
    return found, counting.peak


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self._known = WeakIdKeyDictionary(ref_type=weakref.ref)  # pyright: ignore[reportArgumentType] - any kind of reference

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages((args, kwargs)):
            self._known.setdefault(storage, True)  # it exists before
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage not in self._known:
                self._known[storage] = True
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return out

    def _freed(self, size: int) -> None:
        self.alive -= size


def _storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
