"""The files in the folder of an SAE, and what of them can be read without pandas.

    sae/                    the SAE, in SAELens' format
    statistics.safetensors  mean, scale and sinks of its site
    metrics.csv             the training curve, on tokens
    documents.csv           the sums that the numbers of eval.json are made of, by held-out document
    frequency.csv           per latent, the share of the held-out tokens on which it is active
    determined_by.json      digests of the text and the weights of its activations, and how they were read (saves.py)
    eval.json               the numbers; written last, it says that the SAE is finished
    failed.txt              why there are none
    .hydra/                 Hydra's own, and resolved.yaml: what made the SAE (Hydra writes before anybody can object)
"""
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from saesweep.config.ranges import whole
from saesweep.errors import UsageError
from saesweep.old_names import renewed
from saesweep.runtime import program

log = logging.getLogger(__name__)

NUMBERS, DOCUMENTS, FREQUENCY, FAILED, CURVE = "eval.json", "documents.csv", "frequency.csv", "failed.txt", "metrics.csv"
RESOLVED, COMPOSED, OVERRIDES = ".hydra/resolved.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml"
URL, STATISTICS, WEIGHTS = "wandb/url.txt", "statistics.safetensors", "sae/sae_weights.safetensors"
FILES = (NUMBERS, DOCUMENTS, FREQUENCY, FAILED, CURVE, STATISTICS)


def job_name(sparsity: Any, coefficient: Any, seed: Any) -> str:
    """The last folder of a job's: the target, or the fixed coefficient in its place; seed 0 is left out. Of what nobody
    has checked yet."""
    fixed = float(coefficient) if isinstance(coefficient, int) else coefficient
    aim = whole(sparsity) if fixed is None else f"coefficient_{fixed}"
    return f"{aim}{'' if seed == 0 else f'.{whole(seed)}'}"


def numbers(job: Path) -> Mapping[str, int | float | None]:
    """eval.json."""
    file = job / NUMBERS
    try:
        found = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} is not readable JSON ({error}): delete the file and run the sweep again") from error
    missing = [key for key in ("l0", "fvu") if key not in found]
    if missing:
        raise UsageError(f"{file} has no {' and no '.join(missing)}: delete the file and run the sweep again")
    return found


def latest(job: Path) -> dict[str, float]:
    """The last whole row of metrics.csv; nothing if there is none."""
    if not (job / CURVE).is_file():
        return {}
    with (job / CURVE).open("rb") as file:
        header = file.readline()
        start = max(len(header), file.seek(0, os.SEEK_END) - 4096)  # a row is some hundred characters
        file.seek(start)
        rows = [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
    keys = header.decode().strip().split(",")
    return dict(zip(keys, map(float, rows[-1].split(b",")), strict=True)) if rows else {}


def command(job: Path) -> str:
    """What trains this SAE alone again: its overrides, as Hydra has noted them."""
    words = OmegaConf.to_container(OmegaConf.load(job / OVERRIDES)) if (job / OVERRIDES).is_file() else []
    return " ".join([program.called("train"), *map(shlex.quote, map(str, words))])


def replace(file: Path, content: Any) -> None:
    """Whole or not at all, whoever else writes it. `content`: text, or an array of bytes."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.replace(file)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def share(file: Path) -> None:
    """As readable as its folder: safetensors makes files that nobody else may read."""
    file.chmod(file.parent.stat().st_mode & 0o666)


def state(job: Path) -> str:
    """finished, failed or unfinished."""
    return "finished" if (job / NUMBERS).is_file() else "failed" if (job / FAILED).is_file() else "unfinished"


def write_failed(folder: Path, reason: str) -> None:
    """A folder that cannot be written to may be why."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).write_text(reason + "\n")
    except OSError as error:
        log.error("%s cannot be written: %s", folder / FAILED, error)


def settings(job: Path) -> dict[str, Any]:
    """Every setting that made the SAE, as it was composed."""
    file = next((job / name for name in (RESOLVED, COMPOSED) if (job / name).is_file()), None)
    return renewed(OmegaConf.to_container(OmegaConf.load(file), resolve=True)) if file else {}


def at_home(node: Any) -> Any:
    """A `~` that the shell has left in a path is the home folder; no other text of a config begins with one."""
    if isinstance(node, Mapping):
        return {key: at_home(value) for key, value in node.items()}
    if isinstance(node, list):
        return [at_home(value) for value in node]
    if not isinstance(node, str) or not re.fullmatch(r"~[\w.-]*(/.*)?", node):
        return node
    if (path := os.path.expanduser(node)).startswith("~"):
        raise UsageError(f"{node}: there is no user {node[1:].split('/')[0]} here; write the path of a folder")
    return path


def flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, node
