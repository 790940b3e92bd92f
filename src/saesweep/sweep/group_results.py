"""The end of a group: calibrate, fold, evaluate and write each SAE."""
import logging
from collections.abc import Sequence
from pathlib import Path

from saesweep.arch.base import SparseAutoencoder
from saesweep.config.settings import Settings, device_of, target, unique_tokens
from saesweep.data.normalisation import Statistics, require_finite
from saesweep.data.stream import ActivationStream
from saesweep.errors import TrainingFailed
from saesweep.evaluation.subject import Measured, Subject
from saesweep.runtime import distributed
from saesweep.runtime.console import working
from saesweep.runtime.isolate import isolate_failures
from saesweep.storage import checkpoints, files, sae_format, sweep_table
from saesweep.storage.checkpoints import Checkpoint
from saesweep.sweep.group_setup import LocalGroup
from saesweep.sweep.inputs import Inputs, Numbers
from saesweep.training.calibration import meet_l0_
from saesweep.training.initial import restore_
from saesweep.training.member import Member
from saesweep.training.module import SAESweep

log = logging.getLogger(__name__)
MISSED = 0.05  # relative distance of L0 from its target above which a warning is logged


def finish(part: LocalGroup, module: SAESweep, stream: ActivationStream, inputs: Inputs) -> list[Numbers | Exception]:
    """Fold, evaluate and write each SAE; one that fails is returned as its error, without effect on the others."""
    module.members.to(device_of(part.shared))  # where the language model is; Lightning leaves them on the CPU
    _calibrate(part.jobs, module, stream, inputs)
    done = [index for index, member in enumerate(module.members) if not member.failed]
    subjects = []
    for member in (module.members[index] for index in done):
        statistics = stream.statistics[member.point]
        fold_(member.sae.requires_grad_(False), statistics)
        if module.total_steps == 0:
            restore_(part.jobs[done[len(subjects)]], member.sae)
        subjects.append(Subject(member.sae, member.point, statistics))
    measured = dict(zip(done, _measured(inputs, subjects), strict=True))
    ends: list[Numbers | Exception] = []
    for index, (job, folder, member) in enumerate(zip(part.jobs, part.folders, module.members, strict=True)):
        ended = TrainingFailed if member.declared else RuntimeError
        found = ended(member.failed) if member.failed else measured[index]
        if not isinstance(found, Exception):
            found.numbers.update(_known_from_training(job, module, member))
            _warn_if_missed(job, member, found.numbers["l0"])
            found = _write_outputs(job, folder, member, found, stream.statistics[member.point])
        ends.append(found.numbers if isinstance(found, Measured) else found)
    return ends


def fold_(sae: SparseAutoencoder, statistics: Statistics) -> None:
    """Write the normalisation into the weights: the SAE takes raw activations."""
    device, output = sae.b_dec.device, statistics.output
    if statistics.target is not None:
        sae.fold_input_(statistics.mean.to(device), statistics.scale)
    sae.fold_(output.mean.to(device), output.scale)


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


def _known_from_training(job: Settings, module: SAESweep, member: Member) -> Numbers:
    return {
        "dead": member.dead_share(module.dead_after) if module.total_steps else None,
        "coefficient": None if member.coefficient is None else float(member.coefficient.value),
        "d_in": member.sae.d_in, "d_sae": member.sae.d_sae, "tokens": module.tokens, "unique_tokens": unique_tokens(job),
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
        sweep_table.write(folder, documents=measured.documents, frequency=measured.frequency, numbers=measured.numbers,
                          parts=measured.parts)
        return measured
    log.error("%s cannot be written", member.label, exc_info=problems[0])
    return problems[0]


def _calibrate(jobs: Sequence[Settings], module: SAESweep, stream: ActivationStream, inputs: Inputs) -> None:
    """Shift the thresholds so that L0 on held-out text meets its target; SAEs of a fixed coefficient have none."""
    concerned = [] if module.total_steps == 0 else [
        member for job, member in zip(jobs, module.members, strict=True)
        if not member.failed and member.sae.thresholded and target(job) is not None
    ]
    if not distributed.any_rank(bool(concerned)):
        return
    with working("reading held-out text for the calibration", always=False):
        rows = inputs.calibration_rows()
    for member in concerned:
        statistics, tensors = stream.statistics[member.point], member.point.of(rows)
        with member.failing_alone("while its L0 was calibrated"):
            for x, tensor in zip(tensors, member.point.tensors, strict=True):
                require_finite(x, tensor)
            shift = meet_l0_(member.sae, statistics.apply(tensors[0][statistics.ordinary(*tensors)]))
            said = "%s: thresholds shifted by %+.4g, for an L0 of %d on held-out text"
            log.info(said, member.label, shift, member.sae.sparsity)
