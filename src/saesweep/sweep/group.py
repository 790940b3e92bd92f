"""The jobs of one group, trained on one stream and evaluated together."""
import gc
import logging
from collections.abc import Sequence
from pathlib import Path

from saesweep.config.settings import Settings
from saesweep.data.resources import Resources
from saesweep.data.stream import ActivationStream
from saesweep.runtime import distributed
from saesweep.runtime.memory import keep_freed_memory, out_of_memory
from saesweep.storage import checkpoints
from saesweep.storage.checkpoints import Cohort
from saesweep.sweep.footprint import assigned
from saesweep.sweep.group_results import finish
from saesweep.sweep.group_setup import LocalGroup, logger_of, prepared
from saesweep.sweep.inputs import Inputs, Numbers, inputs_of, point_of
from saesweep.training.fit import fit
from saesweep.training.module import SAESweep
from saesweep.training.origin import determined_by, require_same, write_origin

log = logging.getLogger(__name__)


def train_group(jobs: Sequence[Settings], folders: Sequence[Path], resources: Resources) -> list[Numbers | Exception]:
    """Train the jobs' SAEs together; each folder gets metrics.csv, eval.json, sae/ and wandb/.

    SAEs with checkpoints resume; those with checkpoints of different steps are trained one cohort after the other.
    """
    keep_freed_memory()
    group = LocalGroup(list(jobs), list(map(Path, folders)), jobs[0], resources)
    results = dict[int, Numbers | Exception]()
    require_same(group.shared, group.folders, resources)
    write_origin(group.shared, group.folders, resources)
    waiting = checkpoints.cohorts(group.folders)
    while waiting:
        gc.collect()  # free what a group that did not fit into memory has held
        cohort = waiting.pop(0)
        part = group.of(cohort.members)
        try:
            results |= zip(cohort.members, _train(part, cohort), strict=True)
        except Exception as error:
            if not out_of_memory(error) or len(cohort.members) == 1 or distributed.world_size() > 1:
                raise
            waiting[:0] = _halves(cohort, part.folders)
    return [results[i] for i in range(len(jobs))]


def _halves(cohort: Cohort, folders: Sequence[Path]) -> list[Cohort]:
    """Half as many SAEs at a time, resumed from their checkpoints."""
    most, found = checkpoints.halve_group_size(folders), []
    for first in range(0, len(folders), most):
        for part in checkpoints.cohorts(folders[first : first + most]):
            found.append(part._replace(members=[cohort.members[first + i] for i in part.members]))
    return found


def _train(group: LocalGroup, cohort: Cohort) -> list[Numbers | Exception]:
    """With trainer=sweep_parallel each rank trains SAEs of its own, else all ranks train all."""
    inputs = inputs_of(group.shared, list(map(point_of, group.jobs)), group.resources)
    mine = range(len(group.jobs))
    if distributed.world_size() > distributed.ranks_per_sae():
        mine = assigned([job["width"] for job in group.jobs], distributed.world_size())[distributed.rank()]
    part = group.of(mine)
    module, stream = prepared(part, inputs, cohort._replace(saves=[cohort.saves[i] for i in mine]))
    found = dict(zip(mine, _trained(part, module, stream, inputs), strict=True))
    all_found = {i: result for one in distributed.all_gather(found) for i, result in one.items()}
    return [all_found[i] for i in range(len(group.jobs))]


def _trained(part: LocalGroup, module: SAESweep, stream: ActivationStream, inputs: Inputs) -> list[Numbers | Exception]:
    if module.steps_done:
        log.info("%s: resuming at %s tokens", ", ".join(m.label for m in module.members), f"{module.tokens:,}")
    for point, statistics in stream.statistics.items():
        log.info("%s", statistics.report(point))
    logger = logger_of(part)
    fit(module, stream, logger, part.shared, part.folders, determined_by(part.shared, part.resources))
    results = distributed.broadcast(finish(part, module, stream, inputs))
    for index, (folder, result) in enumerate(zip(part.folders, results, strict=True)):
        failed = (str(result) or repr(result)) if isinstance(result, Exception) else None
        logger.finish(index, None if isinstance(result, Exception) else result, failed)
        if failed is None and distributed.rank_in_sae() == 0:
            checkpoints.remove(folder)
    return results
