"""The files of conf/ that name an explainer: conf/explainer with what is typed, and conf/model of explainer=local.

    explainer=NAME explainer.KEY=VALUE ...      on the command line of a study
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from saesweep.config.check_inputs import check_model
from saesweep.config.settings import has_lm
from saesweep.config.study_schema import EXPLAINERS
from saesweep.config.walk import nearest
from saesweep.errors import UsageError
from saesweep.runtime import program
from saesweep.study.judge.settings import check_explainer


def explainer_settings(words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The checked settings of the explainer, and the words that are about something else. Raises UsageError."""
    names = [word.partition("=")[2] for word in words if word.startswith("explainer=")]
    mine = [word for word in words if word.startswith("explainer.")]
    others = [word for word in words if not word.startswith(("explainer=", "explainer."))]
    name = names[-1] if names else "none"
    if name not in EXPLAINERS:
        fix = nearest(name, EXPLAINERS, "choose one of")
        raise UsageError(f"explainer={name}: there is no conf/explainer/{name}.yaml; {fix}")
    if mine and name == "none":
        raise UsageError(f"{mine[0]}: is a setting of an explainer; choose one with explainer=openai or explainer=local")
    node = _merged(name, mine)
    check_explainer(node)
    return node, others


def _merged(name: str, words: Sequence[str]) -> dict[str, Any]:
    file = OmegaConf.load(program.root() / "conf" / "explainer" / f"{name}.yaml")
    try:
        typed = OmegaConf.from_dotlist([word.removeprefix("explainer.") for word in words])
        merged: Any = OmegaConf.to_container(OmegaConf.merge(file, typed), resolve=True)
    except (OmegaConfBaseException, YAMLError) as error:
        keys = ", ".join(word.partition("=")[0] for word in words)
        raise UsageError(f"{keys}: {str(error).splitlines()[0]}; a setting is explainer.key=value") from None
    return merged


def conf_model(name: str) -> dict[str, Any]:
    """A file of conf/model by its name, checked. Raises UsageError where there is none, or it has no language model."""
    root = program.root()
    folders = [folder / "conf" / "model" for folder in (program.own_folder(root), root) if folder]
    files = {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.yaml"))}
    if name not in files:
        raise UsageError(f"explainer.model={name}: there is no conf/model/{name}.yaml; {nearest(name, files, 'there are')}")
    model: Any = OmegaConf.to_container(OmegaConf.load(files[name]), resolve=True)
    check_model(model)
    if not has_lm({"model": model}):
        raise UsageError(f"explainer.model={name}: is a known dictionary or brings its activations, no language model; "
                         "choose another file of conf/model")
    return model
