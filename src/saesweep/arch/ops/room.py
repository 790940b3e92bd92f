"""Room for what a step finds on a GPU, the entries of a list or dead latents, whose number the host does not wait for.

    the first time    they are counted, for which the host waits
    from then on      there is room for a quarter more than the step before had; what is left over has the value 0
    before the update the host reads how many there are, which the GPU has counted while it had other work to do

Where there are more than the room, some are missing. The step is then thrown away and taken again with lists that are counted
(training/pieces.py), so that none is ever left out. While a list would be slower than dense products, steps are dense, and only
count what they keep.

A CUDA graph repeats a step with the sizes of its capture: `fixed` room stays while it suffices and is not far too large.
"""
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SPARE = 4  # room for one more of so many: L0 of a batch differs by a few per cent from that of the one before
ALWAYS_SPARE = 64  # of fixed room, also where few or none were found
TOO_LARGE = 2  # times as large as needed, at which fixed room is made anew
STAYS_DENSE = 0.75  # of the length at which dense products are as fast: a list has candidates too, and L0 varies


class Late:
    """A number that the device computes, and the host reads later without waiting for what was queued in between."""

    def __init__(self, number: Tensor):
        self._number, self._copy, self._copied = number, number, None
        if not (number.is_cuda and torch.cuda.is_current_stream_capturing()):
            self.send()

    def send(self) -> None:
        """Queue the copy to the host; of a number that a CUDA graph computes, each time after it."""
        if self._number.is_cuda:
            self._copy = torch.empty((), dtype=self._number.dtype, pin_memory=True)
            self._copy.copy_(self._number, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> int:
        if self._copied is not None:
            self._copied.synchronize()
        return int(self._copy)


@dataclass
class Room:
    """entries: of the next list; None: it is counted. dense: the next step takes no list. fixed: for a CUDA graph."""

    entries: int | None = None
    dense: bool = False
    fixed: bool = False
    _found: list[Late] = field(default_factory=list)
    _most: int | None = None
    _used: bool = False

    @property
    def size(self) -> int | str | None:
        """What the sizes of the next step follow from; None if it has to count."""
        if not self._used:
            return "unused"
        return "dense" if self.dense else self.entries

    def of(self, found: Tensor, most: int | None = None) -> int:
        """The length of a list of which the device has found so many entries; one of more than `most` is counted, because
        dense products may be faster."""
        if self.entries is not None and most is not None and self.entries > most:
            self.entries = None
        self.note(found, most)
        return self._found[-1].read() if self.entries is None else self.entries

    def note(self, found: Tensor, most: int | None) -> None:
        """How many entries the step's list has found, or that of a dense step would have."""
        self._found.append(Late(found))
        self._most, self._used = most, True

    def overflowed(self) -> bool:
        """Whether a list of this step lacks entries; sets the room of the next one."""
        found, self._found = [late.read() for late in self._found], []
        if not found:
            return False
        missing = not self.dense and self.entries is not None and max(found) > self.entries
        if missing:
            self.entries = None
        else:
            self._make_for(max(found))
        return missing

    def _make_for(self, found: int) -> None:
        enough = found + found // SPARE + (ALWAYS_SPARE if self.fixed else 0)
        self.dense = self._most is not None and enough > self._most * (STAYS_DENSE if self.dense else 1.0)
        if self.dense or self.entries is None or not self.fixed:
            self.entries = None if self.dense else enough if found or not self.fixed else 0
        elif not found <= self.entries <= TOO_LARGE * enough:
            self.entries = enough

    def forget(self) -> None:
        """The step was not taken."""
        self._found = []

    def taken(self) -> Sequence[Late]:
        """The numbers of a step in the capture of a CUDA graph."""
        found, self._found = self._found, []
        return found

    def repeated(self, found: Sequence[Late]) -> None:
        """The graph has computed these numbers anew."""
        self._found = list(found)
        for late in found:
            late.send()
