"""The one place where a name in a YAML file becomes a Python object.

Only what lies in our own package, in lightning or in torch may be named. Who keeps an architecture in a package of
their own allows it by name: SAESWEEP_PACKAGES=mypackage,another.
"""
import os
from collections.abc import Mapping
from typing import Any

from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate

from saesweep.errors import UsageError

PACKAGES = ("saesweep", "lightning", "torch")
NOT_ARGUMENTS = ("name", "coefficient", "control", "optimizer")  # of the keys of an architecture


def locate(target: str, key: str = "_target_") -> Any:
    """The object that a dotted path names; `key` is where the path was read, for the message."""
    allowed = (*PACKAGES, *filter(None, os.environ.get("SAESWEEP_PACKAGES", "").split(",")))
    if not isinstance(target, str) or target.split(".")[0] not in allowed:
        raise UsageError(f"{key}={target}: must be the dotted path of something in {', '.join(allowed)}; to allow a "
                         "package of your own, set the environment variable SAESWEEP_PACKAGES=its_name")
    try:
        return get_object(target)
    except Exception as error:  # Hydra wraps whatever the import raised
        raise UsageError(f"{key}={target}: cannot be imported ({error.__cause__ or error})") from error


def instantiate(node: Mapping, leave: tuple[str, ...] = ("name",), **kwargs: Any) -> Any:
    """Call the node's `_target_` with its other keys, those in `leave` left out, and with kwargs as they are."""
    for key, target in _targets(node, ""):
        locate(target, key)
    arguments = {key: value for key, value in node.items() if key not in leave}
    return hydra_instantiate(arguments | {"_partial_": True, "_convert_": "all"})(**kwargs)  # else Hydra copies kwargs


def _targets(node: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(node, Mapping):
        below = [pair for key, value in node.items() for pair in _targets(value, f"{path}{key}.")]
        return [(f"{path}_target_", node["_target_"]), *below] if "_target_" in node else below
    if isinstance(node, list | tuple):
        return [pair for i, value in enumerate(node) for pair in _targets(value, f"{path}{i}.")]
    return []
