"""The examples of a latent as HTML, in groups (study/examples.py), all from the half `test`."""
from __future__ import annotations

import numpy as np

from saesweep.study.examples import PARTS, Group, choose, common_tokens
from saesweep.study.hits import Collected
from saesweep.study.pages.windows import Activity, Windows

ASKED = {"top": 20, "interval": 25, "decile": 50, "same_token": 10}  # in all parts together
FEW = '<p class="few">{} of {} asked for: the latent has no more in windows of their own.</p>'


def examples(sae: Collected, latent: int, active: Activity, windows: Windows) -> str:
    """Four sections; a known dictionary has no text."""
    if not any(sae.test.text.documents):
        return "<section><h2>Examples</h2><p>The SAE reads draws of a known dictionary, which have no text.</p></section>"
    common = common_tokens(sae.fit, latent)
    groups = choose(windows.places, sae.test, latent, common, ASKED)
    parts = {name: _parts(group, active, windows, PARTS.get(name, 1)) for name, group in groups.items() if name != "same_token"}
    top = f"<section><h2>Strongest examples</h2>{_few(groups['top'])}{_list(parts['top'][0], 'Strongest examples')}</section>"
    intervals = "".join(
        f"<h3>{title}</h3>{_list(lines, title)}" for title, lines in
        zip(_interval_titles(active, len(sae.test.text.tokens)), reversed(parts["interval"]), strict=True))
    deciles = "".join(f"<h3>{title}</h3>{_list(lines, title)}" for title, lines in
                      zip(_decile_titles(), reversed(parts["decile"]), strict=True))
    return (
        f"{top}<section><h2>Examples of all strengths</h2><p>Five intervals of equal width, from the maximum down.</p>"
        f"{intervals}<details><summary>By decile of its activations: ten parts of equal count</summary>{deciles}</details>"
        f"</section>{_contrasts(groups['same_token'], common, active, windows)}"
    )


def _parts(group: Group, active: Activity, windows: Windows, count: int) -> list[list[str]]:
    lines = windows.lines(active, group.positions)
    return [[line for line, part in zip(lines, group.part.tolist(), strict=True) if part == number] for number in range(count)]


def _list(lines: list[str], label: str) -> str:
    return f'<ol aria-label="{label}">{"".join(lines)}</ol>' if lines else '<p class="few">No further example.</p>'


def _few(group: Group) -> str:
    return FEW.format(len(group.positions), group.asked) if group.insufficient else ""


def _interval_titles(active: Activity, tokens: int) -> list[str]:
    """Bounds and shares of the five intervals, the highest first."""
    count, held = PARTS["interval"], active.intervals
    edges = active.maximum * np.arange(count + 1) / count
    return [f"{edges[n]:.3g} to {edges[n + 1]:.3g}: {percent(held[n] / max(held.sum(), 1))} of its activations, "
            f"{percent(held[n] / tokens)} of all tokens" for n in reversed(range(count))]


def _decile_titles() -> list[str]:
    return [f"Decile {n + 1}{' (strongest)' if n == 9 else ' (weakest)' if n == 0 else ''}" for n in reversed(range(10))]


def _contrasts(group: Group, common: np.ndarray, active: Activity, windows: Windows) -> str:
    lines = windows.lines(active, group.positions, np.isin(windows.ids, common))
    words = "The commonest tokens of its strongest activations (underlined), in text on which the latent is silent throughout."
    return (f"<section><h2>The same tokens without it</h2><p>{words}</p>{_few(group)}"
            f"{_list(lines, 'The same tokens without it')}</section>")


def percent(share: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{float(f'{100 * share:.3g}'):g}%" if share >= 1e-6 else "0%" if share == 0 else "under 0.0001%"
