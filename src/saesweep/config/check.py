"""What can be said about a config before anything is loaded: `check` names the key, the value and the fix."""

import difflib
import inspect
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from saesweep.config import schema
from saesweep.config.instantiate import NOT_ARGUMENTS, locate
from saesweep.config.logger_keys import OURS, refuse_missing_package, refuse_secrets
from saesweep.config.ranges import CountOrAuto, OneOf, Positive, whole
from saesweep.errors import UsageError, as_typed, fix

NOT_TRAINER = {  # what the Trainer is told by us
    "max_steps": "use tokens", "max_epochs": "use tokens", "max_tokens": "use tokens", "logger": "use the group logger",
    "gradient_clip_val": "gradients are clipped per SAE, see the arch", "accumulate_grad_batches": "use batch_tokens",
}
TRAINER = {  # what its arguments are called that conf/trainer names: to ask Lightning itself takes seconds
    "accelerator", "devices", "num_nodes", "strategy", "precision", "use_distributed_sampler", "enable_model_summary",
}
GIVEN = ("self", "d_in", "d_sae", "sparsity")  # what the constructor gets from elsewhere
GROUPS = ("model", "site", "text", "cache", "arch", "trainer", "logger")  # folders of conf/
LOGGERS = {"csv": schema.Csv, "wandb": schema.Wandb}
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Mapping: "a group of keys"}


def check(cfg: dict[str, Any]) -> None:
    """Raise UsageError for the first thing in a job's settings that cannot work; whole numbers become ints in place."""
    _typed("", cfg, schema.Train)
    for key in ("model", "site", "text", "arch", "trainer"):
        _require(key, cfg[key], ["name"])
    check_name("name", cfg["name"])
    for key in ("model", "site", "text", "arch"):
        check_name(f"{key}.name", cfg[key]["name"])
    _numbers(cfg)
    _place(cfg)
    _text(cfg["text"])
    _world(cfg["trainer"])
    _ahead(cfg)
    _cached(cfg)
    _arch(cfg["arch"])  # from here on torch is imported
    _trainer(cfg["trainer"])
    _loggers(cfg.get("logger"))


