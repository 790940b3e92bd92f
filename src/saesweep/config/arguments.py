"""The arguments of a `_target_`: which keys it takes, of which types, and which of them it needs."""
import inspect
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, get_origin

from saesweep.config.instantiate import locate
from saesweep.config.walk import refuse_unknown, require, typed


@dataclass(frozen=True)
class Arguments:
    kinds: dict[str, Any]  # the annotation of each argument
    needed: list[str]  # those without a default
    takes_any: bool  # whether it takes **kwargs


def arguments_of(target: str, path: str, given: Iterable[str]) -> Arguments:
    """Those that are left to the config, without the given ones. Raises UsageError where the target cannot be imported."""
    signature = inspect.signature(locate(target, f"{path}._target_"), eval_str=path == "arch")
    parameters = [p for p in signature.parameters.values() if p.name not in given]
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    return Arguments(
        kinds={p.name: p.annotation for p in named},
        needed=[p.name for p in named if p.default is p.empty and p.kind is not p.VAR_POSITIONAL],
        takes_any=len(named) < len(parameters),
    )


def typed_arguments(path: str, node: MutableMapping, given: Iterable[str], others: Iterable[str]) -> None:
    """The keys of a node with a `_target_`, except the others, are arguments of it, of their types, and none is missing."""
    arguments = arguments_of(node["_target_"], path, given)
    if not arguments.takes_any:
        refuse_unknown(path, node, [*arguments.kinds, *others])
    require(path, node, arguments.needed)
    for name, kind in arguments.kinds.items():
        if name in node and (kind in (int, float, bool, str) or get_origin(kind) in (Annotated, UnionType)):
            node[name] = typed(f"{path}.{name}", node[name], kind)
