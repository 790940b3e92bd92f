"""The files in an SAE's folder, and how to read them without pandas.

    sae/                    the SAE, in SAELens' format
    statistics.safetensors  mean, scale and sinks of its site
    metrics.csv             the training curve, on tokens
    documents.csv           the sums from which the metrics of eval.json are computed, per held-out document
    frequency.csv           per latent, the share of the held-out tokens on which it is active
    determined_by.json      digests of the text and the weights that produced its activations (checkpoints.py)
    eval.json               the metrics; written last, so the SAE is finished where it exists
    failed.txt              why the SAE has failed
    .hydra/                 Hydra's files, and resolved.yaml: the settings of the SAE (Hydra writes before the check)
"""
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from saesweep.config.ranges import whole
from saesweep.errors import UsageError
from saesweep.old_names import renewed
from saesweep.runtime import program

log = logging.getLogger(__name__)

NUMBERS, DOCUMENTS, FREQUENCY, FAILED, CURVE = "eval.json", "documents.csv", "frequency.csv", "failed.txt", "metrics.csv"
RESOLVED, COMPOSED, OVERRIDES = ".hydra/resolved.yaml", ".hydra/config.yaml", ".hydra/overrides.yaml"
URL, STATISTICS = "wandb/url.txt", "statistics.safetensors"
CFG, WEIGHTS = "sae/cfg.json", "sae/sae_weights.safetensors"  # the SAE in SAELens' format
PARTS = "parts"  # the key of eval.json that is no metric
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 15 times as fast as OmegaConf.load, where PyYAML has libyaml
FILES = (NUMBERS, DOCUMENTS, FREQUENCY, FAILED, CURVE, STATISTICS)


def job_name(sparsity: Any, coefficient: Any, seed: Any) -> str:
    """The last folder of a job's path: target L0, or the fixed coefficient, and the seed unless it is 0. The values are
    not checked yet."""
    fixed = float(coefficient) if isinstance(coefficient, int) else coefficient
    name = whole(sparsity) if fixed is None else f"coefficient_{fixed}"
    return f"{name}{'' if seed == 0 else f'.{whole(seed)}'}"


def numbers(job: Path) -> Mapping[str, int | float | None]:
    """eval.json without its parts."""
    file = job / NUMBERS
    try:
        found = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} is not readable JSON ({error}): delete the file and run the sweep again") from error
    missing = [key for key in ("l0", "fvu") if key not in found]
    if missing:
        raise UsageError(f"{file} has no {' and no '.join(missing)}: delete the file and run the sweep again")
    return {key: value for key, value in found.items() if key != PARTS}


def parts(job: Path) -> list[dict[str, Any]]:
    """Of eval.json: the SAEs within the SAE, each with `latents`, `l0` and `fvu`; most architectures have none."""
    return json.loads((job / NUMBERS).read_text()).get(PARTS, [])


def latest(job: Path) -> dict[str, float]:
    """The last whole row of metrics.csv; empty if there is none."""
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
    """The command that trains this SAE alone, from the overrides that Hydra has written."""
    words: Any = OmegaConf.to_container(OmegaConf.load(job / OVERRIDES)) if (job / OVERRIDES).is_file() else []
    return " ".join([program.called("train"), *map(shlex.quote, map(str, words))])


def state(job: Path) -> str:
    """finished, failed or unfinished."""
    return "finished" if (job / NUMBERS).is_file() else "failed" if (job / FAILED).is_file() else "unfinished"


def write_failed(folder: Path, reason: str) -> None:
    """An unwritable folder, which may be the reason itself, is logged."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).write_text(reason + "\n")
    except OSError as error:
        log.error("%s cannot be written: %s", folder / FAILED, error)


def settings(job: Path) -> dict[str, Any]:
    """The settings of the SAE, as composed; empty if they are not there."""
    file = settings_file(job)
    if not file.is_file():
        return {}
    text = file.read_text()
    if file == job / RESOLVED and "${" not in text:
        return renewed(yaml.load(text, YAML))
    return renewed(OmegaConf.to_container(OmegaConf.create(text), resolve=True))


def settings_file(job: Path) -> Path:
    """Which need not be there. Where both are, the resolved one, in which 1e6 is 1000000."""
    return job / (RESOLVED if (job / RESOLVED).is_file() else COMPOSED)


def at_home(node: Any) -> Any:
    """Expand a `~` that the shell has left in a path; no other text of a config begins with one. Raises UsageError."""
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
    """(dotted key, value) of every leaf."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flat(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, node
