"""The keys of the config, with their types and ranges. Default values are in the YAML files of conf/ only."""
import os
from collections.abc import Mapping
from typing import Annotated, Any

from saesweep.config.ranges import (
    AutoCount,
    Betas,
    Count,
    Index,
    NotNegative,
    OneOf,
    Positive,
    Several,
    Share,
    TargetL0,
    Text,
    TrainingTokens,
)
from saesweep.config.walk import Keys
from saesweep.errors import UsageError


class Activations(Keys):
    window: Count
    forward_tokens: AutoCount
    documents_per_pool: Count
    center: bool
    max_norm: Positive | None
    statistics: Several
    passes: Count = 1  # absent in older configs


class Cache(Keys):
    name: str
    folder: Text | None


class Evaluation(Keys):
    tokens: Count
    lm_tokens: Index
    calibration_tokens: Count
    forward_tokens: Count
    dead_after: Count
    lm_blocks: Count | None = None  # absent in older configs


class Train(Keys):
    name: str
    seed: Index
    stream_seed: Index
    layer: Index
    sparsity: TargetL0
    width: Count
    tokens: TrainingTokens
    batch_tokens: Count
    context: Several
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
    logger: Any = None  # absent with logger=[]
    list_room: bool = False  # absent in older configs
    cuda_graphs: bool = False  # likewise
    init_from: Text | None = None  # likewise
    skip: bool = False  # likewise
    study: Any = None  # of study_schema.py, as the explainer; absent in older configs
    explainer: Any = None
    objective: Any = None  # of hydra/sweeper=optuna alone


# The role of each key of Train. A key in none of these lists is the same within a group and, unless a command sweeps it, within
# a figure, and identifies the SAE.
MAY_DIFFER_IN_A_GROUP = ("arch", "sparsity", "width", "dense", "skip", "site", "layer", "seed", "name", "plan", "overwrite",
                         "study", "explainer")
MAY_DIFFER_IN_A_FIGURE = ("arch", "sparsity", "seed")
NOT_THE_SAES = (  # they do not identify the SAE; of the trainer only the precision does, so that training can resume elsewhere
    "name", "plan", "overwrite", "log_tokens", "save_tokens", "save_minutes", "read_ahead", "list_room", "logger", "trainer",
    "cache", "study", "explainer", "objective",
)


class Control(Keys):
    start: Positive
    gain: NotNegative
    power: float
    damping: NotNegative
    memory: Count
    warmup: Share
    freeze: Share


class Optimizer(Keys):
    lr: Positive
    betas: Betas
    eps: Positive
    warmup: Share
    decay: Share
    clip: Positive | None
    clip_by_previous: bool = False  # absent in older configs


class Arch(Keys):
    """The keys that every architecture has beside its constructor's arguments."""

    _target_: str
    name: str
    coefficient: Positive | None
    control: Control | None
    optimizer: Optimizer


class Csv(Keys):
    name: str


MODES = ("online", "offline", "disabled")
ALIASES = {"dryrun": "offline", "run": "online"}  # which W&B accepts in WANDB_MODE


def wandb_mode(configured: str | None) -> str:
    """logger.wandb.mode, or else WANDB_MODE, or else online. Raises UsageError where it is not one of MODES."""
    environment = os.environ.get("WANDB_MODE") or "online"
    mode = configured or ALIASES.get(environment, environment)
    if mode not in MODES:
        key, other = ("WANDB_MODE", "logger.wandb.mode") if configured is None else ("logger.wandb.mode", "WANDB_MODE")
        raise UsageError(f"{key}={mode} (or {other}): choose one of {', '.join(MODES)}")
    return mode


class Wandb(Keys):
    name: str
    project: str
    entity: str | None
    mode: Annotated[str, OneOf(*MODES)] | None
    live_seconds: Positive
    artifacts: bool


class OtherLogger(Keys):
    """A Lightning logger: the other keys are its constructor's arguments."""

    _target_: str
    needs: str | None = None


LOGGERS = {"csv": Csv, "wandb": Wandb}  # those of saesweep; any other name is an OtherLogger


class Trainer(Keys):
    """The arguments of lightning.Trainer that saesweep restricts; it takes the others as they are."""

    name: str
    accelerator: Annotated[str, OneOf("cpu", "gpu", "cuda")]
    precision: Annotated[Any, OneOf("32-true", "bf16-mixed", "64-true")]
    devices: Count
    num_nodes: Count = 1
