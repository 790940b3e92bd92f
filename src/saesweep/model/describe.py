"""What conf/model needs to know of a language model, from its config and tokenizer alone: no weight is read."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from saesweep.errors import UsageError
from saesweep.lm import checks, kinds
from saesweep.lm.hub import brief, from_hub, silence_transformers
from saesweep.lm.models import fast_tokenizer, first_token
from saesweep.model import blocks
from saesweep.model.small import small


class FoundSite(NamedTuple):
    module: str  # with {layer}
    tensor: str
    d_in: int | None  # None where it is not to be read off the module
    layers: list[int]  # that have it


class Description(NamedTuple):
    class_name: str
    parameters: int
    layers: int
    dtype: str
    bos: bool
    sites: dict[str, FoundSite]
    notes: list[str]  # what to look at

    def yaml(self, name: str, source: str) -> str:
        """The file of conf/model. source: owner/name or a folder."""
        width = self.sites["resid"].d_in
        head = f"# {self.class_name}, {_short(self.parameters)} parameters, d_model {width}. Sites found by `saesweep model`."
        sites = [f'  {site}: {{module: "{one.module}", tensor: {one.tensor}}}' for site, one in self.sites.items()]
        return "\n".join([
            head, f"name: {name}", f"layer: {self.layers // 2}", f"layers: {self.layers}", f"dtype: {self.dtype}",
            f"bos: {str(self.bos).lower()}", "source:", f'  hub: "{source}"', "  revision: main",
            "load: {}                             # for from_pretrained: attn_implementation, quantization_config, device_map",
            "sites:", *sites, ""])

    def table(self) -> str:
        rows = [("site", "module", "tensor", "d_in")]
        rows += [(site, one.module, one.tensor, str(one.d_in or "?")) for site, one in self.sites.items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                         for row in rows)


def describe(source: str) -> Description:
    """source: owner/name of the hub, or a folder. Raises UsageError for a model that cannot be loaded here."""
    model = {"name": source, "source": {"hub": source, "revision": "main"}}
    config = from_hub(transformers.AutoConfig, model)
    checks.require_loadable(model, config)
    bos, note = _bos(model, kinds.is_causal(config))
    found = of_config(config, model)
    return found._replace(bos=bos, notes=[*found.notes, note])


def of_config(config: transformers.PreTrainedConfig, model: Mapping[str, Any]) -> Description:
    """All but `bos`. Raises UsageError where there are no blocks."""
    layers = checks.layers_of(config)
    with silence_transformers():
        try:
            whole = kinds.without_memory(config)
            path = blocks.stack(whole, layers or 0)
        except Exception as error:  # whatever a model class raises for its config
            raise UsageError(f"{model['name']}: {config.model_type} cannot be described ({brief(error)}); write conf/model by "
                             "hand") from error
        notes, sites = [], dict[str, blocks.Site]()
        try:
            tiny = small(config)
            sites = blocks.sites(tiny, blocks.stack(tiny, checks.layers_of(tiny.config) or 0))
        except Exception as error:  # whatever a model class raises at sizes that it was not written for
            notes.append(f"no small copy of it runs ({brief(error)}), so only resid is here: add mlp and attn by hand")
    sites.setdefault("resid", (f"{path}.{{layer}}", "output"))
    found = {site: _found(whole, config, *at, layers or 0) for site, at in sites.items()}
    return Description(
        type(whole).__name__, sum(p.numel() for p in whole.parameters()), layers or 0, _dtype(config), False,
        {site: one for site, one in found.items() if one.layers}, notes + _notes(found, layers or 0, kinds.is_causal(config)))


def _found(whole: nn.Module, config: transformers.PreTrainedConfig, module: str, tensor: str, layers: int) -> FoundSite:
    modules = dict(whole.named_modules())
    there = [layer for layer in range(layers) if module.format(layer=layer) in modules]
    if tensor == "output" or not there:
        return FoundSite(module, tensor, getattr(kinds.text_config(config), "hidden_size", None), there)
    linear = modules[module.format(layer=there[0])]
    width = linear.weight.shape[0] if isinstance(linear, Conv1D) else getattr(linear, "in_features", None)
    return FoundSite(module, tensor, width, there)


def _notes(found: Mapping[str, FoundSite], layers: int, causal: bool) -> list[str]:
    notes = []
    for site in ("mlp", "attn"):
        if site not in found or not found[site].layers:
            notes.append(f"{site}: none was found")
        elif len(there := found[site].layers) < layers:
            notes.append(f"{site}: in the layers {', '.join(map(str, there))} only; choose `layer` among them")
    if not causal:
        notes.append("it is an encoder: the loss of the language model, and so delta_loss, stays empty")
    return notes


def _bos(model: Mapping[str, Any], causal: bool) -> tuple[bool, str]:
    """Whether the tokenizer puts a token first, and what to say of it."""
    tokenizer = fast_tokenizer(model)
    if (first := first_token(tokenizer, causal)) is None:
        return False, "bos: its tokenizer has none"
    token = tokenizer.convert_ids_to_tokens([first])[0]
    if tokenizer("a")["input_ids"][:1] == [first]:
        return True, f"bos: its tokenizer puts {token} first"
    usual = "as is usual for GPT-2 and Pythia" if causal else "as in the training of most encoders"
    return False, f"bos: its tokenizer has {token} and does not put it first; bos: true does, {usual}"


def _dtype(config: transformers.PreTrainedConfig) -> str:
    dtype = str(getattr(config, "dtype", None) or getattr(kinds.text_config(config), "dtype", None)).removeprefix("torch.")
    return dtype if dtype in ("float32", "bfloat16", "float16") else "auto"


def _short(count: int) -> str:
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.1f}M"
