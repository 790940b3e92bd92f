"""A node of the config against the types and limits of a schema: the message names the key, the value and the fix."""
import difflib
import math
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from saesweep.config.ranges import CountOrAuto, OneOf, TargetL0, whole
from saesweep.errors import UsageError, as_typed, fix

GROUPS = ("model", "site", "text", "cache", "arch", "trainer", "logger", "explainer")  # the folders of conf/
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Mapping: "a group of keys"}


def typed(path: str, node: Any, kind: Any) -> Any:
    """The node, checked against the kind; 1e6 becomes an int, and mappings are changed in place. Raises UsageError.

    A kind is a dataclass of keys, a type, `Annotated` limits, `dict[str, kind]` or `kind | None`; any other accepts everything.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        refuse_unknown(path, node, [field.name for field in fields(kind)])
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
    """The fields of a dataclass are there and as it declares them; other keys of the node are ignored."""
    require(path, node, [field.name for field in fields(kind) if field.default is MISSING])
    for key, annotation in get_type_hints(kind, include_extras=True).items():
        if key in node:
            node[key] = typed(_join(path, key), node[key], annotation)


def _limited(path: str, node: Any, base: Any, limits: Any) -> Any:
    node = typed(path, whole(node) if isinstance(limits, CountOrAuto | TargetL0) else node, base)
    if node not in limits:
        hint = "" if base in (str, list) or isinstance(limits, OneOf) else fix(path, node)
        raise UsageError(f"{path}={as_typed(node)}: must be {limits}{hint}")
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
            raise UsageError(f"{full}={as_typed(node[key])}: there is no key {full}; {_nearest(str(key), choices)}")


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def require(path: str, node: Mapping, needed: Iterable[str]) -> None:
    """Raise UsageError for the first of the needed keys that the node lacks, with the file to add it to."""
    for key in needed:
        if key not in node:
            group = path.split(".")[0]
            where = f"conf/{group}/*.yaml" if group in GROUPS else "conf/train.yaml"
            raise UsageError(f"{_join(path, key)}: is missing; add it to {where}")


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
