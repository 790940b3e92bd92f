"""The overrides of a command as a space that optuna searches: one distribution per key that is swept, in Hydra's grammar.

    arch.optimizer.lr=tag(log, interval(1e-4, 1e-2))    any number between, uniform in its logarithm
    width=interval(512, 4096)                           whole numbers, as both ends are typed
    arch.warm_start=range(0, 1, 0.25)                   0, 0.25, 0.5, 0.75: in steps, without the end, as in Hydra
    arch=topk,jumprelu   or   arch=choice(...)          without an order
"""
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from saesweep.errors import UsageError

Words = dict[str, str | BaseDistribution]  # by key: the override as typed, or what is searched
DIGITS = 4  # of a proposed number: it is part of a folder's name and of a command


def parsed(words: Sequence[str], loader: ConfigLoader | None) -> Words:
    """In the order of the command; a key's last override counts. Raises UsageError where nothing is searched."""
    found: Words = {}
    for override in OverridesParser.create(loader).parse_overrides(list(words)):
        word = _distribution(override) if override.is_sweep_override() else str(override.input_line)
        found[override.get_key_element()] = word
    if not space(found):
        raise UsageError("hydra/sweeper=optuna: no key has several values; write such as "
                         "'arch.optimizer.lr=tag(log, interval(1e-4, 1e-2))'")
    return found


def space(words: Words) -> dict[str, BaseDistribution]:
    return {key: word for key, word in words.items() if not isinstance(word, str)}


def overrides(words: Words, values: Mapping[str, Any]) -> list[str]:
    """Of one SAE."""
    return [word if isinstance(word, str) else f"{key}={_typed(values[key])}" for key, word in words.items()]


def _typed(value: Any) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def _distribution(override: Override) -> BaseDistribution:
    try:
        if override.is_interval_sweep():
            return _interval(override.value(), str(override.input_line))
        if override.is_range_sweep():
            return _range(list(override.sweep_iterator()))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise UsageError(f"{override.input_line}: {error}") from error


def _interval(sweep: Any, typed: str) -> BaseDistribution:
    """Hydra reads both ends as decimal numbers."""
    assert isinstance(sweep, IntervalSweep) and sweep.start is not None and sweep.end is not None
    log = "log" in sweep.tags
    if re.search(r"interval\((start=)?[+-]?[\d_]+,(end=)?[+-]?[\d_]+\)", typed.replace(" ", "")):
        return IntDistribution(int(sweep.start), int(sweep.end), log=log)
    return FloatDistribution(sweep.start, sweep.end, log=log)


def _range(values: Sequence[Any]) -> BaseDistribution:
    low, high = min(values), max(values)
    if len(values) == 1:
        return CategoricalDistribution(values)
    step = (high - low) / (len(values) - 1)
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, step=round(step))
    return FloatDistribution(low, high, step=step)
