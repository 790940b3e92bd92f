"""The checks of a job's settings before anything is loaded: types and ranges, then what the keys require of each other.

Every UsageError names the key, its value and the fix.
"""
import re
from collections.abc import Mapping, MutableMapping
from itertools import pairwise
from typing import Any

from saesweep.config import schema
from saesweep.config.check_inputs import check_hook_point, check_model, check_text, check_without_lm
from saesweep.config.instantiate import locate
from saesweep.config.logger_keys import refuse_missing_package, refuse_secrets
from saesweep.config.ranges import parts_of
from saesweep.config.settings import has_lm
from saesweep.config.study_schema import check_study
from saesweep.config.walk import keys_of, require, typed, typed_arguments, typed_fields
from saesweep.errors import UsageError, as_typed

NOT_TRAINER = {  # arguments of lightning.Trainer that saesweep sets itself
    "max_steps": "use tokens", "max_epochs": "use tokens", "max_tokens": "use tokens", "logger": "use the group logger",
    "gradient_clip_val": "gradients are clipped per SAE, see the arch", "accumulate_grad_batches": "use batch_tokens",
}
TRAINER = {  # arguments of lightning.Trainer in conf/trainer; for others Lightning is imported, which takes seconds
    "accelerator", "devices", "num_nodes", "strategy", "precision", "use_distributed_sampler", "enable_model_summary",
}
GIVEN = ("self", "d_in", "d_sae", "sparsity")  # arguments of an architecture that are not from its YAML file


def check(cfg: dict[str, Any]) -> None:
    """Raise UsageError for the first setting of a job that cannot work; whole numbers such as 1e6 become ints in place."""
    typed("", cfg, schema.Train)
    for key in ("model", "site", "text", "arch", "trainer"):
        require(key, cfg[key], ["name"])
    check_name("name", cfg["name"])
    for key in ("model", "site", "text", "arch"):
        check_name(f"{key}.name", cfg[key]["name"])
    _numbers(cfg)
    check_model(cfg["model"])
    check_hook_point(cfg)
    check_text(cfg["text"])
    _world(cfg["trainer"])
    _read_ahead(cfg)
    _list_room(cfg)
    _cuda_graphs(cfg)
    _disk_cache(cfg)
    check_study(cfg.get("study"), cfg.get("explainer"))
    check_without_lm(cfg)
    _arch(cfg["arch"])  # imports torch
    _prefixes(cfg["arch"], cfg["width"])
    _trainer(cfg["trainer"])
    _loggers(cfg.get("logger"))


