"""What one sees while it works: plain lines, or one line below the live table of saesweep.sweep.view."""
from __future__ import annotations

import sys
import time

from saesweep import distributed, screen
from saesweep.training import Member, SAESweep


class Line:
    """At most one line every `every` seconds; on a live screen, each."""

    def __init__(self, every: float = 10.0):
        self.every, self.last = every, 0.0

    def __call__(self, text: str, final: bool = False) -> None:
        now = time.monotonic()
        if distributed.reader() > 0:
            return
        if screen.is_live():
            screen.say(text)
        elif final or now - self.last >= self.every:
            self.last = now
            print(text, file=sys.stderr, flush=True)


class Progress:
    """Tokens, tokens/s, time left, and L0 and FVU of every member."""

    def __init__(self) -> None:
        self.line = Line()

    def __call__(self, module: SAESweep) -> None:
        total = module.total_steps * module.batch_tokens
        left = (total - module.tokens) / max(module.tokens_per_second, 1e-9)
        head = f"{module.tokens / total:4.0%}  {module.tokens:,} tokens  {module.tokens_per_second:,.0f}/s  {left:.0f} s left"
        members = [] if screen.is_live() else ["L0 (FVU):", *(_short(member) for member in module.members)]
        self.line("  ".join([head, *members]), final=module.steps_done == module.total_steps)


def _short(member: Member) -> str:
    if member.failed:
        return f"{member.label} failed"
    return f"{member.label} {member.latest['l0']:.1f} ({member.latest['fvu']:.3f})"
