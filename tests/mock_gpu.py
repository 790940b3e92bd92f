"""A mock GPU: tensors whose device is cuda:0 and whose values are on the CPU.

It raises where CUDA raises: at an operation on tensors of both devices, and where numpy reads a tensor. It also raises at
races, which CUDA does not detect: a tensor is read on a stream that has not waited for the stream that wrote it, or without
`record_stream`. Every synchronisation of the host with the device is recorded. Triton's kernels run in the interpreter, and
Lightning sees one GPU. A CUDA graph repeats the operations of its capture on the memory of its capture; what was freed by then
is overwritten after every repetition, as by another graph. If there is a real GPU, the tests use that: `gpu()` is either.
"""
from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from saesweep.sweep import inputs

GPU = torch.device("cuda", 0)
REAL = torch.cuda.is_available()
TRITON = "cuda" if REAL else "cpu"  # the device of its kernels' tensors; "cpu" is the interpreter's
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._to_copy.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}  # an index may be on the CPU
OF_BOTH_DEVICES = COPIES | INDEXED
MOVES = {torch.Tensor.to: (), torch.Tensor.cpu: ("cpu",), torch.Tensor.cuda: ("cuda",)}  # and where to
ARRAYS = {torch.Tensor.numpy, torch.Tensor.__array__}
TEXTS = {torch.Tensor.tolist, torch.Tensor.__format__}
HANDLED = {torch.Tensor.backward, torch.Tensor.new_tensor, *MOVES, *ARRAYS, *TEXTS}  # also where nothing names a device
WAITS = {  # the host needs their result, or its size
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten.bincount.default, aten.repeat_interleave.Tensor, aten._unique2.default,
}


class OnGpu(torch.Tensor):
    @staticmethod
    def __new__(cls, values: torch.Tensor) -> OnGpu:
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, values.size(), **layout, requires_grad=values.requires_grad)

    def __init__(self, values: torch.Tensor):
        self.values_ = values.detach()
        if Graph.capturing is not None:
            Graph.capturing.made.append(weakref.ref(self))

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def data_ptr(self) -> int:
        return self.values_.data_ptr()

    def record_stream(self, stream: Stream) -> None:
        Stream.writes[memory(self)][2].add(stream)

    def __repr__(self) -> str:
        return f"OnGpu({self.values_})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return _MockMode.operation(func, args, kwargs or {})


def mapped(change: Callable[[Any], Any], x: Any) -> Any:
    """tree_map_only of tensors, in a tenth of its time for what most operations are given."""
    if isinstance(x, torch.Tensor):
        return change(x)
    if type(x) is dict:
        return {name: mapped(change, one) for name, one in x.items()}
    if type(x) in (tuple, list):
        return type(x)([mapped(change, one) for one in x])
    return tree_map_only(torch.Tensor, change, x) if isinstance(x, tuple | list | dict) else x


def on_host(x: Any) -> Any:
    return x.values_ if isinstance(x, OnGpu) else x


def on_gpu(x: Any) -> Any:
    return Stream.written(OnGpu(x)) if isinstance(x, torch.Tensor) and not isinstance(x, OnGpu) else x


class Stream:
    clock: int
    main: Stream
    current: Stream
    writes: dict[int, tuple[Stream, int, set[Stream]]]  # by memory: writing stream, time, streams recorded by record_stream

    def __init__(self, device: Any = None):
        self.seen: dict[Stream, int] = {}  # the time up to which this stream has waited for each other one

    def wait_stream(self, other: Stream) -> None:
        self.seen[other] = Stream.clock

    @classmethod
    @contextmanager
    def used(cls, stream: Stream) -> Iterator[None]:
        before, cls.current = cls.current, stream
        yield
        cls.current = before

    @classmethod
    def begin(cls) -> None:
        cls.clock, cls.writes = 0, {}
        cls.current = cls.main = cls()

    @classmethod
    def written(cls, x: OnGpu) -> OnGpu:
        cls.clock += 1
        cls.writes[memory(x)] = cls.current, cls.clock, set()
        return x

    @classmethod
    def read(cls, x: OnGpu) -> None:
        stream, time, kept_for = cls.writes.get(memory(x), (cls.current, 0, set()))
        if stream is not cls.current and cls.current.seen.get(stream, -1) < time:
            raise RuntimeError("a race: a stream reads a tensor and has not waited for the stream that wrote it")
        if stream not in (cls.current, cls.main) and cls.current not in kept_for:
            raise RuntimeError("a race: the stream that wrote a tensor may reuse its memory; call record_stream")


def memory(x: OnGpu) -> int:
    return x.values_.untyped_storage().data_ptr()


