"""The engine that the launcher's settings name."""
from collections.abc import Mapping
from typing import Any

from saesweep.data.resources import Resources
from saesweep.errors import UsageError
from saesweep.sweep.engines.base import Engine
from saesweep.sweep.engines.local import LocalEngine, Pool


def engine_of(chosen: Mapping[str, Any] | None, resources: Resources) -> Engine:
    """chosen: hydra.launcher.engine. Raises UsageError where there is no such engine."""
    if chosen is None:
        return LocalEngine(resources)
    settings = {key: value for key, value in chosen.items() if key != "kind"}
    if chosen["kind"] == "pool":
        return Pool(**settings, resources=resources)
    if chosen["kind"] == "slurm":
        from saesweep.sweep.engines.slurm import Slurm

        return Slurm(**settings)
    if chosen["kind"] == "ray":
        from saesweep.sweep.engines.ray import Ray

        return Ray(**settings)
    raise UsageError(f"hydra.launcher.engine.kind={chosen['kind']}: choose pool, slurm or ray")
