"""An architecture that fails while there is a file `broken` in the working directory."""

from pathlib import Path

from faults import AFTER
from saesweep.arch.topk import TopK


class FailsUntilFixed(TopK):
    steps = 0

    def step(self, x, coefficient, progress):
        self.steps += 1
        if self.steps > AFTER and Path("broken").exists():
            raise RuntimeError("a bug in its step")
        return super().step(x, coefficient, progress)
