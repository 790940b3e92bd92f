"""A training that continues from a finished SAE (`init_from=FOLDER`), with all that belongs to its units.

    weights, thresholds   the SAE's, taken back into training units by its own mean and scale
    mean, scale, sinks    the SAE's own: others would give its latents another scale, and leave out other tokens
    coefficient           the one that it ended with, unless arch.coefficient is given
    new                   Adam's moments, the schedules, the order of the text, the counters of dead latents

No tokens (`tokens=0`) leave the SAE as it is, and its held-out metrics the same to the last bit.
"""
import logging
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.settings import Settings
from saesweep.data.normalisation import Statistics
from saesweep.errors import UsageError
from saesweep.lm.hooks import hook_point
from saesweep.storage import checkpoints, files

log = logging.getLogger(__name__)
SAME = ("center", "max_norm")  # of `activations`


class Initial(NamedTuple):
    """The folder of the SAE; the statistics of its hook point; the coefficient that it ended with, if it has one."""

    folder: Path
    statistics: Statistics
    coefficient: float | None

    def restore_(self, sae: SparseAutoencoder) -> None:
        """Its weights, folded."""
        sae.load_exported_(load_file(self.folder / files.WEIGHTS))

    def put_into_(self, sae: SparseAutoencoder) -> None:
        """Its weights, in training units: a fold by the inverse of its own."""
        self.restore_(sae)
        sae.fold_(-self.statistics.mean / self.statistics.scale, 1 / self.statistics.scale)


def initial(job: Settings, d_in: int | None = None) -> Initial | None:
    """What a job continues from; None where it begins anew. d_in: of the activations, where they are known.

    Raises UsageError where there is no finished SAE, or one of another architecture, width, d_in, hook point or normalisation.
    """
    if job.get("init_from") is None:
        return None
    folder, key = Path(job["init_from"]), f"init_from={job['init_from']}"
    folder = folder.parent if folder.name == "sae" else folder
    if not (folder / files.NUMBERS).is_file() or not (settings := files.settings(folder)):
        raise UsageError(f"{key}: holds no finished SAE; give the folder of one, such as "
                         "outputs/default/gemma3_270m/resid.9/topk/32")
    there, here = _structure(settings), _structure(job)
    if differing := [f"{name}={there[name]} there, {here[name]} here" for name in here if there[name] != here[name]]:
        raise UsageError(f"{key}: differs in what must be the same: {'; '.join(differing)}; write the same as there")
    if job["arch"].get("warm_start"):
        raise UsageError(f"{key}: arch.warm_start={job['arch']['warm_start']} begins with one threshold for all latents, in "
                         "place of the SAE's; write arch.warm_start=0")
    saved = checkpoints.read(folder / files.STATISTICS)
    statistics = Statistics.restored(saved.tensors, saved.state)
    if d_in is not None and d_in != (found := len(statistics.mean)):
        raise UsageError(f"{key}: is an SAE of d_in={found}, and the activations have d_in={d_in}; choose the model that it "
                         "was trained on, or one as wide")
    if settings["model"]["name"] != job["model"]["name"]:
        log.warning("%s: was trained on model=%s and continues on %s", key, settings["model"]["name"], job["model"]["name"])
    return Initial(folder, statistics, files.numbers(folder).get("coefficient"))


def _structure(settings: Settings) -> dict[str, Any]:
    """What an SAE and the one that it continues from have in common."""
    point = hook_point(settings["model"], settings["site"]["name"], settings["layer"])
    kind = {"arch": settings["arch"]["_target_"].rpartition(".")[2], "width": settings["width"], "hook point": str(point)}
    return kind | {f"activations.{key}": settings["activations"][key] for key in SAME}


def restore_(job: Settings, sae: SparseAutoencoder) -> None:
    """After no tokens: the folded SAE, bit for bit."""
    found = initial(job)
    assert found is not None, "without init_from there are tokens"
    found.restore_(sae)
