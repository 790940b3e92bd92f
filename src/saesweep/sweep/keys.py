"""The keys of conf/train.yaml: their types and ranges. What they are set to stands in the YAML only."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Range:
    low: int | float
    high: int | float = float("inf")
    open_low: bool = False  # low itself is not allowed

    def __contains__(self, value: int | float) -> bool:
        return (self.low < value if self.open_low else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        least = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        return least if self.high == float("inf") else f"{least} and at most {self.high:g}"


Count = Annotated[int, Range(1)]
Index = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]


@dataclass
class Activations:
    window: Count
    forward_tokens: Count
    documents_per_pool: Count
    center: bool
    max_norm: Positive | None
    statistics: Count


@dataclass
class Cache:
    name: str
    folder: str | None


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
    betas: list
    eps: Positive
    warmup: Share
    decay: Share
    clip: Positive | None


@dataclass
class Csv:
    name: str


@dataclass
class Wandb:
    name: str
    project: str
    entity: str | None
    mode: str | None
    live_seconds: Positive
    artifacts: bool


@dataclass
class HookPoint:
    module: str
    tensor: str
