"""The keys of conf/model, conf/site and conf/text, with their types and ranges."""
from collections.abc import Mapping
from typing import Annotated

from saesweep.config.ranges import Count, Index, NotNegative, OneOf, Positive, Range, Text
from saesweep.config.walk import Keys


class Tensor(Keys):
    module: str
    tensor: Annotated[str, OneOf("input", "output")]


class HookPoint(Tensor):
    target: Tensor | None = None  # of a transcoder


class Site(Keys):
    name: str
    hook_name: str
    hook_name_out: Text | None = None  # of a transcoder


class Model(Keys):
    name: str
    layer: Index
    layers: Count
    source: Mapping
    sites: dict[str, HookPoint]


class LanguageModel(Model):
    dtype: Annotated[str, OneOf("auto", "float32", "bfloat16", "float16")]
    bos: bool
    hub_name: Text | None = None  # files of conf/model do without


class Hub(Keys):
    hub: Text
    revision: Text
    shuffle: Index | None = None  # seed; files of conf/model do without


class Package(Keys):
    package: Text
    install: str
    sha256: str
    parts: list
    shuffle: Index | None = None


class Random(Keys):
    random: Mapping
    shuffle: Index | None = None


class Dictionary(Keys):
    features: Count
    d_in: Count
    l0: Positive
    spread: Annotated[float, Range(1)]
    noise: NotNegative
    seed: Index
    parents: Annotated[float, Range(0, 0.5)] = 0.0  # a file of before this key has none


class Synthetic(Keys):
    synthetic: Dictionary


SOURCES = {"hub": Hub, "package": Package, "random": Random, "synthetic": Synthetic}  # of a model, by their first key


class Stdlib(Keys):
    name: str
    kind: str
    held_out: float
    repeat: bool


class Files(Stdlib):
    glob: Text | None
    field: Text


class Streamed(Stdlib):
    repository: Text
    config: str | None
    revision: str | None
    field: Text
    buffer: Count


TEXTS = {"stdlib": Stdlib, "files": Files, "hub": Streamed}  # by their `kind`
