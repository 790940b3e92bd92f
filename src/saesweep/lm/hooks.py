"""Hook points: the input or output of a module of the language model; reading and editing the tensor there."""
from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from saesweep.errors import UsageError


class HookPoint(NamedTuple):
    """The dotted path of a module, with the layer filled in, and which of its tensors; of a transcoder also the tensor that it
    reconstructs from this one, its target."""

    module: str
    tensor: Literal["input", "output"]
    target: HookPoint | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.tensor}" + (f" -> {self.target}" if self.target else "")

    @property
    def tensors(self) -> list[HookPoint]:
        """The tensors of the language model that are read for it: itself, and its target."""
        return [self] if self.target is None else [self._replace(target=None), self.target]

    @property
    def output(self) -> HookPoint:
        """Where the reconstruction goes."""
        return self.tensors[-1]

    def of(self, rows: Rows) -> list[Float[Tensor, "rows _"]]:
        """Its rows, and those of its target."""
        return [rows[point] for point in self.tensors]


def tensors_of(points: Iterable[HookPoint]) -> list[HookPoint]:
    """The tensors that are read for all these hook points, each once."""
    return list(dict.fromkeys(tensor for point in points for tensor in point.tensors))


def hook_point(model: Mapping[str, Any], site: str, layer: int) -> HookPoint:
    """The hook point of a site (a key of `model.sites`) at a layer. Raises UsageError for an unknown site."""
    if site not in model["sites"]:
        raise UsageError(f"site={site}: {model['name']} has the sites {', '.join(model['sites'])}")
    at = model["sites"][site]
    target = at.get("target") and _tensor_at(f"{site}.target", at["target"], layer)
    return _tensor_at(site, at, layer)._replace(target=target)


def _tensor_at(site: str, at: Mapping[str, str], layer: int) -> HookPoint:
    try:
        return HookPoint(at["module"].format(layer=layer), cast(Any, at["tensor"]))
    except (LookupError, ValueError) as error:
        raise UsageError(f"model.sites.{site}.module={at['module']}: only {{layer}} may stand in braces") from error


Rows = dict[HookPoint, Float[Tensor, "rows _"]]  # raw activations [rows, d_in] of each tensor; d_in may differ between them


class _Stop(Exception):
    """Ends a forward pass once every hook point has been read."""


def module_at(lm: nn.Module, point: HookPoint) -> nn.Module:
    """The module of a hook point. Raises UsageError, which lists the nearest that there are, where the path leads to none."""
    try:
        if point.module:
            return lm.get_submodule(point.module)
    except AttributeError:
        pass
    named = _at_any_layer(point.module)
    layers = [name for name, _ in lm.named_modules() if _at_any_layer(name) == named]
    if layers:
        fix = f"only other layers have it: {', '.join(layers[:5])}{' and more' if len(layers) > 5 else ''}; give one of these"
    else:
        fix = f"the nearest are {', '.join(nearest_modules(lm, point.module))}; correct model.sites.*.module"
    raise UsageError(f"model.sites: {type(lm).__name__} has no module {point.module!r}; {fix}")


def nearest_modules(lm: nn.Module, path: str, count: int = 5) -> list[str]:
    """The module paths most like this one, with {layer} in place of the number of a block."""
    names = dict.fromkeys(_at_any_layer(name) for name, _ in lm.named_modules() if name)
    return difflib.get_close_matches(_at_any_layer(path), names, n=count, cutoff=0)


def _at_any_layer(path: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".{layer}", path, count=1)


