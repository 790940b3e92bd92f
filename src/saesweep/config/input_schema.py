"""The keys of conf/model, conf/site and conf/text, with their types and ranges."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from saesweep.config.ranges import Count, Index, NotNegative, OneOf, Positive, Range, Text


@dataclass
class HookPoint:
    module: str
    tensor: Annotated[str, OneOf("input", "output")]


@dataclass
class Site:
    name: str
    hook_name: str


@dataclass
class Model:
    name: str
    layer: Index
    layers: Count
    source: Mapping
    sites: dict[str, HookPoint]


@dataclass
class LanguageModel(Model):
    dtype: Annotated[str, OneOf("auto", "float32", "bfloat16", "float16")]
    bos: bool


@dataclass
class Hub:
    hub: Text
    revision: Text


@dataclass
class Package:
    package: Text
    install: str
    sha256: str
    parts: list


@dataclass
class Random:
    random: Mapping


@dataclass
class Dictionary:
    features: Count
    d_in: Count
    l0: Positive
    spread: Annotated[float, Range(1)]
    noise: NotNegative
    seed: Index
    parents: Annotated[float, Range(0, 0.5)] = 0.0  # a file of before this key has none


@dataclass
class Synthetic:
    synthetic: Dictionary


SOURCES = {"hub": Hub, "package": Package, "random": Random, "synthetic": Synthetic}  # of a model, by their first key


@dataclass
class Stdlib:
    name: str
    kind: str
    held_out: float
    repeat: bool


@dataclass
class Files(Stdlib):
    glob: Text | None
    field: Text


@dataclass
class Streamed(Stdlib):
    repository: Text
    config: str | None
    revision: str | None
    field: Text
    buffer: Count


TEXTS = {"stdlib": Stdlib, "files": Files, "hub": Streamed}  # by their `kind`