def check_name(key: str, value: Any) -> None:
    """Names become folders."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", value):
        raise UsageError(f"{key}={value}: is the name of a folder under outputs/: letters, digits and . _ + - only, "
                         "not starting with a dot")


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _typed(path: str, node: Any, kind: Any) -> Any:
    """The node, of the kind: a dataclass for its keys, or a type, with `Range` and `None` where it says so; 1e6 as an int."""
    if is_dataclass(kind):
        _known(path, node, [field.name for field in fields(kind)])
        _has(path, node, kind)
    elif get_origin(kind) is Annotated:
        base, limits = get_args(kind)
        node = _typed(path, whole(node) if isinstance(limits, CountOrAuto) else node, base)
        if node not in limits:
            meant = "" if base is str or isinstance(limits, OneOf) else fix(path, node)
            raise UsageError(f"{path}={as_typed(node)}: must be {limits}{meant}")
    elif get_origin(kind) is UnionType or NoneType in get_args(kind):
        if node is not None:
            return _typed(path, node, next(k for k in get_args(kind) if k is not NoneType))
    elif kind in TYPE_NAMES:
        node = whole(node) if kind is int else node
        if isinstance(node, float) and not math.isfinite(node) and kind in (int, float):
            raise UsageError(f"{path}={as_typed(node)}: must be a finite number{', and a whole number' if kind is int else ''}")
        if not _is(node, kind):
            raise UsageError(f"{path}={as_typed(node)}: must be {TYPE_NAMES[kind]}{'' if kind is Mapping else fix(path, node)}")
        if kind is int and abs(node) >= 2**63:
            raise UsageError(f"{path}={node}: must be below 2**63")
    return node


def _has(path: str, node: Mapping, kind: type) -> None:
    """The fields of a dataclass, as it says they are; what else there is, is not looked at."""
    _require(path, node, [field.name for field in fields(kind) if field.default is MISSING])
    for key, of in get_type_hints(kind, include_extras=True).items():
        if key in node:
            node[key] = _typed(f"{path}.{key}".lstrip("."), node[key], of)


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _known(path: str, node: Any, known: Iterable[str]) -> None:
    if not isinstance(node, Mapping):
        raise UsageError(f"{path}={as_typed(node)}: must be a group of keys: {', '.join(known)}")
    choices = [*known, *([] if path else ["sweeps"])]  # a group that has no key of its own
    for key in node:
        if key not in known:
            full = f"{path}.{key}".lstrip(".")
            raise UsageError(f"{full}={as_typed(node[key])}: there is no key {full}; {nearest(str(key), choices)}")


def _require(path: str, node: Mapping, needed: Iterable[str]) -> None:
    for key in needed:
        if key not in node:
            group = path.split(".")[0]
            where = f"conf/{group}/*.yaml" if group in GROUPS else "conf/train.yaml"
            raise UsageError(f"{f'{path}.{key}'.lstrip('.')}: is missing; add it to {where}")


def _numbers(cfg: dict) -> None:
    cfg["sparsity"] = whole(cfg["sparsity"])
    sparsity, width, tokens, batch = (cfg[key] for key in ("sparsity", "width", "tokens", "batch_tokens"))
    if not isinstance(sparsity, int) or sparsity < 1:
        raise UsageError(f"sparsity={sparsity}: {HOW_SPARSITY}")
    if sparsity > width:
        raise UsageError(f"sparsity={sparsity}: cannot be above width={width}; lower sparsity or raise width")
    if batch > tokens:
        raise UsageError(f"batch_tokens={batch}: cannot be above tokens={tokens}; lower batch_tokens or raise tokens")
    if (wanted := cfg["activations"]["statistics"]) > (there := cfg["activations"]["window"]):
        raise UsageError(f"activations.statistics={wanted}: are of the first window, so at most activations.window={there}; "
                         f"write activations.statistics={there}, or raise the window")
    has_lm = "synthetic" not in cfg["model"].get("source", {})
    if has_lm and (wanted := cfg["evaluation"]["lm_tokens"]) > (there := cfg["evaluation"]["tokens"]):
        raise UsageError(f"evaluation.lm_tokens={wanted}: is a part of evaluation.tokens={there}, so at most that")


HOW_SPARSITY = ("is the number of active latents per token and must be a whole number of at least 1, such as 32; "
                "to fix the sparsity coefficient instead, write arch.coefficient=6e-4")


def _place(cfg: dict) -> None:
    """The site and the layer exist in the model, which comes from one place."""
    model, site, layer = cfg["model"], cfg["site"]["name"], cfg["layer"]
    _typed("site", cfg["site"], schema.Site)
    _has("model", model, schema.Model)
    source, kinds = model["source"], [kind for kind in schema.SOURCES if model["source"].get(kind) is not None]
    if kinds == ["hub", "package"]:
        kinds = kinds[:1]  # where it is given, a package is not looked at
    if len(kinds) != 1:
        raise UsageError(f"model.source={source}: must have one of {', '.join(schema.SOURCES)}")
    _known("model.source", source, [field.name for kind in schema.SOURCES.values() for field in fields(kind)])
    _has("model.source", source, schema.SOURCES[kinds[0]])
    _typed("model", model, schema.Model if kinds == ["synthetic"] else schema.LanguageModel)
    if site not in model["sites"]:
        raise UsageError(f"site={site}: the model {model['name']} has no such site; it has {', '.join(model['sites'])}")
    _typed(f"model.sites.{site}", model["sites"][site], schema.HookPoint)
    if (tensor := model["sites"][site]["tensor"]) not in ("input", "output"):
        raise UsageError(f"model.sites.{site}.tensor={tensor}: must be input or output")
    if layer >= model["layers"]:
        raise UsageError(f"layer={layer}: the model {model['name']} has the layers 0 to {model['layers'] - 1}")


def _text(text: Mapping) -> None:
    _typed("text", text, Mapping)
    _typed("text.kind", text.get("kind"), Annotated[str, OneOf(*schema.TEXTS)])
    _typed("text", text, schema.TEXTS[text["kind"]])


def _world(trainer: Mapping) -> None:
    """One device, or several whose gradients are summed. Which of them is said by CUDA_VISIBLE_DEVICES."""
    _has("trainer", trainer, schema.Trainer)
    strategy = trainer.get("strategy", "auto")
    target = strategy.get("_target_") if isinstance(strategy, Mapping) else strategy
    count, nodes = trainer["devices"], trainer.get("num_nodes", 1)
    if count * nodes > 1 and target not in ("saesweep.training.strategies.PerMember", "saesweep.training.strategies.PerRank"):
        named = f"trainer.num_nodes={nodes}" if nodes > 1 else f"trainer.devices={count}"
        raise UsageError(f"{named}: several devices need trainer=ddp trainer.devices={count}, which sums the gradients of "
                         "every SAE, or trainer=sweep_parallel, which deals the SAEs out")


def _ahead(cfg: dict) -> None:
    on_gpu, kept = cfg["trainer"].get("accelerator") in ("gpu", "cuda"), cfg["cache"]["folder"] is not None
    if cfg["read_ahead"] and (kept or not on_gpu or "synthetic" in cfg["model"]["source"]):
        raise UsageError("read_ahead=true: a language model that reads a text on a GPU can be ahead of the training; leave it "
                         "out, or write trainer=gpu cache=none")


def _cached(cfg: dict) -> None:
    if cfg["cache"]["folder"] is not None and cfg["activations"]["forward_tokens"] == "auto":
        raise UsageError("activations.forward_tokens=auto: what cache=disk keeps is known by all that determines its bits; "
                         "write a number, such as the one that a run with cache=none finds")


def _arch(arch: Mapping) -> None:
    """The keys of the architecture are its constructor's arguments, and of their types."""
    _require("arch", arch, ("_target_", *NOT_ARGUMENTS))
    _typed("arch.coefficient", arch["coefficient"], Positive | None)
    _typed("arch.control", arch["control"], schema.Control | None)
    if (number := arch["coefficient"]) is not None and arch["control"] is None:
        raise UsageError(f"arch.coefficient={number}: {arch['name']} has none (arch.control=null), sparsity alone says how "
                         "many are active; leave it null")
    _typed("arch.optimizer", arch["optimizer"], schema.Optimizer)
    _call("arch", arch, GIVEN, ("_target_", *NOT_ARGUMENTS))


