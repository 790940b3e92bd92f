"""The checks of where the activations come from: the model, the hook point, the text, and what needs a language model."""
from collections.abc import Collection, Mapping, MutableMapping
from typing import Annotated

from saesweep.config import input_schema
from saesweep.config.instantiate import locate
from saesweep.config.ranges import OneOf
from saesweep.config.settings import not_for_a_study, own_activations, transcodes
from saesweep.config.walk import keys_of, refuse_unknown, typed, typed_fields
from saesweep.errors import UsageError, as_typed


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
    typed("model", model, input_schema.Model if kinds[0] in input_schema.WITHOUT_LM else input_schema.LanguageModel)
    if kinds == ["random"] and (given := [key for key in ("quantization_config", "device_map") if _loads(model, key)]):
        raise UsageError(f"model.load.{given[0]}: is for weights in files, and those of model.source.random are made; leave it "
                         "out")
    if own := source.get("activations"):
        _own_activations(own)


def _own_activations(own: Mapping) -> None:
    """Either a folder, or something that can be imported and called."""
    key, (folder, iterator) = "model.source.activations", (own["folder"], own["iterator"])
    if (folder is None) == (iterator is None):
        raise UsageError(f"{key}.folder={as_typed(folder)} {key}.iterator={as_typed(iterator)}: give one of the two")
    if iterator is not None and not callable(locate(iterator, f"{key}.iterator")):
        raise UsageError(f"{key}.iterator={iterator}: cannot be called; give a function that returns an iterator")


def _loads(model: Mapping, key: str) -> bool:
    return (model.get("load") or {}).get(key) is not None


def check_hook_point(cfg: dict) -> None:
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
    has_target = transcodes(cfg)
    if cfg.get("skip") and not has_target:
        raise UsageError(f"skip=true: site={site} reconstructs what it reads, where a skip would learn the identity; leave it "
                         "out, or write site=transcoder")
    if has_target != (cfg["site"].get("hook_name_out") is not None):
        has, lacks = ("model.sites", "site") if has_target else ("site", "model.sites")
        raise UsageError(f"site={site}: {has} gives a target and {lacks} none; a transcoder needs model.sites.{site}.target "
                         "and site.hook_name_out, any other site neither")
    if has_target and (study := _study(cfg)):
        raise UsageError(f"study={study}: a study reads no transcoders; write study=none with site={site}")
    if has_target and cfg.get("init_from") is not None:
        raise UsageError(f"init_from={cfg['init_from']}: continues an SAE, not a transcoder; leave it out with site={site}")


def check_text(text: Mapping, path: str = "text", without: Collection[str] = ()) -> None:
    kinds = [kind for kind in input_schema.TEXTS if kind not in without]
    typed(f"{path}.kind", text.get("kind"), Annotated[str, OneOf(*kinds)])
    typed(path, text, input_schema.TEXTS[text["kind"]])
    if text["kind"] == "mix":
        if text["of"].keys() != text["shares"].keys() or not text["of"]:
            raise UsageError(f"{path}.shares={as_typed(text['shares'])}: must have a share for each text of {path}.of: "
                             f"{', '.join(text['of']) or 'which has none'}")
        for name, part in text["of"].items():
            typed(f"{path}.of.{name}", part, Mapping)
            check_text(part, f"{path}.of.{name}", without=["mix"])


def check_without_lm(cfg: dict) -> None:
    """What needs a language model or a text, and is asked for with activations from elsewhere."""
    if (study := _study(cfg)) and (reason := not_for_a_study(cfg)):
        raise UsageError(f"study={study}: cannot read {reason}; write study=none")
    if own_activations(cfg) is not None and cfg["cache"]["folder"] is not None:
        raise UsageError(f"cache={cfg['cache']['name']}: keeps what a language model computes, and model.source.activations "
                         "needs none; write cache=none")


def _study(cfg: dict) -> str | None:
    """Its name, where one is asked for."""
    name = (cfg.get("study") or {}).get("name", "none")
    return None if name == "none" else name
