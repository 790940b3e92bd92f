"""Under which licences the language model and the text of an SAE are: conf/push.yaml, or as they are given."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from saesweep.config.settings import Settings, has_lm
from saesweep.errors import UsageError
from saesweep.runtime import program

FILE = "conf/push.yaml"


class Licences(NamedTuple):
    model: str | None  # an identifier of the hub; None where the weights are random
    text: str | None  # None without a language model


def licences(jobs: Sequence[Settings], model: str | None, text: str | None) -> Licences:
    """model, text: as given, before those of the file. Raises UsageError where one is not known, or SAEs have several."""
    known: Any = OmegaConf.to_container(OmegaConf.load(program.root() / FILE))
    models = [job["model"]["source"].get("hub") or job["model"]["name"] for job in jobs]
    texts = [job["text"]["name"] for job in jobs if has_lm(job)]
    return Licences(_one("model", "--license", models, known["models"], model),
                    _one("text", "--text-license", texts, known["texts"], text))


def _one(what: str, option: str, names: Sequence[str], known: dict[str, str | None], given: str | None) -> str | None:
    if given:
        return given
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"{option}: the licence of the {what} {unknown[0]} is not known; give it, such as {option} apache-2.0")
    found = {known[name] for name in names}
    if len(found) > 1:
        raise UsageError(f"{option}: the {what}s of these SAEs have several, {', '.join(map(str, found))}; give the one that "
                         "holds for all, or upload those of one model")
    return next(iter(found), None)
