"""The keys of conf/model, conf/site and conf/text, with their types and ranges."""
from collections.abc import Mapping
from typing import Annotated, Any

from saesweep.config.ranges import Count, Index, Limits, NotNegative, OneOf, Positive, Range, Text
from saesweep.config.walk import Keys

ATTENTION = ("sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3")  # none that runs a repository's code


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


class Load(Keys):
    """What transformers' from_pretrained is given."""

    attn_implementation: Annotated[str, OneOf(*ATTENTION)] | None = None
    quantization_config: Mapping | None = None
    device_map: Any = None


class LanguageModel(Model):
    dtype: Annotated[str, OneOf("auto", "float32", "bfloat16", "float16")]
    bos: bool
    hub_name: Text | None = None  # files of conf/model do without, as without `load`
    load: Load | None = None


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


class Own(Keys):
    folder: Text | None
    iterator: Text | None
    arguments: Mapping
    held_out: Annotated[float, Limits(
        lambda x: 0 < x < 1, "above 0 and below 1, such as 0.1", {"exclusiveMinimum": 0, "exclusiveMaximum": 1})]
    run: Count
    repeat: bool


class Activations(Keys):
    activations: Own


SOURCES = {  # of a model, by their first key
    "hub": Hub, "package": Package, "random": Random, "synthetic": Synthetic, "activations": Activations,
}
WITHOUT_LM = ("synthetic", "activations")


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


class Tokens(Files):
    """field: a column of token ids."""


class Chat(Files):
    """field: a column of messages."""

    template: Text | None


class Mix(Keys):
    name: str
    kind: str
    of: Mapping
    shares: dict[str, Positive]


TEXTS = {"stdlib": Stdlib, "files": Files, "hub": Streamed, "tokens": Tokens, "chat": Chat, "mix": Mix}  # by their `kind`
