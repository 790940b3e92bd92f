"""A node of the config against the types and limits of a schema or of a `_target_`'s arguments.

The messages name the key, the value and the fix.
"""
import difflib
import inspect
import math
from collections.abc import Collection, Iterable, Mapping, MutableMapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from saesweep.config.instantiate import locate
from saesweep.config.ranges import Limits, OneOf, whole
from saesweep.errors import UsageError, as_typed, fix

GROUPS = ("model", "site", "text", "cache", "arch", "trainer", "logger", "study", "explainer")  # the folders of conf/
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Mapping: "a group of keys"}


class Keys:
    """A group of keys: a field for each, with its type and limits, and a value if it may be left out."""

    def __init_subclass__(cls) -> None:
        dataclass(cls)


def keys_of(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def required_keys(kind: Any) -> list[str]:
    """The keys that may not be left out."""
    return [field.name for field in fields(kind) if field.default is MISSING]


def typed(path: str, node: Any, kind: Any) -> Any:
    """The node, checked against the kind; 1e6 becomes an int, and mappings are changed in place. Raises UsageError.

    A kind is a class of Keys, a type, `Annotated` limits, `dict[str, kind]` or `kind | None`; any other accepts everything.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        refuse_unknown(path, node, keys_of(kind))
        typed_fields(path, node, kind)
    elif get_origin(kind) is Annotated:
        return _limited(path, node, *get_args(kind))
    elif get_origin(kind) is UnionType or NoneType in get_args(kind):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        return typed(path, node, kinds[0]) if node is not None else None
    elif get_origin(kind) is dict:
        for key, value in typed(path, node, Mapping).items():
            node[key] = typed(_join(path, key), value, get_args(kind)[1])
    elif kind in TYPE_NAMES:
        return _plain(path, node, kind)
    return node


def typed_fields(path: str, node: MutableMapping, kind: type) -> None:
    """The fields of a class of Keys are there and as it declares them; other keys of the node are ignored."""
    require(path, node, required_keys(kind))
    for key, annotation in get_type_hints(kind, include_extras=True).items():
        if key in node:
            node[key] = typed(_join(path, key), node[key], annotation)


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
        limited = any(get_origin(one) is Annotated for one in (kind, *get_args(kind)))  # `Annotated | None` is a Union
        if name in node and (kind in (int, float, bool, str) or get_origin(kind) is UnionType or limited):
            node[name] = typed(f"{path}.{name}", node[name], kind)


def _limited(path: str, node: Any, base: Any, limits: Limits) -> Any:
    node = typed(path, whole(node) if limits.whole else node, base)
    if not limits.met_by(node):
        hint = "" if base in (str, list) or isinstance(limits, OneOf) else fix(path, node)
        raise UsageError(f"{path}={as_typed(node)}: must be {limits.words}{hint}")
    return node


def _plain(path: str, node: Any, kind: type) -> Any:
    node = whole(node) if kind is int else node
    if isinstance(node, float) and not math.isfinite(node) and kind in (int, float):
        raise UsageError(f"{path}={as_typed(node)}: must be a finite number{', and a whole number' if kind is int else ''}")
    if not _is(node, kind):
        raise UsageError(f"{path}={as_typed(node)}: must be {TYPE_NAMES[kind]}{'' if kind is Mapping else fix(path, node)}")
    if kind is int and abs(node) >= 2**63:
        raise UsageError(f"{path}={node}: must be below 2**63")
    return node


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def refuse_unknown(path: str, node: Any, known: Iterable[str]) -> None:
    """Raise UsageError where the node is no mapping, or has a key that is not known: with the nearest one that is."""
    if not isinstance(node, Mapping):
        raise UsageError(f"{path}={as_typed(node)}: must be a group of keys: {', '.join(known)}")
    choices = [*known, *([] if path else ["sweeps"])]  # a group that leaves no key of its own in the config
    for key in node:
        if key not in known:
            full = _join(path, key)
            raise UsageError(f"{full}={as_typed(node[key])}: there is no key {full}; {nearest(str(key), choices)}")


def nearest(word: str, known: Collection[str], all_known: str = "known:") -> str:
    """What a mistyped word was meant to be, or all that there are."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"{all_known} {', '.join(known)}"


def require(path: str, node: Mapping, keys: Iterable[str]) -> None:
    """Raise UsageError for the first of the keys that the node lacks, with the file to add it to."""
    for key in keys:
        if key not in node:
            group = path.split(".")[0]
            where = f"conf/{group}/*.yaml" if group in GROUPS else "conf/train.yaml"
            raise UsageError(f"{_join(path, key)}: is missing; add it to {where}")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
