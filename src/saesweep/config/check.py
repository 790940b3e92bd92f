"""The checks of a job's settings before anything is loaded: types and ranges, then what the keys require of each other.

Every UsageError names the key, its value and the fix.
"""
import re
from collections.abc import Mapping, MutableMapping
from itertools import pairwise
from typing import Annotated, Any

from saesweep.config import input_schema, schema
from saesweep.config.instantiate import locate
from saesweep.config.logger_keys import refuse_missing_package, refuse_secrets
from saesweep.config.ranges import OneOf, parts_of
from saesweep.config.study_schema import check_study
from saesweep.config.walk import keys_of, refuse_unknown, require, typed, typed_arguments, typed_fields
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
    _hook_point(cfg)
    _text(cfg["text"])
    _world(cfg["trainer"])
    _read_ahead(cfg)
    _list_room(cfg)
    _disk_cache(cfg)
    check_study(cfg.get("study"), cfg.get("explainer"))
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
    if batch > tokens:
        raise UsageError(f"batch_tokens={batch}: cannot be above tokens={tokens}; lower batch_tokens or raise tokens")
    if (wanted := cfg["activations"]["statistics"]) > (window := cfg["activations"]["window"]):
        raise UsageError(f"activations.statistics={wanted}: are taken from the first window, so cannot be above "
                         f"activations.window={window}; write activations.statistics={window}, or raise the window")
    has_lm = "synthetic" not in cfg["model"].get("source", {})
    if has_lm and (wanted := cfg["evaluation"]["lm_tokens"]) > (held_out := cfg["evaluation"]["tokens"]):
        raise UsageError(f"evaluation.lm_tokens={wanted}: cannot be above evaluation.tokens={held_out}, which are read; "
                         f"write evaluation.lm_tokens={held_out}, or raise evaluation.tokens")


def check_model(model: MutableMapping) -> None:
    """The model comes from one source, and has the keys of a model of that source."""
    typed_fields("model", model, input_schema.Model)
    source, kinds = model["source"], [kind for kind in input_schema.SOURCES if model["source"].get(kind) is not None]
    if kinds == ["hub", "package"]:
        kinds = ["hub"]  # which takes precedence
    if len(kinds) != 1:
        raise UsageError(f"model.source={source}: must have one of {', '.join(input_schema.SOURCES)}")
    refuse_unknown("model.source", source, [key for kind in input_schema.SOURCES.values() for key in keys_of(kind)])
    typed_fields("model.source", source, input_schema.SOURCES[kinds[0]])
    typed("model", model, input_schema.Model if kinds == ["synthetic"] else input_schema.LanguageModel)


def _hook_point(cfg: dict) -> None:
    """The site and the layer exist in the model."""
    typed("site", cfg["site"], input_schema.Site)
    model, site, layer = cfg["model"], cfg["site"]["name"], cfg["layer"]
    if site not in model["sites"]:
        raise UsageError(f"site={site}: the model {model['name']} has no such site; it has {', '.join(model['sites'])}")
    if layer >= model["layers"]:
        raise UsageError(f"layer={layer}: the model {model['name']} has the layers 0 to {model['layers'] - 1}")
    _transcoder(cfg, site)


def _transcoder(cfg: dict, site: str) -> None:
    """What needs a site with a target, or none."""
    transcodes = cfg["model"]["sites"][site].get("target") is not None
    if cfg.get("skip") and not transcodes:
        raise UsageError(f"skip=true: site={site} reconstructs what it reads, where a skip would learn the identity; leave it "
                         "out, or write site=transcoder")
    if transcodes != (cfg["site"].get("hook_name_out") is not None):
        has, lacks = ("model.sites", "site") if transcodes else ("site", "model.sites")
        raise UsageError(f"site={site}: {has} gives a target and {lacks} none; a transcoder needs model.sites.{site}.target "
                         "and site.hook_name_out, any other site neither")
    if transcodes and (study := (cfg.get("study") or {}).get("name", "none")) != "none":
        raise UsageError(f"study={study}: a study reads no transcoders; write study=none with site={site}")


def _text(text: Mapping) -> None:
    typed("text.kind", text.get("kind"), Annotated[str, OneOf(*input_schema.TEXTS)])
    typed("text", text, input_schema.TEXTS[text["kind"]])


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


def _read_ahead(cfg: dict) -> None:
    on_gpu, kept = cfg["trainer"].get("accelerator") in ("gpu", "cuda"), cfg["cache"]["folder"] is not None
    if cfg["read_ahead"] and (kept or not on_gpu or "synthetic" in cfg["model"]["source"]):
        raise UsageError("read_ahead=true: needs a language model on a GPU and cache=none; leave it out, or write "
                         "trainer=gpu cache=none")


def _list_room(cfg: dict) -> None:
    if cfg.get("list_room") and cfg["trainer"].get("accelerator") not in ("gpu", "cuda"):
        raise UsageError("list_room=true: is for a GPU, whose host would wait for the length of a list; leave it out, or write "
                         "trainer=gpu")


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
    if arch["optimizer"]["clip"] is None and arch["optimizer"].get("clip_by_previous"):
        raise UsageError("arch.optimizer.clip_by_previous=true: nothing is clipped (arch.optimizer.clip=null); set "
                         "arch.optimizer.clip to a norm, or leave clip_by_previous=false")
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
