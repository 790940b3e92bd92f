"""The JSON schema of the config, from the types and limits that `check` uses, so that editors complete the YAML.

`python train.py --schema > schema.json` writes it. Its root describes conf/train.yaml and the composed config, and `$defs` has
an entry for the files of each group. A file of conf/arch, for one, refers to its entry in a comment at its top:

    # yaml-language-server: $schema=../../schema.json#/$defs/arch

The root and the entries consist of `anyOf` alone, because the YAML language server merges the root's keywords into the entry.
"""
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import yaml

from saesweep.config import input_schema, schema, study_schema
from saesweep.config.check import GIVEN, NOT_TRAINER
from saesweep.config.walk import arguments_of, keys_of, required_keys
from saesweep.errors import exit_on_usage_error

Node = dict[str, Any]
TYPES = {int: "integer", float: "number", bool: "boolean", str: "string", list: "array", Mapping: "object", NoneType: "null"}
UNRESOLVED = {
    "description": "an interpolation such as ${layer}, ??? for a value to be given later, or 300_000, a text in YAML 1.2",
    "type": "string", "pattern": r"\$\{.+\}|^\?\?\?$|^[+-]?\d+(_\d+)+$",
}


def print_schema(*conf: Path) -> None:
    """Ends the program with one line where a `_target_` cannot be imported, and without a word where a pager has left."""
    try:
        with exit_on_usage_error():
            print(json.dumps(json_schema(*conf), indent=2), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end


def json_schema(*conf: Path) -> Node:
    """The schema (draft 2020-12) of the config and of the files in each of the conf folders.

    The keys of an architecture, a trainer and a Lightning logger are those of the `_target_`s in the folders, which are
    imported. Raises UsageError for one that cannot be.
    """
    groups = {
        "model": _models(),
        "site": [_of(input_schema.Site)],
        "text": [_with(_of(kind), kind={"const": name}) for name, kind in input_schema.TEXTS.items() if is_dataclass(kind)],
        "cache": [_of(schema.Cache)],
        "arch": _called("arch", schema.Arch, GIVEN, conf),
        "trainer": _called("trainer", schema.Trainer, ("self", *NOT_TRAINER), conf),
        "logger": [*map(_of, schema.LOGGERS.values()), *_called("logger", schema.OtherLogger, ("self",), conf)],
        "study": [_with(_of(study_schema.NoStudy), name={"const": "none"}), _of(study_schema.Study)],
        "explainer": [_with(_of(kind), name={"const": name}) for name, kind in study_schema.EXPLAINERS.items()],
    }
    entries = {group: _entry(objects, _files(conf, group)) for group, objects in groups.items()}
    references = {group: {"$ref": f"#/$defs/{group}"} for group in groups}
    loggers = {"type": ["object", "null"], "additionalProperties": {"anyOf": [references.pop("logger"), {"type": "null"}]}}
    train = _with(_of(schema.Train), hydra={"type": "object"}, logger=loggers, **references)
    _describe(train, _comments([folder / "train.yaml" for folder in conf if (folder / "train.yaml").exists()]))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_entry([train], []), "$defs": entries | {"unresolved": UNRESOLVED},
    }


def _files(conf: Iterable[Path], group: str) -> list[Path]:
    return [path for folder in conf for path in sorted((folder / group).glob("*.yaml"))]


def _of(kind: Any) -> Node:
    """A type or dataclass of a schema, or the annotation of an argument; {}, which is anything, for other annotations."""
    if isinstance(kind, type) and is_dataclass(kind):
        return _object(get_type_hints(kind, include_extras=True), required_keys(kind))
    if get_origin(kind) is Annotated:
        base, limits = get_args(kind)[:2]
        return _of(base) | limits.json_schema
    if get_origin(kind) in (UnionType, Union):
        parts = [_of(one) for one in get_args(kind)]
        return {"anyOf": parts} if all(parts) else {}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _of(get_args(kind)[1])}
    return {"type": TYPES[kind]} if kind in TYPES else {}


def _object(kinds: Mapping[str, Any], needed: Iterable[str]) -> Node:
    properties = {name: _or_unresolved(_of(kind)) for name, kind in kinds.items()}
    return {"type": "object", "properties": properties, "required": list(needed), "additionalProperties": False}


