"""The next window, read in the language model while this one is trained on: `read_ahead=true`, on a GPU.

A window is read a micro-batch at a time, on a stream of the GPU of its own, as far as its predecessor was handed out.
What is read, and in which order, stays the same; two windows are held instead of one.
"""
from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

import torch

T = TypeVar("T")


def drain(reading: Generator[int, None, T], tell: Callable[[int], None] = lambda rows: None) -> T:
    """The result of something that is done in parts; what each part yields is told."""
    while True:
        try:
            tell(next(reading))
        except StopIteration as end:
            return end.value


class ReadAhead:
    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.begin(None)

    def begin(self, reading: Generator[int, None, dict] | None) -> None:
        """Of a window whose parts tell how many rows there are by then; what was begun before is left."""
        self._reading, self._rows, self._window = reading, 0, None
        self.stream.wait_stream(torch.cuda.current_stream(self.device))

    def until(self, rows: int) -> None:
        """Go on until so many rows are there."""
        with torch.cuda.stream(self.stream):
            while self._reading is not None and self._rows < rows:
                try:
                    self._rows = next(self._reading)
                except StopIteration as end:
                    self._reading, self._window = None, end.value

    def window(self) -> dict | None:
        """The whole of it, for the stream that the SAEs are trained on; None where none was begun."""
        self.until(2**63)
        window, self._window = self._window, None
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for rows in (window or {}).values():
            rows.record_stream(current)
        return window
