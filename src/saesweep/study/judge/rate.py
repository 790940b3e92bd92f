"""At most so many requests per minute, evenly spaced, from any number of threads."""
from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """A bucket that holds one token and gets a new one every 60 / per_minute seconds. None: no limit."""

    def __init__(
        self, per_minute: float | None, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._next, self._lock = clock(), threading.Lock()

    def wait(self) -> None:
        """Returns when it is the caller's turn."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._sleep(turn - now)
