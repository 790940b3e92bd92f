"""Room for the entries of a list, whose number the host does not wait for.

    the first list       is counted, for which the host waits
    the following ones   have room for a quarter more than the one before had; entries left over have the value 0
    before the update    the host reads how many there are, which the GPU has counted while it had other work to do

Where there are more than the room, some are missing. The step is then thrown away and taken again with lists that are counted
(training/pieces.py), so that none is ever left out.
"""
from dataclasses import dataclass, field

import torch
from torch import Tensor

SPARE = 4  # room for one entry more of so many: L0 of a batch differs by a few per cent from that of the one before


class Late:
    """A number that the device computes, and the host reads later without waiting for what was queued in between."""

    def __init__(self, number: Tensor):
        self._number, self._computed = number, None
        if number.is_cuda:
            self._number = torch.empty((), dtype=number.dtype, pin_memory=True)
            self._number.copy_(number, non_blocking=True)
            self._computed = torch.cuda.Event()
            self._computed.record()

    def read(self) -> int:
        if self._computed is not None:
            self._computed.synchronize()
        return int(self._number)


@dataclass
class Room:
    """entries: of the next list; None: it is counted."""

    entries: int | None = None
    _found: list[Late] = field(default_factory=list)

    def of(self, found: Tensor, most: int) -> int:
        """The length of a list of which the device has found so many entries; one of more than `most` is counted, because
        dense products may be faster."""
        if self.entries is not None and self.entries > most:
            self.entries = None
        self._found.append(Late(found))
        return self._found[-1].read() if self.entries is None else self.entries

    def overflowed(self) -> bool:
        """Whether a list of this step lacks entries; sets the room of the next one."""
        found, self._found = [late.read() for late in self._found], []
        missing = self.entries is not None and any(number > self.entries for number in found)
        self.entries = None if missing or not found else max(found) + max(found) // SPARE
        return missing
