"""Any Lightning logger, one instance per SAE: a YAML in conf/logger with its `_target_` and arguments.

Strings in the YAML are templates, such as "{arch}-{aim}"; config/logger_keys.py has the names.
"""
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from saesweep.config.instantiate import instantiate
from saesweep.config.logger_keys import NAMES, OURS, filled
from saesweep.loggers.identity import MemberInfo
from saesweep.loggers.resume_mark import ResumeMark


class LightningLogger:
    def __init__(self, kind: str, node: Mapping, member: MemberInfo) -> None:
        self._mark = ResumeMark(member.folder / kind / "logged.json")
        known = {name: getattr(member, name) for name in NAMES if name != "version"}
        arguments = filled(f"logger.{kind}", node, known | {"version": self._mark.version})
        with _first_rank():
            self._logger = instantiate(arguments, leave=OURS)
            self._logger.log_hyperparams({**member.shown(), "command": member.command})

    def add(self, metrics: Mapping[str, int | float], tokens: int) -> None:
        if tokens > self._mark.tokens:
            self._log("train", metrics, tokens)
            version = self._logger.version
            self._mark.move(tokens, version if isinstance(version, str) else None)

    def group(self, metrics: Mapping[str, int | float]) -> None:
        self._log("group", metrics, max(0, self._mark.tokens))

    def close(self, summary: Mapping[str, int | float | None] | None, failed: str | None) -> None:
        numbers = {key: value for key, value in (summary or {}).items() if isinstance(value, int | float)}
        if numbers:
            self._log("eval", numbers, max(0, self._mark.tokens))
        with _first_rank():
            self._logger.finalize("success" if failed is None else "failed")

    def _log(self, part: str, metrics: Mapping[str, int | float], tokens: int) -> None:
        with _first_rank():
            self._logger.log_metrics({f"{part}/{key}": float(value) for key, value in metrics.items()}, step=tokens)
            self._logger.save()


@contextmanager
def _first_rank() -> Iterator[None]:
    """Lightning's loggers write on rank 0 only; with trainer=sweep_parallel every rank logs its own SAEs."""
    from lightning.pytorch.utilities import rank_zero_only

    before = getattr(rank_zero_only, "rank", None)
    rank_zero_only.rank = 0
    try:
        yield
    finally:
        rank_zero_only.rank = before
