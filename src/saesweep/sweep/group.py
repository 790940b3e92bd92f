"""The jobs of one group, trained on one stream and evaluated together."""
from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saesweep.config.settings import Settings, device_of, target
from saesweep.data.normalisation import Statistics, require_finite
from saesweep.data.prefetch import ReadAhead
from saesweep.data.stream import ActivationStream, Position
from saesweep.errors import TrainingFailed
from saesweep.evaluation.subject import Measured, Subject
from saesweep.lm.hooks import HookPoint
from saesweep.loggers.identity import MemberInfo, labels
from saesweep.loggers.sweep_logger import SweepLogger
from saesweep.runtime import distributed
from saesweep.runtime.isolate import isolate_failures
from saesweep.runtime.memory import keep_freed_memory, out_of_memory
from saesweep.storage import checkpoints, files, sae_format, sweep_table
from saesweep.storage.checkpoints import Checkpoint, Cohort
from saesweep.sweep.inputs import Inputs, Numbers, inputs_of, point_of
from saesweep.sweep.origin import determined_by, require_same, write_origin
from saesweep.sweep.resources import Resources
from saesweep.training.build import build
from saesweep.training.calibration import meet_l0_
from saesweep.training.fit import Progress, fit
from saesweep.training.l0_controller import Coefficient
from saesweep.training.module import Member, SAESweep

log = logging.getLogger(__name__)
MISSED = 0.05  # relative distance of L0 from its target above which a warning is logged


class LocalGroup(NamedTuple):
    """The SAEs of a group that this rank trains."""

    jobs: list[Settings]
    folders: list[Path]
    shared: Settings  # of one of the jobs: the settings that all share
    resources: Resources

    def of(self, which: Iterable[int]) -> LocalGroup:
        which = list(which)
        return LocalGroup([self.jobs[i] for i in which], [self.folders[i] for i in which], self.shared, self.resources)


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
        mine = _assigned(group.jobs)[distributed.rank()]
    part = group.of(mine)
    module, stream = prepared(part, inputs, cohort._replace(saves=[cohort.saves[i] for i in mine]))
    found = dict(zip(mine, _trained(part, module, stream, inputs), strict=True))
    all_found = {i: result for one in distributed.all_gather(found) for i, result in one.items()}
    return [all_found[i] for i in range(len(group.jobs))]


def _assigned(jobs: Sequence[Settings]) -> list[list[int]]:
    """The SAEs of each rank: the widest first, each to the rank with the smallest total width."""
    ranks: list[list[int]] = [[] for _ in range(distributed.world_size())]
    for i in sorted(range(len(jobs)), key=lambda i: -jobs[i]["width"]):
        min(ranks, key=lambda rank: sum(jobs[j]["width"] for j in rank)).append(i)
    return [sorted(rank) for rank in ranks]


def _trained(part: LocalGroup, module: SAESweep, stream: ActivationStream, inputs: Inputs) -> list[Numbers | Exception]:
    if module.steps_done:
        log.info("%s: resuming at %s tokens", ", ".join(m.label for m in module.members), f"{module.tokens:,}")
    for point, statistics in stream.statistics.items():
        log.info("%s", statistics.report(point))
    logger = logger_of(part)
    fit(module, stream, logger, part.shared, part.folders, determined_by(part.shared, part.resources))
    results = distributed.broadcast(_finish(part, module, stream, inputs))
    for index, (folder, result) in enumerate(zip(part.folders, results, strict=True)):
        failed = (str(result) or repr(result)) if isinstance(result, Exception) else None
        logger.finish(index, None if isinstance(result, Exception) else result, failed)
        if failed is None and distributed.rank_in_sae() == 0:
            checkpoints.remove(folder)
    return results


def prepared(part: LocalGroup, inputs: Inputs, cohort: Cohort, **more: Any) -> tuple[SAESweep, ActivationStream]:
    """The SAEs and their stream, new or from checkpoints."""
    shared, points = part.shared, list(map(point_of, part.jobs))
    stream = _stream(shared, inputs.source, math.ceil(shared["tokens"] / shared["batch_tokens"]))
    found = [checkpoints.read(file) for file in cohort.saves if file is not None]
    if cohort.step:
        position = distributed.broadcast_from_any(found[0].state["position"] if found else None)
        statistics = {point: _statistics(save) for point, save in zip(points, found, strict=True)}
        stream.resume(Position(**position), statistics)
    progress = Progress(stream)  # before the first window is harvested
    stream.only(points)
    named = zip(part.jobs, points, labels(part.jobs, part.folders), strict=True)
    members = [_member(label, job, point, stream) for job, point, label in named]
    sizes = {"log_tokens": shared["log_tokens"], "dead_after": shared["evaluation"]["dead_after"], "progress": progress}
    module = SAESweep(members, steps=stream.steps, batch_tokens=shared["batch_tokens"], **(sizes | more))
    module.steps_done = cohort.step
    if cohort.step:
        if shared["trainer"]["precision"] == "64-true":
            module.double()  # before the checkpoint is loaded; Lightning would convert after
        for member, save in zip(members, found, strict=True):
            module.restore_(member, *save)
    return module, stream


def _statistics(save: Checkpoint) -> Statistics:
    return Statistics.restored(save.tensors, save.state["statistics"])


