"""Finished sweeps in a notebook: `from saesweep import load, results, language_model, splice`."""
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from saesweep.config.settings import has_lm
from saesweep.errors import UsageError
from saesweep.evaluation.splicing import spliced_in
from saesweep.lm import models
from saesweep.lm.models import LanguageModel
from saesweep.storage import checkpoints, sweep_table
from saesweep.storage.circuit_tracer import save_for_circuit_tracer
from saesweep.study.notebook.sae import StudiedSAE, load
from saesweep.training.loaded import LoadedSAE

__all__ = ["StudiedSAE", "language_model", "load", "results", "save_for_circuit_tracer", "splice"]
log = logging.getLogger(__name__)


def results(*sweeps: str | Path) -> pd.DataFrame:
    """One row per SAE of one or more sweeps, with the columns of pareto.csv; `folder` is what `load` takes.

    Raises UsageError where there is no such folder.
    """
    df = sweep_table.table(*map(Path, sweeps), base=Path("."))
    return df.rename(columns={"path": "folder"})


def language_model(sae: LoadedSAE, device: str = "cpu") -> LanguageModel:
    """The one that a loaded SAE was trained on: `module` is a transformers model, `tokenizer.encode` takes texts.

    Raises UsageError where the files of its folder have changed since.
    """
    model = sae.config["model"]
    if not has_lm(sae.config):
        raise UsageError(f"model={model['name']}: this SAE was trained on a known dictionary, or on activations brought from "
                         "elsewhere, not on a language model")
    _require_same_model(model, sae.folder)
    return models.load(model, device)


def _require_same_model(model: Mapping[str, Any], folder: Path) -> None:
    """Another commit may only have another readme: it is logged, and so is what was not written down."""
    try:
        then = checkpoints.origin(folder)["model"]["content"] or {}
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s is not readable: whether model=%s has changed since is not known", folder / checkpoints.ORIGIN,
                    model["name"])
        return
    now = models.weights_identity(model) or {}
    changed = [part for part in then if then[part] != now.get(part, then[part])]
    if changed == ["commit"]:
        log.warning("model=%s: this SAE was trained on commit %s, now it is %s", model["name"], then["commit"], now["commit"])
    elif changed:
        raise UsageError(f"model.source.hub={model['source']['hub']}: {' and '.join(changed)} changed since {folder} was "
                         "trained; give the folder back as it was then")


@contextmanager
def splice(
    model: LanguageModel | nn.Module, sae: LoadedSAE, change: Callable[[Tensor], Tensor] | None = None
) -> Iterator[None]:
    """Inside, every forward of the language model has the SAE's reconstruction in place of what it reads, or of the target that
    a transcoder reconstructs.

    change: from latents [tokens, d_sae] to latents, to ablate or to steer. As in the evaluation, special tokens (they are
    known where the model is called with input_ids) and sinks stay as they are. Gradients pass, to what `change` returns and
    to inputs_embeds; the weights of both take none until they are asked to by requires_grad_.
    """
    whole = isinstance(model, LanguageModel)
    module, tokenizer = (model.module, model.tokenizer) if whole else (model, models.load_tokenizer(sae.config["model"]))
    special = torch.tensor(sorted(tokenizer.special))
    tokens: Tensor | None = None

    def listen(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        nonlocal tokens
        tokens = kwargs.get("input_ids", args[0] if args else None)

    def reconstruct(x: Tensor) -> Tensor:
        return sae(x) if change is None else sae.with_skip(sae.decode(change(sae.encode(x))), x)

    def not_special() -> Tensor | bool:
        return True if tokens is None else ~torch.isin(tokens, special.to(tokens.device))

    handle = module.register_forward_pre_hook(listen, with_kwargs=True)
    try:
        with spliced_in(module, sae.point, sae.statistics, not_special, reconstruct):
            yield
    finally:
        handle.remove()
