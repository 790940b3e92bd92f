"""The activations that a group is trained and evaluated on: from a language model and a text, from a known dictionary,
or brought by the user."""
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from saesweep.config.settings import Settings, device_of, has_lm, own_activations
from saesweep.data import activation_split
from saesweep.data.disk_cache import CachedSource
from saesweep.data.harvest import LanguageModelSource
from saesweep.data.held_out import CALIBRATION, EVALUATION
from saesweep.data.own_activations import OwnSource, require_enough_rows
from saesweep.data.resources import Resources
from saesweep.data.scored import no_loss, scored
from saesweep.data.synthetic import SyntheticSource
from saesweep.errors import UsageError
from saesweep.evaluation.evaluate import evaluate
from saesweep.evaluation.recovery import evaluate_synthetic
from saesweep.evaluation.subject import Measured, Subject, measure_rows
from saesweep.lm.hooks import HookPoint, Rows, hook_point, tensors_of
from saesweep.runtime.console import ProgressLine
from saesweep.runtime.rng import SYNTHETIC_CALIBRATION, generator
from saesweep.training.origin import determined_by

log = logging.getLogger(__name__)
Numbers = dict[str, float | None]  # of one SAE: the metrics of eval.json


def point_of(job: Settings) -> HookPoint:
    return hook_point(job["model"], job["site"]["name"], job["layer"])


def require_device(job: Settings) -> None:
    if device_of(job).type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"trainer={job['trainer']['name']}: torch {torch.__version__} finds no CUDA GPU here; "
                         "write trainer=cpu, or install a build of torch for the driver that is there")


class ReadText:
    """A language model and a text."""

    def __init__(self, job: Settings, points: Sequence[HookPoint], resources: Resources):
        self.job, self.points, self.resources = job, tensors_of(points), resources
        self.corpus, self.tokenizer = resources.require_long_enough_text(job)
        self.source: LanguageModelSource | CachedSource = self._cached() if job["cache"]["folder"] else self._read_now()

    def _read_now(self) -> LanguageModelSource:
        job, activations = self.job, self.job["activations"]
        return LanguageModelSource(
            self.resources.language_model(job), self.corpus, self.points, context=job["context"], window=activations["window"],
            forward_tokens=self.resources.forward_tokens(job, self.points),
            documents_per_pool=activations["documents_per_pool"], stream_seed=job["stream_seed"],
        )

    def _cached(self) -> CachedSource:
        job, activations = self.job, self.job["activations"]
        return CachedSource(
            Path(job["cache"]["folder"]), determined_by(self.job, self.resources), self.points, cache(self._read_now),
            tokenizer=self.tokenizer, context=job["context"], window=activations["window"], device=device_of(job),
        )

    def calibration_rows(self) -> Rows:
        held_out = self.resources.held_out(self.job, CALIBRATION, self.job["evaluation"]["calibration_tokens"])
        return self.source.read(held_out.tokens)

    def evaluate(self, subjects: Sequence[Subject]) -> list[Measured | Exception]:
        numbers = self.job["evaluation"]
        held_out = self.resources.held_out(self.job, EVALUATION, numbers["tokens"])
        if line := no_loss(self.job, self.tokenizer):
            log.info(line)
        return evaluate(
            lambda: self.resources.language_model(self.job), self.source.read, held_out,
            scored(held_out, self.tokenizer, self.job), subjects,
            forward_tokens=numbers["forward_tokens"], progress=ProgressLine(),
        )


class KnownDictionary:
    """A known dictionary (`model=synthetic`)."""

    def __init__(self, job: Settings, points: Sequence[HookPoint]):
        self.numbers = job["evaluation"]
        self.source = SyntheticSource(
            points[0], **job["model"]["source"]["synthetic"],
            window=job["activations"]["window"], stream_seed=job["stream_seed"], device=device_of(job),
        )

    def calibration_rows(self) -> Rows:
        random = generator(self.source.seed, SYNTHETIC_CALIBRATION)
        return {self.source.point: self.source.draw(self.numbers["calibration_tokens"], random)}

    def evaluate(self, subjects: Sequence[Subject]) -> list[Measured | Exception]:
        return evaluate_synthetic(self.source, subjects, self.numbers["tokens"])


class OwnActivations:
    """Activations that no language model computes here (`model=activations`)."""

    def __init__(self, job: Settings, points: Sequence[HookPoint], resources: Resources):
        """Raises UsageError where they cannot be read, are too few, or would be those of several hook points."""
        if len(set(points)) > 1:
            raise UsageError(f"model={job['model']['name']}: holds the activations of one hook point, and the command asks for "
                             f"{', '.join(sorted(map(str, set(points))))}; give each a command of its own")
        self.job, self.resources, given = job, resources, job["model"]["source"]["activations"]
        own, window = resources.own_activations(job), job["activations"]["window"]
        require_enough_rows(own, job)
        for purpose in (EVALUATION, CALIBRATION):
            self._held_out(purpose)
        self.source = OwnSource(own, points[0], window=window, repeat=given["repeat"],
                                where=str(given["folder"] or given["iterator"]), device=device_of(job))

    def _held_out(self, purpose: int) -> activation_split.Rows:
        tokens = self.job["evaluation"][("tokens", "calibration_tokens")[purpose]]
        return self.resources.own_rows(self.job, purpose, tokens)

    def calibration_rows(self) -> Rows:
        return {self.source.point: self._held_out(CALIBRATION)[0].to(device_of(self.job))}

    @torch.no_grad()
    def evaluate(self, subjects: Sequence[Subject]) -> list[Measured | Exception]:
        x, documents = self._held_out(EVALUATION)
        measure_rows(subjects, x.to(device_of(self.job)), documents)
        return [subject.result({}) for subject in subjects]


Inputs = ReadText | KnownDictionary | OwnActivations


def inputs_of(job: Settings, points: Sequence[HookPoint], resources: Resources) -> Inputs:
    """The activations for a group. Raises UsageError if there are too few, or there is no GPU."""
    require_device(job)
    if own_activations(job) is not None:
        return OwnActivations(job, points, resources)
    return ReadText(job, points, resources) if has_lm(job) else KnownDictionary(job, points)
