"""The settings of a study: conf/study/rules.yaml, and what is typed after the folders, or the groups of a training's config."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from saesweep.config.ranges import Text
from saesweep.config.study_schema import Study
from saesweep.config.walk import Keys, typed
from saesweep.errors import UsageError
from saesweep.runtime import program
from saesweep.study.embedder import located
from saesweep.study.judge.compose import explainer_settings
from saesweep.study.judge.settings import check_explainer

PREFIX = 4  # all activations are kept of this many latents for each one asked for: not every latent is eligible
COLLECTED = ("tokens", "seed", "dense_tokens", "forward_tokens")  # what is collected depends on these, and on features
FILE = "conf/study/rules.yaml"
OF_A_COMMAND: dict[str, Any] = {"plan": False, "overwrite": False, "out": None}  # a training has the first two itself


class Command(Study):
    """The keys that `saesweep study` takes."""

    plan: bool
    overwrite: bool
    out: Text | None


def settings(words: Sequence[str] = ()) -> dict[str, Any]:
    """The file with the words key=value in place of what it says. Raises UsageError for a key or value that is wrong."""
    explainer, words = explainer_settings(words)
    merged = of_file(FILE, OF_A_COMMAND, words, Command)
    check_embedder(merged)
    return {**merged, "explainer": explainer}


def of_file(file: str, more: Mapping[str, Any], words: Sequence[str], kind: type[Keys]) -> dict[str, Any]:
    """A file of conf/, more keys, and the words key=value in place of what they say. Raises UsageError."""
    found = OmegaConf.merge(OmegaConf.load(program.root() / file), more)
    try:
        merged: Any = OmegaConf.to_container(OmegaConf.merge(found, OmegaConf.from_dotlist(list(words))), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise UsageError(f"{' '.join(words)}: {str(error).splitlines()[0]}; a setting is key=value") from error
    return typed("", merged, kind)


def of_training(job: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a training's checked settings with a study. Raises UsageError for an explainer that cannot work."""
    explainer = dict(job["explainer"])
    check_explainer(explainer)
    check_embedder(job["study"])
    return {**job["study"], **OF_A_COMMAND, "plan": job["plan"], "overwrite": job["overwrite"], "explainer": explainer}


def check_embedder(given: Mapping[str, Any]) -> None:
    """Raises UsageError where a model that embeds is asked for and is not there."""
    if given["embedding"]:
        located(given["embedder"])


def identity(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine what is collected."""
    return {key: given[key] for key in COLLECTED}
