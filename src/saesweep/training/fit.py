"""Train a group on its stream with Lightning, and write checkpoints at intervals."""
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError

from saesweep.config.instantiate import instantiate
from saesweep.config.settings import Settings, device_of
from saesweep.data.stream import ActivationStream
from saesweep.loggers.sweep_logger import SweepLogger
from saesweep.runtime import console, distributed, signals
from saesweep.runtime.console import ProgressLine
from saesweep.storage import checkpoints, files
from saesweep.storage.checkpoints import Checkpoint
from saesweep.training.member import Member
from saesweep.training.module import SAESweep


def fit(
    module: SAESweep, stream: ActivationStream, logger: SweepLogger, job: Settings, folders: Sequence[Path],
    determined_by: Settings,
) -> None:
    """Train to the end. All members are saved every `save_tokens` and `save_minutes`, at the end, and on a signal.

    `determined_by`: what determined the activations, for the checkpoints.
    """
    every_steps = max(1, job["save_tokens"] // job["batch_tokens"])
    saver = Saver(stream, folders, determined_by, every_steps, 60 * job["save_minutes"])
    module.after_step = saver
    if not module.members:
        for _ in stream:  # this rank harvests for the others
            module.steps_done += 1
            saver(module)
    elif len(stream):
        _quiet_lightning()
        trainer = instantiate(
            job["trainer"] | _this_rank_alone(job["trainer"]), logger=logger, max_steps=len(stream), max_epochs=-1,
            enable_progress_bar=False, enable_checkpointing=False, log_every_n_steps=module.log_steps,
        )
        try:
            trainer.fit(module, stream)
        except (KeyboardInterrupt, SystemExit):
            saver.save(module)
            raise


def _quiet_lightning() -> None:
    """Lightning's console handlers repeat every line beside Hydra's; keep its warnings."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")  # Lightning 2.6's own use of torch 2.13


def _this_rank_alone(trainer: Settings) -> Settings:
    """With SAEs of its own on every rank, Lightning is told of this rank alone."""
    if distributed.world_size() == distributed.ranks_per_sae():
        return {}
    on_gpu = device_of({"trainer": trainer}).type == "cuda"
    return {"devices": [torch.cuda.current_device()] if on_gpu else 1, "strategy": "auto", "num_nodes": 1}


class Saver:
    """Called after every step: writes checkpoints of all members when due, or when a stop is requested."""

    AGREE = 16  # steps between two exchanges of the ranks on the time and on a requested stop

    def __init__(
        self, stream: ActivationStream, folders: Sequence[Path], determined_by: Settings, every_steps: int, every_seconds: float
    ):
        self.stream, self.folders, self.determined_by = stream, folders, determined_by
        self.every_steps, self.every_seconds, self.last = every_steps, every_seconds, time.monotonic()
        self.saved_step = -1
        self.failed = set[int]()

    def __call__(self, module: SAESweep) -> None:
        self._note_failed(module)
        due = module.steps_done % self.every_steps == 0 or module.steps_done == module.total_steps
        stop = False
        if distributed.world_size() == 1 or module.steps_done % self.AGREE == 0:
            due |= distributed.any_rank(time.monotonic() - self.last > self.every_seconds)
            stop = distributed.any_rank(signals.stop_requested())
        if due or stop:
            self.save(module)
        if stop:
            raise SystemExit(0)

    def save(self, module: SAESweep) -> None:
        if self.saved_step == module.steps_done:
            return
        with signals.deferred():
            for member in module.running:
                module.stop_where_not_finite_(member)
            problems = {}
            for index, (member, folder) in enumerate(zip(module.members, self.folders, strict=True)):
                if not member.failed and (problem := self._write(module, member, folder)):
                    problems[index] = f"{member.label}: cannot be saved: {problem}, after {module.tokens:,} tokens"
            for index, reason in distributed.broadcast(problems).items():
                module.members[index].stop_(reason)
        self.last, self.saved_step = time.monotonic(), module.steps_done

    def _note_failed(self, module: SAESweep) -> None:
        """Write failed.txt at once: the live table reads it."""
        new = {index for index, member in enumerate(module.members) if member.failed} - self.failed
        self.failed |= new
        if distributed.rank_in_sae() == 0:
            for index in new:
                files.write_failed(self.folders[index], module.members[index].failed)

    def _write(self, module: SAESweep, member: Member, folder: Path) -> str | None:
        """Write on the first rank; returns the problem, if any."""
        tensors, state = module.state_of(member)
        if distributed.rank_in_sae() > 0:
            return None
        statistics, numbers = self.stream.statistics[member.point].saved()
        state |= {"position": self.stream.position_after(module.steps_done)._asdict(), "statistics": numbers}
        state["determined_by"] = self.determined_by
        try:
            checkpoints.write(folder, module.steps_done, Checkpoint(tensors | statistics, state))
        except (OSError, SafetensorError) as error:
            return str(error)
        return None


class Progress:
    """Prints tokens, tokens/s, time left, and L0 and FVU of every SAE."""

    def __init__(self, stream: ActivationStream) -> None:
        self.line, self.stream = ProgressLine(), stream
        self.began, self.first_step = time.monotonic(), stream.position.step

    def __call__(self, module: SAESweep) -> None:
        total = module.total_steps * module.batch_tokens
        left = self.seconds_left(module)
        head = f"{module.tokens / total:4.0%}  {module.tokens:,} tokens  {module.tokens_per_second:,.0f}/s  {left:.0f} s left"
        members = [] if console.is_live() else ["L0 (FVU):", *(_short(member) for member in module.members)]
        self.line("  ".join([head, *members]), final=module.steps_done == module.total_steps)

    def seconds_left(self, module: SAESweep) -> float:
        """Estimated from harvest time and step time separately, since a window is harvested at once or between the steps."""
        stream, steps_left = self.stream, module.total_steps - module.steps_done
        stepping = (time.monotonic() - self.began - stream.seconds_reading) / (module.steps_done - self.first_step)
        unread = 0 if stream.ahead else max(0, steps_left * module.batch_tokens - stream.rows_at_hand) / stream.passes
        return steps_left * stepping + unread * stream.seconds_reading / max(1, stream.rows_read)


def _short(member: Member) -> str:
    if member.failed:
        return f"{member.label} failed"
    return f"{member.label} {member.latest['l0']:.1f} ({member.latest['fvu']:.3f})"
