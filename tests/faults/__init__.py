"""Architectures that fail at a known point: SAESWEEP_PACKAGES=faults arch._target_=faults.FailsInStep."""

import gc

import torch

from saesweep.arch.topk import TopK

AFTER = 20  # steps


class FailsInStep(TopK):
    steps = 0

    def step(self, x, coefficient, progress):
        self.steps += 1
        if self.steps > AFTER:
            raise RuntimeError("a bug in its step")
        return super().step(x, coefficient, progress)


class FailsInCalibration(TopK):
    thresholded = True
    saved_as = "standard"

    def activate(self, pi):
        return torch.relu(pi)

    def margin(self, x):
        if self.tokens_seen > 0:  # not in the plan's probe
            raise RuntimeError("a bug in its margin")
        return super().margin(x)


class FailsInEvaluation(TopK):
    def encode(self, x):
        raise RuntimeError("a bug in its encode")


class FailsWithoutMessage(TopK):
    def encode(self, x):
        raise AssertionError


class FailsInExport(TopK):
    def exported(self):
        if self.tokens_seen > 0:
            raise OSError(28, "No space left on device")
        return super().exported()


class TurnsNaN(TopK):
    steps = 0

    def step(self, x, coefficient, progress):
        self.steps += 1
        if self.steps > AFTER:
            self.W_dec.data[0, 0] = float("nan")
        return super().step(x, coefficient, progress)


class RunsOutOfMemory(TopK):
    """Simulates a device with memory for two of these SAEs."""

    def step(self, x, coefficient, progress):
        if progress > 0.5 and sum(isinstance(obj, RunsOutOfMemory) for obj in gc.get_objects()) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().step(x, coefficient, progress)
