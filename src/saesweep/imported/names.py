"""Whether an SAE is of the language model and the hook point that it is measured at: names vary more than models do."""
from __future__ import annotations

import logging
import re
from typing import Any

from saesweep.config.settings import Settings
from saesweep.errors import UsageError
from saesweep.imported.about import About
from saesweep.lm.hooks import HookPoint

log = logging.getLogger(__name__)
SAME = {"gpt2small": "gpt2"}  # names of TransformerLens
FIX = "give --like another hook point, or, where only the name differs, --any-name"


def require_same(about: About, typed: str, job: Settings, point: HookPoint, any_name: bool) -> None:
    """job, point: of --like. Raises UsageError where a name that is known differs, unless any_name."""
    if any_name:
        return
    model, ours = job["model"], names_of(job["model"])
    if about.model is not None and _plain(about.model) not in map(_plain, ours):
        raise UsageError(f"{typed}: it is of the model {about.model}, and --like of {' or '.join(ours)}; {FIX}")
    hooks = [job["site"]["hook_name"].format(layer=job["layer"]), str(point)]
    if about.hook is not None and not any(_same_hook(about.hook, one) for one in hooks):
        raise UsageError(f"{typed}: it reads {about.hook}, and --like {' or '.join(hooks)}; {FIX}")
    unknown = [what for what, known in (("model", about.model), ("hook point", about.hook)) if known is None]
    if unknown:
        log.warning("%s: its files do not say of which %s it is; it is taken to be %s at %s", typed, " and ".join(unknown),
                    model["name"], point)


def names_of(model: dict[str, Any]) -> list[str]:
    """What the language model is called, here and by others."""
    return list(dict.fromkeys(filter(None, [model["name"], model["source"].get("hub") or model.get("hub_name")])))


def _plain(name: str) -> str:
    """google/gemma-3-270m, gemma3_270m and Gemma-3-270m-pt are one."""
    short = re.sub(r"[^a-z0-9]", "", re.sub(r"-(pt|hf)$", "", name.lower().rpartition("/")[2]))
    return SAME.get(short, short)


def _same_hook(theirs: str, ours: str) -> bool:
    """The input of a block is the output of the block before; a module's path may begin below the base model."""
    before = re.fullmatch(r"blocks\.(\d+)\.hook_resid_pre", theirs)
    if before and int(before[1]) > 0:
        theirs = f"blocks.{int(before[1]) - 1}.hook_resid_post"
    return theirs == ours or ours.endswith(f".{theirs}")
