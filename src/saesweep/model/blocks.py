"""The blocks of a language model and the sites in them, by what a forward pass computes.

A block writes   out = in + a + m   to the residual stream, the sum in any order, or a norm of it. An addend is the output of a
module of the block, the outermost one that has it:

    attn    input of the last linear layer between the softmax over positions and the addend a
    mlp     the other addend m, after its norm where the block adds one

A block with one addend, such as Mamba's, has no mlp; one without a softmax over positions no attn.
"""
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

POSITIONS = 11  # unlike the number of experts
ADDS = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)
SOFTMAX = torch.ops.aten._softmax.default
Site = tuple[str, str]  # path of a module with {layer}, and which of its tensors


class Event(NamedTuple):
    """What happened in a forward pass. Tensors are known by their bytes: views and copies are the same."""

    kind: str  # begin or end of a module; add; softmax, over positions
    name: str = ""  # of a module
    out: bytes = b""
    terms: tuple[bytes, ...] = ()


class _Recorder(TorchDispatchMode):
    def __init__(self, events: list[Event]) -> None:
        super().__init__()
        self.events = events

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        terms = tuple(map(_bytes, args[:2])) if func in ADDS and not kwargs else ()  # before one of them is written to
        out = func(*args, **(kwargs or {}))
        if terms:
            self.events.append(Event("add", out=_bytes(out), terms=terms))
        elif func is SOFTMAX and out.ndim > 2 and out.shape[-2] == POSITIONS and out.shape[-1] in (POSITIONS, POSITIONS + 1):
            self.events.append(Event("softmax"))
        return out


def _bytes(x: Any) -> bytes:
    x = x[0] if isinstance(x, tuple | list) and x else x
    return x.detach().contiguous().numpy().tobytes() if isinstance(x, Tensor) else b""


def stack(lm: nn.Module, layers: int) -> str:
    """The path of the ModuleList of so many blocks: of several, the one with most parameters. Raises LookupError."""
    found = {name: sum(p.numel() for p in module.parameters()) for name, module in lm.named_modules()
             if isinstance(module, nn.ModuleList) and len(module) == layers}
    if not found:
        raise LookupError(f"there is no list of {layers} blocks")
    return max(found, key=lambda name: found[name])


def sites(lm: nn.Module, path: str) -> dict[str, Site]:
    """The sites of the blocks below a path, those of most blocks. lm: a small copy, on the CPU."""
    events, found = _forward(lm), dict[str, Counter[Site]]()
    for number in range(len(list(lm.get_submodule(path).children()))):
        for site, (inner, tensor) in _in_block(lm, f"{path}.{number}", events).items():
            whole = f"{path}.{{layer}}.{inner}".rstrip(".")
            found.setdefault(site, Counter())[whole, tensor] += 1
    return {site: found[site].most_common(1)[0][0] for site in ("resid", "mlp", "attn") if site in found}


@torch.no_grad()
def _forward(lm: nn.Module) -> list[Event]:
    events: list[Event] = []
    with ExitStack() as hooks, _Recorder(events):
        for name, module in lm.named_modules():
            handles = (
                module.register_forward_pre_hook(lambda *_, name=name: events.append(Event("begin", name))),
                module.register_forward_hook(lambda _, args, out, name=name: events.append(Event("end", name, _bytes(out)))))
            for handle in handles:
                hooks.callback(handle.remove)
        lm(input_ids=torch.arange(5, 5 + POSITIONS)[None])
    return events


def _in_block(lm: nn.Module, name: str, events: Sequence[Event]) -> dict[str, Site]:
    kinds = [(event.kind, event.name) for event in events]
    if ("end", name) not in kinds:
        return {}
    within = events[kinds.index(("begin", name)) : kinds.index(("end", name)) + 1]
    found: dict[str, Site] = {"resid": ("", "output")}
    addends = _addends(name, within)
    ended = {event.out: place for place, event in reversed(list(enumerate(within))) if event.kind == "end"}
    softmax = next((place for place, event in enumerate(within) if event.kind == "softmax"), len(within))
    attention = next((one for one in addends if ended[one] > softmax), None)
    if attention is not None and (linear := _last_linear(lm, within[softmax : ended[attention] + 1])):
        found["attn"] = (linear[len(name) + 1 :], "input")
    others = [one for one in addends if one != attention]
    if len(addends) > 1 and others:
        found["mlp"] = (_outermost(name, within, others[-1])[len(name) + 1 :], "output")
    return found


def _addends(name: str, within: Sequence[Event]) -> list[bytes]:
    """The terms of the last sum of the block that are outputs of its modules, in the order in which they are computed."""
    whole = within[-1].out
    sums = {event.out: event.terms for event in within if event.kind == "add" and len(event.out) == len(whole)}
    if not sums:
        return []
    made = [event.out for event in within if event.kind == "end" and event.name != name]
    root = whole if whole in sums else [*sums][-1]

    def terms(key: bytes) -> Iterator[bytes]:
        for term in sums.get(key, ()):
            if term in made or term == key:
                yield term
            else:
                yield from terms(term)

    return sorted({term for term in terms(root) if term in made}, key=made.index)


def _outermost(name: str, within: Sequence[Event], out: bytes) -> str:
    """The module of the block with this output: of several the outermost, and of these the first."""
    names = [event.name for event in within if event.kind == "end" and event.out == out and event.name != name]
    return min(names, key=lambda one: one.count("."))


def _last_linear(lm: nn.Module, events: Sequence[Event]) -> str | None:
    names = [event.name for event in events if event.kind == "end"
             and isinstance(lm.get_submodule(event.name), nn.Linear | Conv1D)]
    return names[-1] if names else None