def _stream(job: Settings, source: Any, steps: int) -> ActivationStream:
    numbers = job["activations"]
    return ActivationStream(
        source, steps=steps, batch_tokens=job["batch_tokens"], stream_seed=job["stream_seed"],
        center=numbers["center"], max_norm=numbers["max_norm"], statistics=numbers["statistics"],
        ahead=ReadAhead(device_of(job)) if job["read_ahead"] else None,
    )


def _member(label: str, job: Settings, point: HookPoint, stream: ActivationStream) -> Member:
    arch = job["arch"]
    control = arch["control"]
    coefficient = control and Coefficient(job["sparsity"], fixed=arch["coefficient"], **control)
    sae = build(job, len(stream.statistics[point].mean))
    return Member(label, point, sae, coefficient, arch["optimizer"])


def logger_of(part: LocalGroup) -> SweepLogger:
    infos = [
        MemberInfo(
            folder, job, job["name"], job["model"]["name"], job["site"]["name"], job["layer"],
            job["arch"]["name"], target(job), job["seed"],
        )
        for job, folder in zip(part.jobs, part.folders, strict=True)
    ]
    return SweepLogger(infos, part.shared.get("logger") or {})


def _finish(part: LocalGroup, module: SAESweep, stream: ActivationStream, inputs: Inputs) -> list[Numbers | Exception]:
    """Fold, evaluate and write each SAE; one that fails is returned as its error, without effect on the others."""
    module.members.to(device_of(part.shared))  # where the language model is; Lightning leaves them on the CPU
    _calibrate(part.jobs, module, stream, inputs)
    done = [index for index, member in enumerate(module.members) if not member.failed]
    subjects = []
    for member in (module.members[index] for index in done):
        statistics = stream.statistics[member.point]
        member.sae.requires_grad_(False).fold_(statistics.mean.to(member.sae.b_dec.device), statistics.scale)
        subjects.append(Subject(member.sae, member.point, statistics))
    measured = dict(zip(done, _measured(inputs, subjects), strict=True))
    ends: list[Numbers | Exception] = []
    for index, (job, folder, member) in enumerate(zip(part.jobs, part.folders, module.members, strict=True)):
        ended = TrainingFailed if member.declared else RuntimeError
        found = ended(member.failed) if member.failed else measured[index]
        if not isinstance(found, Exception):
            found.numbers.update(_known_from_training(module, member))
            _warn_if_missed(job, member, found.numbers["l0"])
            found = _write_outputs(job, folder, member, found, stream.statistics[member.point])
        ends.append(found.numbers if isinstance(found, Measured) else found)
    return ends


def _warn_if_missed(job: Settings, member: Member, l0: float | None) -> None:
    if l0 is not None and target(job) is not None and abs(l0 / job["sparsity"] - 1) > MISSED:
        log.warning("%s: its L0 on held-out text is %.1f; its target is sparsity=%d", member.label, l0, job["sparsity"])


def _measured(inputs: Inputs, subjects: Sequence[Subject]) -> list[Measured | Exception]:
    """Ranks that share SAEs evaluate a part of them each."""
    mine = range(distributed.rank_in_sae(), len(subjects), distributed.ranks_per_sae())
    found = dict(zip(mine, inputs.evaluate([subjects[i] for i in mine]), strict=True))
    if distributed.ranks_per_sae() > 1:
        found = {i: numbers for part in distributed.all_gather(found) for i, numbers in part.items()}
    return [found[i] for i in range(len(subjects))]


def _known_from_training(module: SAESweep, member: Member) -> Numbers:
    return {
        "dead": member.dead_share(module.dead_after),
        "coefficient": None if member.coefficient is None else float(member.coefficient.value),
        "d_in": member.sae.d_in, "d_sae": member.sae.d_sae, "tokens": module.tokens,
    }


def _write_outputs(
    job: Settings, folder: Path, member: Member, measured: Measured, statistics: Statistics
) -> Measured | Exception:
    """Write the SAE, its statistics, the sums per document and, last, the metrics: they mark it as finished."""
    if distributed.rank_in_sae() > 0:
        return measured
    problems = list[Exception]()
    with isolate_failures(problems.append):
        sae_format.save(folder / "sae", member.sae, job, measured.numbers)
        checkpoints.write_tensors(folder / files.STATISTICS, Checkpoint(*statistics.saved()))
        sweep_table.write(folder, documents=measured.documents, frequency=measured.frequency, numbers=measured.numbers)
        return measured
    log.error("%s cannot be written", member.label, exc_info=problems[0])
    return problems[0]


def _calibrate(jobs: Sequence[Settings], module: SAESweep, stream: ActivationStream, inputs: Inputs) -> None:
    """Shift the thresholds so that L0 on held-out text meets its target; SAEs of a fixed coefficient have none."""
    concerned = [
        member for job, member in zip(jobs, module.members, strict=True)
        if not member.failed and member.sae.thresholded and target(job) is not None
    ]
    if not distributed.any_rank(bool(concerned)):
        return
    rows = inputs.calibration_rows()
    for member in concerned:
        statistics, x = stream.statistics[member.point], rows[member.point]
        with member.failing_alone("while its L0 was calibrated"):
            require_finite(x, member.point)
            shift = meet_l0_(member.sae, statistics.apply(x[statistics.ordinary(x)]))
            said = "%s: thresholds shifted by %+.4g, for an L0 of %d on held-out text"
            log.info(said, member.label, shift, member.sae.sparsity)

