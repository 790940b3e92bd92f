"""The Hydra callback that checks the jobs before Hydra creates a folder."""
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from saesweep.config.check import check_name
from saesweep.config.logger_keys import refuse_secrets
from saesweep.config.study_schema import refuse_keys
from saesweep.data.resources import Resources
from saesweep.errors import UsageError, exit_on_usage_error
from saesweep.sweep import per_arch, rollback, swept
from saesweep.sweep.hydra_errors import REFUSED, is_of_a_sweep, message, not_swept
from saesweep.sweep.job_record import refuse_others
from saesweep.sweep.jobs import Job, folder_at_home, job_of, refuse, require_place, resolving
from saesweep.sweep.known_folders import in_its_folder


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Hydra logs what a callback raises as a warning and starts the job: only SystemExit ends the program."""
    try:
        with exit_on_usage_error():
            yield
    except REFUSED as error:
        sys.exit(message(error))
    except Exception:
        traceback.print_exc()
        sys.exit(1)


class Refuse(Callback):
    def __init__(self, swept: Sequence[str] = ()) -> None:
        """swept: is read from the config, by the jobs."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with exit_on_error():
            job = in_its_folder(_named_as_others(job_of(config, single=True)))
            refuse([job])
            refuse_others([job])
            if job.settings["plan"]:
                from saesweep.sweep.engines.local import LocalEngine
                from saesweep.sweep.launch import planned

                resources = Resources()
                planned([job], LocalEngine(resources), resources)
                sys.exit()
            rollback.remember(job.folder, rollback.hydra_files(config.hydra))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """The sweeper creates the sweep's folder and writes the config there; the launcher checks each job."""
        with exit_on_error(), resolving():
            check_name("name", config.name)
            given: Any = OmegaConf.to_container(config)
            refuse_secrets("logger", given.get("logger"))
            refuse_keys(given.get("explainer"))
            overrides = _swept_overrides(config)
            _refuse_values(overrides)
            _at_home(config)
            _name_folders(config, overrides)
            sweep = Path(os.path.abspath(config.hydra.sweep.dir))
            require_place(sweep)
            rollback.remember(sweep, ["multirun.yaml"])


def _named_as_others(job: Job) -> Job:
    """In a sweep whose folders name further keys, the job's folder names them too."""
    names = swept.named(job.sweep)
    with read_write(job.composed.hydra):
        job.composed.hydra.callbacks.refuse.swept = names
    return job_of(job.composed, single=True) if names else job


def _at_home(config: DictConfig) -> None:
    """Expand `~` in the sweep's folder, for the sweeper and, as an override, for the jobs, which are composed anew."""
    if (folder := folder_at_home("hydra.sweep.dir", config.hydra.sweep.dir)) != config.hydra.sweep.dir:
        with read_write(config.hydra):
            config.hydra.sweep.dir = folder
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={json.dumps(folder, ensure_ascii=False)}")


def _swept_overrides(config: DictConfig) -> list[Override]:
    """Of the sweep's file and of the command line, which comes last and counts."""
    words = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    given: Any = OmegaConf.to_container(config.hydra.overrides.task)
    words += given
    return list({one.get_key_element(): one for one in parser.parse_overrides(words)}.values())


def _name_folders(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Tell the jobs, which are composed anew, by which keys their folders are named, and refuse what is of no architecture."""
    loader = GlobalHydra.instance().config_loader()
    archs = loader.get_group_options("arch")
    chosen = next((one for one in overrides if one.key_or_group == "arch"), None)
    known = [config.hydra.runtime.choices["arch"]] if chosen is None else _values(chosen)
    for one in overrides:
        per_arch.refuse(str(one.key_or_group), str(one.input_line), known, archs)
    names = swept.names(overrides, config.hydra.sweep.dir, archs)
    if names:
        with read_write(config.hydra):
            config.hydra.overrides.hydra.append(f"hydra.callbacks.refuse.swept={json.dumps(names)}")


def _values(override: Override) -> list[str]:
    return list(map(str, override.sweep_string_iterator())) if override.is_discrete_sweep() else [str(override.value())]


def _refuse_values(overrides: Sequence[Override]) -> None:
    """Raises UsageError where the swept values are no job at all, or the same job twice."""
    for override in overrides:
        if override.is_sweep_override() and is_of_a_sweep(override.key_or_group):
            raise UsageError(not_swept(str(override.input_line)))
        if override.is_discrete_sweep():
            _refuse_values_of(override)


def _refuse_values_of(override: Override) -> None:
    values = list(override.sweep_string_iterator())
    if not values and override.value_type == ValueType.GLOB_CHOICE_SWEEP and override.config_loader:
        known = ", ".join(override.config_loader.get_group_options(override.key_or_group))
        raise UsageError(f"no job: {override.input_line} matches none of {known}")
    if not values:
        raise UsageError(f"no job: {override.input_line} has no value; write some, such as seed=0,1,2")
    if twice := next((value for value in values if values.count(value) > 1), None):
        raise UsageError(f"{override.input_line}: gives {twice} twice; write each value once")