def check_name(key: str, value: Any) -> None:
    """Raise UsageError for a name that cannot be the name of a folder."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", value):
        raise UsageError(f"{key}={as_typed(value)}: is the name of a folder under outputs/: letters, digits and . _ + - only, "
                         "not starting with a dot")


def _numbers(cfg: dict) -> None:
    sparsity, width, tokens, batch = (cfg[key] for key in ("sparsity", "width", "tokens", "batch_tokens"))
    if sparsity > width:
        raise UsageError(f"sparsity={sparsity}: cannot be above width={width}; lower sparsity or raise width")
    if tokens == 0 and cfg.get("init_from") is None:
        raise UsageError(f"tokens=0: must be at least 1, such as {batch}, or 0 with init_from=FOLDER")
    if batch > tokens > 0:
        raise UsageError(f"batch_tokens={batch}: cannot be above tokens={tokens}; lower batch_tokens or raise tokens")
    if (wanted := cfg["activations"]["statistics"]) > (window := cfg["activations"]["window"]):
        raise UsageError(f"activations.statistics={wanted}: are taken from the first window, so cannot be above "
                         f"activations.window={window}; write activations.statistics={window}, or raise the window")
    if has_lm(cfg) and (wanted := cfg["evaluation"]["lm_tokens"]) > (held_out := cfg["evaluation"]["tokens"]):
        raise UsageError(f"evaluation.lm_tokens={wanted}: cannot be above evaluation.tokens={held_out}, which are read; "
                         f"write evaluation.lm_tokens={held_out}, or raise evaluation.tokens")


def _world(trainer: MutableMapping) -> None:
    """One device, or several with a strategy of saesweep; CUDA_VISIBLE_DEVICES says which of the GPUs."""
    typed_fields("trainer", trainer, schema.Trainer)
    strategy, count, nodes = trainer.get("strategy"), trainer["devices"], trainer.get("num_nodes", 1)
    if count * nodes == 1:
        return
    target = strategy.get("_target_") if isinstance(strategy, Mapping) else None
    if target is None or not hasattr(locate(target, "trainer.strategy._target_"), "ranks_share_saes"):
        named = f"trainer.num_nodes={nodes}" if nodes > 1 else f"trainer.devices={count}"
        raise UsageError(f"{named}: several devices need trainer=ddp trainer.devices={count}, which sums the gradients of "
                         "every SAE, or trainer=sweep_parallel, which distributes the SAEs over the devices")


def _on_gpu(cfg: dict) -> bool:
    return cfg["trainer"].get("accelerator") in ("gpu", "cuda")


def _read_ahead(cfg: dict) -> None:
    kept = cfg["cache"]["folder"] is not None
    if cfg["read_ahead"] and (kept or not _on_gpu(cfg) or not has_lm(cfg)):
        raise UsageError("read_ahead=true: needs a language model on a GPU and cache=none; leave it out, or write "
                         "trainer=gpu cache=none")


def _list_room(cfg: dict) -> None:
    if cfg.get("list_room") and not _on_gpu(cfg):
        raise UsageError("list_room=true: is for a GPU, whose host would wait for the length of a list; leave it out, or write "
                         "trainer=gpu")


def _cuda_graphs(cfg: dict) -> None:
    if not cfg.get("cuda_graphs"):
        return
    if not _on_gpu(cfg):
        raise UsageError("cuda_graphs=true: is for a GPU; leave it out, or write trainer=gpu")
    if (precision := cfg["trainer"]["precision"]) != "32-true":
        raise UsageError(f"cuda_graphs=true: is for a training in fp32, not trainer.precision={precision}; leave one out")


def _disk_cache(cfg: dict) -> None:
    if cfg["cache"]["folder"] is not None and cfg["activations"]["forward_tokens"] == "auto":
        raise UsageError("activations.forward_tokens=auto: cache=disk finds stored activations by the settings that determine "
                         "their bits; write a number, such as the one that a run with cache=none finds")


def _arch(arch: MutableMapping) -> None:
    """The keys of an architecture are schema.Arch's and its constructor's arguments."""
    typed_fields("arch", arch, schema.Arch)
    if (number := arch["coefficient"]) is not None and arch["control"] is None:
        raise UsageError(f"arch.coefficient={number}: {arch['name']} has none (arch.control=null): sparsity alone sets the "
                         "number of active latents; leave it null")
    typed_arguments("arch", arch, GIVEN, keys_of(schema.Arch))


def _prefixes(arch: Mapping, width: int) -> None:
    """Each prefix of a Matryoshka has latents that the one before has not."""
    if not isinstance(shares := arch.get("prefixes"), list):
        return
    numbers = parts_of(width, shares)
    if any(a >= b for a, b in pairwise([0, *numbers])):
        raise UsageError(f"arch.prefixes={as_typed(shares)}: are the first {', '.join(map(str, numbers))} of width={width} "
                         "latents; each must have more than the one before: leave some out, or raise width")


def _loggers(chosen: Any) -> None:
    """csv and wandb are saesweep's own; any other is a Lightning logger with a `_target_` and its constructor's arguments."""
    typed("logger", chosen, Mapping | None)
    for kind, node in (chosen or {}).items():
        path = f"logger.{kind}"
        refuse_secrets(path, node)
        if kind in schema.LOGGERS:
            typed(path, node, schema.LOGGERS[kind] | None)
            if kind == "wandb" and node is not None:
                schema.wandb_mode(node["mode"])  # refuses a WANDB_MODE that W&B would refuse only after the training
        elif node is not None:
            typed(path, node, Mapping)
            typed_fields(path, node, schema.OtherLogger)
            refuse_missing_package(path, node)
            typed_arguments(path, node, ("self",), keys_of(schema.OtherLogger))


def _trainer(trainer: MutableMapping) -> None:
    for key, instead in NOT_TRAINER.items():
        if key in trainer:
            raise UsageError(f"trainer.{key}={as_typed(trainer[key])}: cannot be set here; {instead}")
    require("trainer", trainer, ["_target_"])
    if trainer["_target_"] != "lightning.Trainer" or not trainer.keys() <= {"_target_", "name", *TRAINER}:
        typed_arguments("trainer", trainer, ("self",), ("_target_", "name"))
