"""The SAEs of a group, their activation stream and their loggers, new or from checkpoints."""
from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from saesweep.config.settings import Settings, device_of, passes
from saesweep.data.normalisation import Statistics
from saesweep.data.prefetch import ReadAhead
from saesweep.data.resources import Resources
from saesweep.data.stream import ActivationStream, Position
from saesweep.lm.hooks import HookPoint
from saesweep.loggers.identity import MemberInfo, labels, named
from saesweep.loggers.sweep_logger import SweepLogger
from saesweep.runtime import distributed
from saesweep.storage import checkpoints
from saesweep.storage.checkpoints import Checkpoint, Cohort
from saesweep.storage.variants import written
from saesweep.sweep.inputs import Inputs, point_of
from saesweep.training.build import build
from saesweep.training.fit import Progress
from saesweep.training.initial import initial
from saesweep.training.l0_controller import Coefficient
from saesweep.training.member import Member
from saesweep.training.module import SAESweep


class LocalGroup(NamedTuple):
    """The SAEs of a group that this rank trains."""

    jobs: list[Settings]
    folders: list[Path]
    shared: Settings  # of one of the jobs: the settings that all share
    resources: Resources

    def of(self, which: Iterable[int]) -> LocalGroup:
        which = list(which)
        return LocalGroup([self.jobs[i] for i in which], [self.folders[i] for i in which], self.shared, self.resources)


def prepared(part: LocalGroup, inputs: Inputs, cohort: Cohort, **more: Any) -> tuple[SAESweep, ActivationStream]:
    """The SAEs and their stream, new or from checkpoints."""
    shared, points = part.shared, list(map(point_of, part.jobs))
    stream = _stream(shared, inputs.source, math.ceil(shared["tokens"] / shared["batch_tokens"]))
    found = [checkpoints.read(file) for file in cohort.saves if file is not None]
    if cohort.step:
        position = distributed.broadcast_from_any(found[0].state["position"] if found else None)
        statistics = {point: _statistics(save) for point, save in zip(points, found, strict=True)}
        stream.resume(Position(**position), statistics)
    elif (first := initial(shared)) is not None:
        stream.resume(stream.position, dict.fromkeys(points, first.statistics))
    progress = Progress(stream)  # before the first window is harvested
    stream.only(points)
    each = zip(labels(part.jobs, part.folders), part.jobs, points, strict=True)
    members = [_member(label, job, point, stream, anew=cohort.step == 0) for label, job, point in each]
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
        source, steps=steps, batch_tokens=job["batch_tokens"], stream_seed=job["stream_seed"], passes=passes(job),
        center=numbers["center"], max_norm=numbers["max_norm"], statistics=numbers["statistics"],
        ahead=ReadAhead(device_of(job)) if job["read_ahead"] else None, even=job.get("cuda_graphs", False),
    )


def _member(label: str, job: Settings, point: HookPoint, stream: ActivationStream, anew: bool) -> Member:
    """anew: without a checkpoint, whose content would replace what it begins with."""
    arch = job["arch"]
    control = arch["control"]
    coefficient = control and Coefficient(job["sparsity"], fixed=arch["coefficient"], **control)
    sae = build(job, *stream.statistics[point].sizes)
    if anew and (first := initial(job)) is not None:
        first.put_into_(sae)
        if coefficient and coefficient.controlled and first.coefficient:
            coefficient.log_value.fill_(math.log(first.coefficient))
    return Member(label, point, sae, coefficient, arch["optimizer"])


def logger_of(part: LocalGroup) -> SweepLogger:
    names = map(written, named(part.jobs, part.folders))
    infos = [MemberInfo.of(*one) for one in zip(part.jobs, part.folders, names, strict=True)]
    return SweepLogger(infos, part.shared.get("logger") or {})