def _loggers(chosen: Any) -> None:
    """csv and wandb are ours; any other has a Lightning logger's `_target_`, and its constructor's arguments."""
    _typed("logger", chosen, Mapping | None)
    for kind, node in (chosen or {}).items():
        path = f"logger.{kind}"
        refuse_secrets(path, node)
        if kind in LOGGERS:
            _typed(path, node, LOGGERS[kind] | None)
            if kind == "wandb" and node is not None:
                schema.wandb_mode(node["mode"])  # before anything is trained
        elif node is not None:
            _typed(path, node, Mapping)
            _require(path, node, ["_target_"])
            refuse_missing_package(path, node)
            _call(path, node, ("self",), ("_target_", *OURS))


def _trainer(trainer: Mapping) -> None:
    for key, instead in NOT_TRAINER.items():
        if key in trainer:
            raise UsageError(f"trainer.{key}={as_typed(trainer[key])}: cannot be set here; {instead}")
    _require("trainer", trainer, ["_target_"])
    if trainer["_target_"] != "lightning.Trainer" or not trainer.keys() <= {"_target_", "name", *TRAINER}:
        _call("trainer", trainer, ("self",), ("_target_", "name"))


def _call(path: str, node: Mapping, given: Iterable[str], others: Iterable[str]) -> None:
    """The node's keys, without the others, are arguments of its `_target_`; with the given ones none is missing."""
    signature = inspect.signature(locate(node["_target_"], f"{path}._target_"), eval_str=path == "arch")
    asked = {name: p for name, p in signature.parameters.items() if name not in given and p.kind is not p.VAR_KEYWORD}
    if all(p.kind is not p.VAR_KEYWORD for p in signature.parameters.values()):
        _known(path, node, [*asked, *others])
    _require(path, node, [name for name, p in asked.items() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL])
    for name in asked.keys() & node.keys():
        kind = asked[name].annotation
        if kind in (int, float, bool, str) or get_origin(kind) in (Annotated, UnionType):
            node[name] = _typed(f"{path}.{name}", node[name], kind)


