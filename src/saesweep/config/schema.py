"""The keys of the config: their types and ranges. What they are set to stands in the YAML only."""
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from saesweep.config.ranges import Count, CountOrAuto, Decays, Index, NotNegative, OneOf, Positive, Range, Share, Text
from saesweep.errors import UsageError


@dataclass
class Activations:
    window: Count
    forward_tokens: Annotated[Any, CountOrAuto()]
    documents_per_pool: Count
    center: bool
    max_norm: Positive | None
    statistics: Annotated[int, Range(2)]


@dataclass
class Cache:
    name: str
    folder: Text | None


@dataclass
class Evaluation:
    tokens: Count
    lm_tokens: Index
    calibration_tokens: Count
    forward_tokens: Count
    dead_after: Count


@dataclass
class Train:
    name: str
    seed: Index
    stream_seed: Index
    layer: Index
    sparsity: float  # more is said in check.py, with a message of its own
    width: Count
    tokens: Count
    batch_tokens: Count
    context: Annotated[int, Range(2)]
    log_tokens: Count
    save_tokens: Count
    save_minutes: Positive
    dense: bool
    read_ahead: bool
    plan: bool
    overwrite: bool
    activations: Activations
    evaluation: Evaluation
    model: Mapping
    site: Mapping
    text: Mapping
    cache: Cache
    arch: Mapping
    trainer: Mapping
    logger: Any = None  # absent where nobody is told


# Where a key of Train belongs. One that is in none of these lists is shared by a group, by a figure, and makes the SAE.
MAY_DIFFER_IN_A_GROUP = ("arch", "sparsity", "width", "dense", "site", "layer", "seed", "name", "plan", "overwrite")
MAY_DIFFER_IN_A_FIGURE = ("arch", "sparsity", "seed")
NOT_THE_SAES = (  # they say nothing about the SAE; of the trainer only the precision does, so that it may go on elsewhere
    "name", "plan", "overwrite", "log_tokens", "save_tokens", "save_minutes", "read_ahead", "logger", "trainer", "cache",
)


@dataclass
class Control:
    start: Positive
    gain: NotNegative
    power: float
    damping: NotNegative
    memory: Count
    warmup: Share
    freeze: Share


@dataclass
class Optimizer:
    lr: Positive
    betas: Annotated[list, Decays()]
    eps: Positive
    warmup: Share
    decay: Share
    clip: Positive | None


@dataclass
class Csv:
    name: str


MODES = ("online", "offline", "disabled")
ALIASES = {"dryrun": "offline", "run": "online"}  # W&B's own, of WANDB_MODE


def wandb_mode(configured: str | None) -> str:
    """logger.wandb.mode, or else WANDB_MODE, or else online. Raises UsageError where it is none of W&B's."""
    environment = os.environ.get("WANDB_MODE") or "online"
    mode = configured or ALIASES.get(environment, environment)
    if mode not in MODES:
        key, other = ("WANDB_MODE", "logger.wandb.mode") if configured is None else ("logger.wandb.mode", "WANDB_MODE")
        raise UsageError(f"{key}={mode} (or {other}): choose one of {', '.join(MODES)}")
    return mode


@dataclass
class Wandb:
    name: str
    project: str
    entity: str | None
    mode: Annotated[str, OneOf(*MODES)] | None
    live_seconds: Positive
    artifacts: bool


@dataclass
class HookPoint:
    module: str
    tensor: str


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
    sites: Mapping


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


@dataclass
class Synthetic:
    synthetic: Dictionary


SOURCES = {"hub": Hub, "package": Package, "random": Random, "synthetic": Synthetic}  # of a model, by their own key


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


@dataclass
class Trainer:
    """What we have a say in; the rest is Lightning's."""

    name: str
    accelerator: Annotated[str, OneOf("cpu", "gpu", "cuda")]
    precision: Annotated[Any, OneOf("32-true", "bf16-mixed", "64-true")]
    devices: Count
    num_nodes: Count = 1
