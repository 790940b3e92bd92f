"""The Hydra callback that refuses before Hydra makes a folder."""
import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from saesweep.per_sae import refuse_secrets
from saesweep.sweep.check import check_name
from saesweep.sweep.ending import mistakes_told
from saesweep.sweep.jobs import job_of, refuse
from saesweep.sweep.record import refuse_others


class Refuse(Callback):
    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        with mistakes_told():
            job = job_of(config, single=True)
            refuse([job])
            refuse_others([job])
            if job.settings["plan"]:
                from saesweep.sweep.engines import Here
                from saesweep.sweep.launch import planned

                planned([job], Here())
                sys.exit()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """The sweeper makes the folder of the sweep, and writes the config there; what is swept is not known yet."""
        with mistakes_told():
            check_name("name", config.name)
            told = OmegaConf.to_container(OmegaConf.masked_copy(config, ["logger"]))
            refuse_secrets("logger", told.get("logger"))
