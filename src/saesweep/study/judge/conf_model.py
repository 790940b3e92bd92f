"""A file of conf/model by its name, checked: the language model of explainer=local."""
from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from saesweep.config.check import check_model
from saesweep.config.walk import nearest
from saesweep.errors import UsageError
from saesweep.runtime import program


def conf_model(name: str) -> dict[str, Any]:
    """Raises UsageError where there is no such file, or it has no language model."""
    root = program.root()
    folders = [folder / "conf" / "model" for folder in (program.own_folder(root), root) if folder]
    files = {file.stem: file for folder in reversed(folders) for file in sorted(folder.glob("*.yaml"))}
    if name not in files:
        raise UsageError(f"explainer.model={name}: there is no conf/model/{name}.yaml; {nearest(name, files, 'there are')}")
    model: Any = OmegaConf.to_container(OmegaConf.load(files[name]), resolve=True)
    check_model(model)
    if "synthetic" in model["source"]:
        raise UsageError(f"explainer.model={name}: is a known dictionary, no language model; choose another file of conf/model")
    return model
