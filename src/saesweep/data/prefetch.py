"""Harvest the next window while the SAEs train on the current one: `read_ahead=true`, on a GPU.

The next window is harvested micro-batch by micro-batch on a CUDA stream of its own, in step with the batches taken from the
current one. The activations and their order do not change; two windows are in memory instead of one.
"""
from collections.abc import Callable, Generator
from typing import TypeVar

import torch

from saesweep.lm.hooks import Rows

T = TypeVar("T")


def drain(steps: Generator[int, None, T], on_progress: Callable[[int], None] = lambda rows: None) -> T:
    """Run a generator to its end and return its result; `on_progress` is called with every value it yields."""
    while True:
        try:
            on_progress(next(steps))
        except StopIteration as end:
            return end.value


class ReadAhead:
    """Runs a generator of `window_by_micro_batch` step by step on a CUDA stream of its own."""

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.begin(None)

    def begin(self, steps: Generator[int, None, Rows] | None) -> None:
        """Start a window, or none; one that was started before is dropped."""
        self._steps, self._rows, self._window = steps, 0, None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def until(self, rows: int) -> None:
        """Continue until `rows` rows are harvested, or all."""
        with torch.cuda.stream(self.stream):
            while self._steps is not None and self._rows < rows:
                try:
                    self._rows = next(self._steps)
                except StopIteration as end:
                    self._steps, self._window = None, end.value

    def window(self) -> Rows | None:
        """The complete window, ready for the current CUDA stream; None where none was started."""
        self.until(2**63)
        window, self._window = self._window, None
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for rows in (window or {}).values():
            rows.record_stream(current)
        return window