@contextmanager
def edit(lm: nn.Module, point: HookPoint, fn: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the tensor at `point` by fn(tensor) in every forward pass inside the `with` block."""

    def edited(x: Any) -> Tensor:
        if not isinstance(x, Tensor):
            raise UsageError(f"model.sites: the {point.tensor} of {point.module} is not a tensor; choose another module")
        return fn(x)

    def before(module: nn.Module, args: tuple) -> tuple:
        return (edited(args[0] if args else None), *args[1:])

    def after(module: nn.Module, args: tuple, out: Any) -> Any:
        return (edited(out[0]), *out[1:]) if isinstance(out, tuple) else edited(out)

    module = module_at(lm, point)
    handle = module.register_forward_pre_hook(before) if point.tensor == "input" else module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def replace_output(lm: nn.Module, point: HookPoint, fn: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Replace y by fn(x, y) in every forward pass inside the `with` block: y is the tensor at the target of the hook point, x
    what the same pass had at the hook point; without a target both are the tensor there.

    Raises UsageError in a pass that reaches the target first.
    """
    if point.target is None:
        with edit(lm, point, lambda x: fn(x, x)):
            yield
        return
    seen: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        seen[:] = [x]
        return x

    def replaced(y: Tensor) -> Tensor:
        if not seen:
            raise UsageError(f"model.sites: a forward pass reaches the target in {point} first; exchange them, or choose "
                             "another module")
        return fn(seen.pop(), y)

    source, target = point.tensors
    with edit(lm, source, keep), edit(lm, target, replaced):
        yield


def blocks_before(lm: nn.Module, point: HookPoint) -> list[nn.Module]:
    """The transformer blocks that have run when the tensor at `point` is computed: an edit of it does not reach them."""
    found = re.fullmatch(r"(.+?)\.(\d+)(\..+)?", point.module)
    if not found or not isinstance(stack := lm.get_submodule(found[1]), nn.ModuleList):
        return []
    whole_block = found[3] is None and point.tensor == "output"
    return list(stack[: int(found[2]) + whole_block])


@contextmanager
def recorded(before: Iterable[Sequence[nn.Module]]) -> Iterator[dict[nn.Module, Any]]:
    """For the blocks before each hook point, the output of the last of them in the last forward pass inside the `with` block:
    all that is read of the others."""
    outputs: dict[nn.Module, Any] = {}
    with ExitStack() as stack:
        for block in {blocks[-1] for blocks in before if blocks}:
            handle = block.register_forward_hook(lambda block, args, out: outputs.update({block: out}))
            stack.callback(handle.remove)
        yield outputs


@contextmanager
def replayed(blocks: Sequence[nn.Module], outputs: Mapping[nn.Module, Any]) -> Iterator[None]:
    """The blocks before a hook point return what was recorded of them instead of computing it again for the same tokens."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(in_place_of(block, lambda *_, **__: outputs[blocks[-1]]))
        yield


@contextmanager
def in_place_of(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """A module calls another function inside the `with` block, where its hooks run as before."""
    own = vars(module).get("forward")  # of a library that wraps modules
    module.forward = forward
    try:
        yield
    finally:
        del module.forward  # uncovers the method of the class
        if own is not None:
            module.forward = own


@torch.no_grad()
def read(
    lm: nn.Module, points: Sequence[HookPoint], tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None = None
) -> dict[HookPoint, Float[Tensor, "batch pos d_in"]]:
    """The activations at every hook point, from one forward pass that ends once the last of them is read.

    mask: of an encoder, which positions are not padding; a causal model needs none, as padding is at the end.
    Raises UsageError for a hook point that the forward pass never reaches.
    """
    seen: dict[HookPoint, Tensor] = {}

    def record(point: HookPoint) -> Callable[[Tensor], Tensor]:
        def keep(x: Tensor) -> Tensor:
            seen[point] = x
            if len(seen) == len(points):
                raise _Stop
            return x

        return keep

    with ExitStack() as stack:
        for point in points:
            stack.enter_context(edit(lm, point, record(point)))
        try:
            lm(input_ids=tokens, **({"use_cache": False} if mask is None else {"attention_mask": mask.long()}))
        except _Stop:
            return {point: seen[point] for point in points}
    never = ", ".join(str(point) for point in points if point not in seen)
    raise UsageError(f"model.sites: a forward pass over text never reaches {never}; choose other modules")