class Graph:
    """A CUDA graph. In its capture nothing is computed, in the end: what was written is restored."""

    capturing: Graph | None = None
    graphs: ClassVar[weakref.WeakSet[Graph]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.launches: list[tuple[Callable[[], Any], list[torch.Tensor]]] = []
        self.made: list[weakref.ref[OnGpu]] = []
        self.own: dict[int, torch.Tensor] = {}  # by memory: what was allocated in the capture
        self.shared = set[int]()  # all of that memory, which other graphs use too
        self.before: dict[int, tuple[torch.Tensor, torch.UntypedStorage]] = {}  # what the capture wrote elsewhere

    def pool(self) -> Graph:
        return self

    @classmethod
    @contextmanager
    def capture(cls, graph: Graph, pool: Graph | None = None, capture_error_mode: str = "global") -> Iterator[None]:
        assert cls.capturing is None
        cls.capturing = graph
        try:
            yield
        finally:
            cls.capturing = None
        for x, content in graph.before.values():
            x.untyped_storage().copy_(content)
        graph.overwrite(graph.own)
        graph.shared = {*graph.own}
        cls.graphs.add(graph)
        kept = {memory(x) for ref in graph.made if (x := ref()) is not None}
        graph.own = {where: x for where, x in graph.own.items() if where not in kept}

    def writes(self, given: list[torch.Tensor]) -> None:
        """Call before an operation that may write to these."""
        for x in given:
            where = x.untyped_storage().data_ptr()
            if where not in self.own and where not in self.before:
                self.before[where] = x, x.untyped_storage().clone()

    def add(self, launch: Callable[[], Any], given: list[torch.Tensor], found: Any) -> None:
        out = list[torch.Tensor]()
        mapped(out.append, found)
        known = {x.untyped_storage().data_ptr() for x in given}
        self.own |= {where: x for x in out if (where := x.untyped_storage().data_ptr()) not in known}
        self.launches.append((launch, out))

    @torch.no_grad()
    def replay(self) -> None:
        for launch, out in self.launches:
            found = list[torch.Tensor]()
            mapped(found.append, launch())
            for there, new in zip(out, found, strict=True):
                if there.data_ptr() != new.data_ptr():
                    there.copy_(new)
        self.overwrite(self.own)

    @staticmethod
    def overwrite(tensors: dict[int, torch.Tensor]) -> None:
        for x in tensors.values():
            if x.dtype != torch.bool:
                x.fill_(torch.nan if x.is_floating_point() else 2**30 if x.dtype.itemsize > 2 else 0)


class Event:
    """Of the mock's only order of operations: what was recorded is computed."""

    def record(self) -> None:
        self.recorded = True

    def synchronize(self) -> None:
        assert self.recorded


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, to: str) -> torch.Tensor:
        ctx.back = x.device.type
        return on_gpu(x.detach().clone()) if to == "cuda" else on_host(x).clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        return (on_gpu(grad) if ctx.back == "cuda" else on_host(grad)), None


