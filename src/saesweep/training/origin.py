"""What determined the activations of an SAE: text and weights, by content. Training refuses to resume on changed ones."""
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saesweep.config.settings import Settings, device_of, has_lm, loaded_with, own_activations
from saesweep.data.resources import Resources
from saesweep.errors import HOW_TO_REPLACE, UsageError
from saesweep.lm import models
from saesweep.runtime import distributed
from saesweep.storage import checkpoints, files

log = logging.getLogger(__name__)


def determined_by(job: Settings, resources: Resources) -> Settings:
    """All that determines the activations except the hook points; empty for `model=synthetic`, which its settings determine."""
    if own_activations(job) is not None:
        own = resources.own_activations(job)
        about = {"digest": own.digest} | ({} if own.header is None else {"header": own.header})
        model = {"name": job["model"]["name"], "source": job["model"]["source"], "content": about}
        return {"model": model, "stream_seed": job["stream_seed"], "window": job["activations"]["window"]}
    if not has_lm(job):
        return {}
    model = {key: job["model"][key] for key in ("name", "source", "bos")} | loaded_with(job["model"])
    dtype = str(models.dtype_of(job["model"]["dtype"], str(device_of(job))))
    return {
        "model": model | {"dtype": dtype, "content": models.weights_identity(job["model"])},
        "text": resources.text(job)[0].identity, "context": job["context"], "stream_seed": job["stream_seed"],
        **{key: job["activations"][key] for key in ("window", "documents_per_pool", "forward_tokens")},
    }


def require_same(job: Settings, folders: Sequence[Path], resources: Resources) -> None:
    """Raises UsageError where the text or the weights differ from those of the checkpoints: files may have changed."""
    if changed := changed_content(job, folders, resources):
        raise UsageError("\n".join([*changed.values(), f"restore them, {HOW_TO_REPLACE}"]))


def write_origin(job: Settings, folders: Sequence[Path], resources: Resources) -> None:
    """Record it in the jobs' folders, where the next command compares it."""
    if distributed.rank() == 0 and (found := determined_by(job, resources)):
        for folder in folders:
            try:
                checkpoints.write_origin(folder, found)
            except OSError as error:
                log.error("%s cannot be written: %s", folder / checkpoints.ORIGIN, error)


def changed_content(job: Settings, folders: Sequence[Path], resources: Resources) -> dict[Path, str]:
    """For each folder whose checkpoints or results are from other text or weights, the differences.

    A different dtype or commit alone is logged: it may change no weight.
    """
    now, found = None, dict[Path, str]()  # the text is read only if there is something to compare
    for folder in folders:
        for origin in checkpoints.origins(folder):
            now, then = now or _flat(determined_by(job, resources)), _flat(origin)
            lines = {key: f"{key}: {then[key]} there, {now[key]} now" for key in now if then.get(key, now[key]) != now[key]}
            if any(key == "text.digest" or key.startswith("model.content.") for key in lines.keys() - {"model.content.commit"}):
                head = f"{folder} was trained on other text or weights of the same name:"
                found[folder] = "\n  ".join([head, *lines.values()])
            elif lines:
                log.warning("%s was trained with settings that differ now: %s", folder, "; ".join(lines.values()))
    return found


def _flat(settings: Settings) -> dict[str, Any]:
    """Flat, with the types of JSON."""
    return dict(files.flat(json.loads(json.dumps(settings, default=str))))
