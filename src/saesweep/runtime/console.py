"""What one sees while it works: plain lines, or one line below the live table of saesweep.sweep.live_table."""
from __future__ import annotations

import sys
import time

from saesweep.runtime import distributed, screen


class Line:
    """At most one line every `every` seconds; on a live screen, each."""

    def __init__(self, every: float = 10.0):
        self.every, self.last = every, 0.0

    def __call__(self, text: str, final: bool = False) -> None:
        now = time.monotonic()
        if distributed.rank() > 0:
            return
        if screen.is_live():
            screen.say(text)
        elif final or now - self.last >= self.every:
            self.last = now
            print(text, file=sys.stderr, flush=True)