class _MockMode(TorchFunctionMode):
    waits: list[str]  # of the active mock
    debug_mode: str = "default"

    @classmethod
    def set_debug_mode(cls, mode: str) -> None:
        cls.debug_mode = mode

    @classmethod
    def operation(cls, func: Any, args: tuple, kwargs: dict) -> Any:
        given = list[torch.Tensor]()
        mapped(given.append, (args, kwargs))
        on_device = [x for x in given if isinstance(x, OnGpu)]
        if Graph.capturing is not None and func in COPIES and len(on_device) < len(given):
            cls.wait("a copy between the devices")
        if func not in OF_BOTH_DEVICES and any(not isinstance(x, OnGpu) and x.dim() for x in given):
            raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
        if func in WAITS or (func in INDEXED and any(i is not None and i.dtype == torch.bool for i in args[1])):
            cls.wait(str(func))
        known, given = {id(x.values_): x for x in on_device}, set(map(memory, on_device))
        for x in on_device:
            Stream.read(x)

        def wrapped(x: Any) -> Any:
            x = known[id(x)] if id(x) in known else OnGpu(x)  # an in-place operation returns its input
            return x if memory(x) in given and not func._schema.is_mutable else Stream.written(x)

        args, kwargs = mapped(on_host, args), mapped(on_host, kwargs)
        there = [x.values_ for x in on_device]
        return mapped(wrapped, cls.launched(lambda: func(*args, **kwargs), there, func._schema.is_mutable))

    @classmethod
    def launched(cls, launch: Callable[[], Any], given: list[torch.Tensor], writes: bool) -> Any:
        """Run it; in a capture, add it to the graph."""
        graph = Graph.capturing
        if graph is not None and writes:
            graph.writes(given)
        found = launch()
        if graph is not None:
            graph.add(launch, given, found)
        return found

    @classmethod
    def wait(cls, reason: str) -> None:
        if Graph.capturing is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {reason}")
        if cls.debug_mode == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {reason}")
        cls.waits.append(reason)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if not kwargs and func not in HANDLED:  # most calls: each look at a shape is one
            return func(*args)
        kwargs = dict(kwargs or {})
        if isinstance(func, torch._ops.OpOverload):  # from a mode that sees every operation: where it takes place is decided
            return func(*args, **kwargs)
        first = args[0] if args else None
        if func is torch.Tensor.backward:  # the operations of the backward pass go through this mode too
            with self:
                (root, *_), how = args, {"allow_unreachable": True, "accumulate_grad": True}
                return _engine_run_backward((root,), (torch.ones_like(root),), False, False, (), **how)
        if func in MOVES:
            return self._to(first, *MOVES[func], *args[1:], **kwargs)
        if isinstance(first, OnGpu) and func is torch.Tensor.new_tensor:
            self.wait("a number for the device")
        if isinstance(first, OnGpu) and func in ARRAYS:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if isinstance(first, OnGpu) and func in TEXTS:
            self.wait(func.__name__)
            return func(first.values_, *args[1:])
        kwargs.pop("pin_memory", None)
        if kwargs.get("device") is None:
            return func(*args, **kwargs)
        wanted = torch.device(kwargs.pop("device")).type
        if wanted == "cuda" and func in (torch.tensor, torch.as_tensor):
            self.wait("a number for the device")
        if wanted == "cpu":
            return func(*mapped(on_host, args), device="cpu", **kwargs)
        return mapped(on_gpu, self.launched(lambda: func(*args, device="cpu", **kwargs), [], False))

    def _to(
        self, x: torch.Tensor, *args: Any, device: Any = None, dtype: Any = None, non_blocking: bool = False, **_: Any
    ) -> torch.Tensor:
        for value in args:
            if isinstance(value, torch.Tensor):
                device, dtype = value.device, value.dtype
            elif isinstance(value, torch.dtype):
                dtype = value
            elif isinstance(value, str | torch.device):
                device = value
        if dtype is not None and dtype != x.dtype:
            x = x.to(dtype)
        if device is None or torch.device(device).type == x.device.type:
            return x
        if torch.device(device).type == "cpu" or not non_blocking:
            self.wait(f"a copy to {device}")
        return _Moved.apply(x, torch.device(device).type)


@contextmanager
def _real_gpu() -> Iterator[list[Any]]:
    """Sums are added in a fixed order where torch can, so that the same training has the same bits."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", message=".*synchronizing CUDA operation")
            yield waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.use_deterministic_algorithms(False)


@contextmanager
def gpu() -> Iterator[list[str]]:
    """The real GPU, or makes "cuda" available; yields the list of the host's synchronisations."""
    if REAL:
        with _real_gpu() as waits:
            yield waits
        return
    executor = pytest.importorskip("triton.runtime.interpreter").GridExecutor
    launch = executor.__call__

    def launched(self: Any, *args: Any, **kwargs: Any) -> None:
        assert len({x.device for x in args if isinstance(x, torch.Tensor)}) == 1, "a kernel has tensors of both devices"
        args = [*map(on_host, args)]
        given = [x for x in args if isinstance(x, torch.Tensor)]
        _MockMode.launched(lambda: launch(self, *args, **kwargs), given, True)

    _MockMode.waits = []
    Stream.begin()
    with pytest.MonkeyPatch.context() as patch, _MockMode():
        patch.setattr(executor, "__call__", launched)
        one = {"is_available": True, "auto_device_count": 1, "parse_devices": [0], "get_parallel_devices": [GPU]}
        for name, value in {**one, **dict.fromkeys(("setup_device", "setup", "teardown"))}.items():
            patch.setattr(CUDAAccelerator, name, staticmethod(lambda *_, value=value: value))
        for name, value in {"Stream": Stream, "stream": Stream.used, "current_stream": lambda *_: Stream.current,
                            "Event": Event, "CUDAGraph": Graph, "graph": Graph.capture,
                            "get_sync_debug_mode": lambda: _MockMode.debug_mode,
                            "set_sync_debug_mode": _MockMode.set_debug_mode,
                            "is_current_stream_capturing": lambda: Graph.capturing is not None}.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: (8 * 10**9, 16 * 10**9))
        patch.setattr(inputs, "require_device", lambda job: None)
        torch.__future__.set_swap_module_params_on_conversion(True)  # .to(device) keeps the Parameter objects
        try:
            yield _MockMode.waits
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)
