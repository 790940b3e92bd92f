"""What one sees while it works: a line that rewrites itself on a terminal, plain lines elsewhere."""
from __future__ import annotations

import sys
import time

from saesweep import distributed
from saesweep.training import Member, SAESweep


class Line:
    """Rewrites one line of a terminal; elsewhere prints at most one line every `every` seconds."""

    def __init__(self, every: float = 10.0):
        self.every, self.last, self.live = every, 0.0, sys.stderr.isatty()

    def __call__(self, text: str, final: bool = False) -> None:
        now = time.monotonic()
        if distributed.reader() > 0:
            return
        if self.live:
            print(f"\r\x1b[2K{text[:250]}", end="\n" if final else "", file=sys.stderr, flush=True)
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
        text = "  ".join([head, "L0 (FVU):", *(_short(member) for member in module.members)])
        self.line(text, final=module.steps_done == module.total_steps)


def _short(member: Member) -> str:
    if member.failed:
        return f"{member.label} failed"
    return f"{member.label} {member.latest['l0']:.1f} ({member.latest['fvu']:.3f})"