def _or_unresolved(value: Node) -> Node:
    parts = value["anyOf"] if value.keys() == {"anyOf"} else [value]
    return {"anyOf": [*parts, {"$ref": "#/$defs/unresolved"}]} if value else value


def _with(node: Node, **properties: Node) -> Node:
    """The object with other properties in place of its own, or beside them."""
    return node | {"properties": node["properties"] | properties}


def _models() -> list[Node]:
    """One object for each kind of source. Keys of other kinds may be there; those that choose a kind are null, but for a
    package beside a hub, which takes precedence."""
    known = [key for kind in input_schema.SOURCES.values() for key in keys_of(kind)]
    objects = []
    for name, kind in input_schema.SOURCES.items():
        keys = input_schema.Model if name in input_schema.WITHOUT_LM else input_schema.LanguageModel
        unset = [other for other in input_schema.SOURCES if other != name and (name, other) != ("hub", "package")]
        source = _of(kind)
        source["properties"] = {key: {} for key in known} | {key: {"type": "null"} for key in unset} | source["properties"]
        objects.append(_with(_of(keys), source=source))
    return objects


def _called(group: str, kind: type, given: Iterable[str], conf: Iterable[Path]) -> list[Node]:
    """One object for each `_target_` in the files of the group: the keys of the dataclass and the target's other arguments."""
    targets = dict.fromkeys(yaml.safe_load(path.read_text()).get("_target_") for path in _files(conf, group))
    return [_call(target, group, kind, given) for target in targets if target is not None]


def _call(target: str, group: str, kind: type, given: Iterable[str]) -> Node:
    arguments, keys = arguments_of(target, group, given), _of(kind)
    node = _object(arguments.kinds, dict.fromkeys(["_target_", *keys["required"], *arguments.needed]))
    node["additionalProperties"] = arguments.takes_any
    return _with(_with(node, **keys["properties"]), _target_={"const": target})


def _entry(objects: list[Node], files: Iterable[Path]) -> Node:
    """The objects that a file may be, their keys described by the files that fit; with `defaults` not every key is needed."""
    for node in objects:
        _describe(node, _comments(path for path in files if _fits(yaml.safe_load(path.read_text()), node)))
    entry = {"anyOf": [_with(node, defaults={"type": "array"}) for node in objects]}
    for node in entry["anyOf"]:
        node["anyOf"] = [_needed(node), {"required": ["defaults"]}]
    return entry


def _needed(node: Node) -> Node:
    """Takes `required` out of an object and of the objects at its keys, and returns it as a schema of its own."""
    needed = {"required": node.pop("required")} if "required" in node else {}
    below = {key: found for key, value in node.get("properties", {}).items() if (found := _needed(value))}
    for part in node.get("anyOf", []):
        needed |= _needed(part)
    return needed | ({"properties": below} if below else {})


def _fits(file: Node, node: Node) -> bool:
    properties = node["properties"]
    known = all(key in properties and properties[key].get("const", value) == value for key, value in file.items())
    return known and file.keys() >= {*node["required"]}


def _describe(node: Node, comments: Mapping[str, str], path: str = "") -> None:
    for part in node.get("anyOf", []):
        _describe(part, comments, path)
    for key, value in node.get("properties", {}).items():
        if f"{path}{key}" in comments:
            value["description"] = comments[f"{path}{key}"]
        _describe(value, comments, f"{path}{key}.")


def _comments(files: Iterable[Path]) -> dict[str, str]:
    """The comment behind each key, by its dotted path; of several files' comments on a key, the first."""
    found: dict[str, str] = {}
    for path in files:
        text = path.read_text()
        found = dict(_behind(yaml.compose(text), text.splitlines())) | found
    return found


def _behind(node: yaml.Node | None, lines: list[str], path: str = "") -> Iterable[tuple[str, str]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        line = lines[key.start_mark.line]
        if line.strip().startswith(key.value) and (comment := re.search(r"\s#\s+(.*)", line)):
            yield f"{path}{key.value}", comment[1]
        yield from _behind(value, lines, f"{path}{key.value}.")
