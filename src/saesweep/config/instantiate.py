"""The one place where a name in a YAML file becomes a Python object.

A name must be in this package, in lightning, in torch or in a package or module that the user allows by name:
SAESWEEP_PACKAGES=mypackage,another. Those are imported from where Python finds them, else from the working directory.
"""
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate

from saesweep.errors import UsageError

PACKAGES = ("saesweep", "lightning", "torch")
NOT_ARGUMENTS = ("name", "coefficient", "control", "optimizer")  # of the keys of an architecture


def own_packages() -> list[str]:
    """The packages and modules that SAESWEEP_PACKAGES names."""
    return [name for name in map(str.strip, os.environ.get("SAESWEEP_PACKAGES", "").split(",")) if name]


class WorkingDirectory(importlib.abc.MetaPathFinder):
    """Imports the user's own packages from the working directory, and no other module there."""

    def find_spec(self, fullname: str, path: Any, target: Any = None, /) -> importlib.machinery.ModuleSpec | None:
        if path is not None or fullname not in own_packages():
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [os.getcwd()])


sys.meta_path.append(WorkingDirectory())  # after Python's own finders: an installed package has precedence


def locate(target: str, key: str = "_target_") -> Any:
    """The object with this dotted path; `key` is where the path was read, for the message. Raises UsageError if it is not
    allowed or cannot be imported."""
    allowed = (*PACKAGES, *own_packages())
    package = str(target).split(".")[0]
    if not isinstance(target, str) or package not in allowed:
        raise UsageError(f"{key}={target}: must be the dotted path of something in {', '.join(allowed)}; to allow a "
                         "package of your own, set the environment variable SAESWEEP_PACKAGES=its_name")
    if find_spec(package) is None:
        raise UsageError(f"{key}={target}: there is no {package}, neither installed nor in the working directory {os.getcwd()}")
    try:
        return get_object(target)
    except Exception as error:  # Hydra wraps every error of the import
        raise UsageError(f"{key}={target}: cannot be imported ({error.__cause__ or error})") from error


def instantiate(node: Mapping, leave: tuple[str, ...] = ("name",), **kwargs: Any) -> Any:
    """Call the node's `_target_` with its other keys except those in `leave`, and with kwargs, which are not copied."""
    for key, target in _targets(node, ""):
        locate(target, key)
    arguments = {key: value for key, value in node.items() if key not in leave}
    return hydra_instantiate(arguments | {"_partial_": True, "_convert_": "all"})(**kwargs)  # Hydra would copy kwargs


def _targets(node: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(node, Mapping):
        below = [pair for key, value in node.items() for pair in _targets(value, f"{path}{key}.")]
        return [(f"{path}_target_", node["_target_"]), *below] if "_target_" in node else below
    if isinstance(node, list | tuple):
        return [pair for i, value in enumerate(node) for pair in _targets(value, f"{path}{i}.")]
    return []
