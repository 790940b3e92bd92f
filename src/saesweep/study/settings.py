"""The settings of a study: conf/study.yaml, and what is typed after the folders."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from saesweep.config.ranges import Count, Index, OneOf, Positive, Text
from saesweep.config.walk import typed
from saesweep.errors import UsageError, as_typed
from saesweep.runtime import program
from saesweep.study.embedder import located
from saesweep.study.judge.compose import explainer_settings

CONTROLS = ("random", "residual", "pca")
PREFIX = 4  # all activations are kept of this many latents for each one asked for: not every latent is eligible
COLLECTED = ("tokens", "seed", "dense_tokens", "forward_tokens")  # what is collected depends on these, and on features


@dataclass
class Embedder:
    folder: Text
    install: Text
    sha256: Text | None


@dataclass
class Study:
    """The keys of conf/study.yaml."""

    tokens: Count
    seed: Index
    features: Count
    min_fires: Count
    min_documents: Count
    dense_tokens: Index
    labels: Annotated[str, OneOf("auto", "python", "text", "none")]
    label_tokens: Count
    label_documents: Count
    logits: bool
    dense_probes: bool
    embedding: bool
    embedding_latents: Count
    embedder: Embedder
    draws: Count
    delta: Positive
    controls: list
    forward_tokens: Count
    device: Annotated[str, OneOf("auto", "cpu", "cuda")]
    save_minutes: Positive
    plan: bool
    overwrite: bool
    out: Text | None


def settings(words: Sequence[str] = ()) -> dict[str, Any]:
    """conf/study.yaml with the words key=value in place of what it says. Raises UsageError for a key or value that is wrong."""
    explainer, words = explainer_settings(words)
    found = OmegaConf.load(program.root() / "conf/study.yaml")
    try:
        merged: Any = OmegaConf.to_container(OmegaConf.merge(found, OmegaConf.from_dotlist(list(words))), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UsageError(f"{' '.join(words)}: {str(error).splitlines()[0]}; a setting is key=value") from error
    check(merged)
    return {**merged, "explainer": explainer}


def check(given: dict[str, Any]) -> None:
    """Raises UsageError for the first setting that cannot work; 1e6 becomes an int in place."""
    typed("", given, Study)
    controls = given["controls"]
    if not isinstance(controls, list) or set(controls) - set(CONTROLS):
        raise UsageError(f"controls={as_typed(controls)}: a list of some of {', '.join(CONTROLS)}, such as controls=[random], "
                         "or [] for none")
    if given["embedding"]:
        located(given["embedder"])


def identity(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine what is collected."""
    return {key: given[key] for key in COLLECTED}
